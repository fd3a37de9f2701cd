# make repro: from nothing to the comparison table.  make check: a minute, after each change.  make test: every test.
# make campaign: random kills and faults, a quarter of an hour.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
# A file's tests share what they set up, so that a file stays with one process.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help install scm repro lint check test campaign bench bench-gpu lock clean

help:
	@echo "make repro    install, write data/ if it is absent, run the pipeline, show the comparison"
	@echo "make check    lint, types, layers and the fast tests: what to run after each change"
	@echo "make test     the same with every test, those that start pipelines, servers and other processes too"
	@echo "make campaign  a quarter of an hour of random kills, full disks, lossy servers and hostile input; ends with counts"
	@echo "make bench    the figures of benchmarks/ that need no GPU, as JSON"
	@echo "make bench-gpu  those that need one; PYTHON must have what benchmarks/ imports, no DVC, no MLflow, no network"
	@echo "make lock     resolve requirements.lock anew"
	@echo "make clean    remove .venv and the caches (not data/, not artifacts/)"

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("ltrec needs Python 3.11 or newer; make PYTHON=python3.13 repro chooses one")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

repro: scm $(INSTALLED)
	@test -e data || ltrec data digits
	@dvc repro
	@cat artifacts/evaluate/table.md

# A ZIP holds no Git repository, and without one DVC stops unless it is told so.
scm:
	@if git rev-parse --git-dir >/dev/null 2>&1; then \
		if grep -qs no_scm .dvc/config.local; then \
			echo "there is a Git repository now: DVC goes with it"; \
			sed -i.before '/no_scm/d' .dvc/config.local && rm .dvc/config.local.before; \
		fi; \
	elif ! grep -qs no_scm .dvc/config.local; then \
		echo "no Git repository here: DVC goes without (git init brings dvc exp and comparing commits back)"; \
		printf '[core]\n    no_scm = true\n' >> .dvc/config.local; \
	fi

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	mypy
	lint-imports

check: lint
	python -m pytest $(SIDE_BY_SIDE)

test: lint
	python -m pytest $(SIDE_BY_SIDE) -m "not campaign"

campaign: $(INSTALLED)
	python -m pytest $(SIDE_BY_SIDE) -m campaign tests/campaign

bench: $(INSTALLED)
	python benchmarks/digits.py
	python benchmarks/threads.py
	python benchmarks/samplers.py
	python benchmarks/lists.py
	python benchmarks/startup.py
	python benchmarks/feeding.py
	python benchmarks/worker_memory.py
	python benchmarks/training.py
	python benchmarks/classifiers.py --size small
	python benchmarks/tables.py

bench-gpu:
	PYTHONPATH=. $(PYTHON) benchmarks/training.py --device cuda
	PYTHONPATH=. $(PYTHON) benchmarks/classifiers.py --device cuda
	PYTHONPATH=. $(PYTHON) benchmarks/tables.py

lock:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet uv
	$(VENV)/bin/uv pip compile pyproject.toml --extra dev --extra fast --extra heic --universal --python-version 3.11 --upgrade \
		--no-emit-index-url --no-annotate --no-header --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dvc_plots
