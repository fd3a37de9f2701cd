# syntax=docker/dockerfile:1
# torch's wheels bring CUDA along: with the NVIDIA container toolkit, `docker run --gpus all` trains on the GPU.
FROM python:3.13-slim

# DVC and MLflow record Git's state; torch.compile wants a C++ compiler.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ltrec

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

# The dependencies change seldom: a layer of their own.
WORKDIR /project
COPY requirements.lock ./
RUN pip install --requirement requirements.lock

COPY pyproject.toml README.md dvc.yaml ./
COPY ltrec ltrec
RUN pip install --no-deps . && chown ltrec:ltrec /project

COPY --chown=ltrec:ltrec params.yaml dvc.yaml ./
RUN install --directory --owner=ltrec --group=ltrec data artifacts
USER ltrec
VOLUME ["/project/data", "/project/artifacts"]
ENTRYPOINT ["ltrec"]
CMD ["--help"]
