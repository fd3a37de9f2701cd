"""Write one variant as an ONNX file that is checked against PyTorch on real images, and register the champion."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltrec import artifacts, console
from ltrec.artifacts import Layout
from ltrec.config.export import CHAMPION
from ltrec.errors import UserError
from ltrec.stages import recording

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ltrec.artifacts import Split
    from ltrec.config.export import ExportSettings
    from ltrec.config.params import Params
    from ltrec.data.images.decoding import Geometry
    from ltrec.models.network import Network
    from ltrec.serving.model_card import ExportPrecision, ModelCard
    from ltrec.serving.onnx_export import Parity


def run(
    params: Params,
    *,
    variant: str | None = None,
    precision: ExportPrecision | None = None,
    output: Path | None = None,
) -> None:
    """Export as `params.yaml` says to `artifacts/export/`, or on request something else to somewhere else.

    Args:
        params: The parameters.
        variant: In place of `export.variant`.
        precision: In place of `export.precision`.
        output: Where to; None: the stage's own file, or with `variant` or `precision` a file named after them
            in the current folder, so that the stage's outputs stay as DVC knows them.
    """
    layout, settings = Layout(), params.export
    if variant is None and precision is None and output is None:
        _run_stage(params, layout)
        return
    changes = {"variant": variant, "precision": precision}
    settings = settings.model_copy(update={name: value for name, value in changes.items() if value is not None})
    name = _variant(params, layout, settings.variant, where="--variant" if variant else "params.yaml: export.variant")
    _write(params, layout, settings, name, _target(layout, output, name, settings.precision))


def _run_stage(params: Params, layout: Layout) -> None:
    settings = params.export
    name = _variant(params, layout, settings.variant, where="params.yaml: export.variant")
    with recording.stage_run(params, "export") as record:
        record.params({"export": settings.model_dump(mode="json")})
        figures = _write(params, layout, settings, name, layout.onnx)
        artifacts.write_json(layout.onnx_check, figures)
        record.metrics({f"export/{key}": value for key, value in _numbers(figures).items()})
        record.file(layout.onnx_check)
        if settings.variant == CHAMPION:
            record.model(layout.onnx)


def _variant(params: Params, layout: Layout, wanted: str, *, where: str) -> str:
    """The variant's name, the champion's if that is wanted."""
    variants = ", ".join(params.rebalance)
    if wanted == CHAMPION:
        evaluation, where = artifacts.read_json(layout.evaluation_metrics), str(layout.evaluation_metrics)
        if not isinstance(evaluation, dict) or "champion" not in evaluation:
            raise UserError("names no champion; `ltrec evaluate` or `dvc repro` writes it anew", where=where)
        wanted = str(evaluation["champion"])
        if wanted not in params.rebalance:
            raise UserError(
                f"its champion is {wanted!r}, but params.yaml: rebalance has {variants}; `ltrec evaluate` or"
                " `dvc repro` compares them anew",
                where=where,
            )
    elif wanted not in params.rebalance:
        raise UserError(f"no such variant: {wanted}; allowed: {CHAMPION}, {variants}", where=where)
    return wanted


def _target(layout: Layout, output: Path | None, variant: str, precision: ExportPrecision) -> Path:
    target = output or Path(f"{variant}.onnx" if precision == "fp32" else f"{variant}-{precision}.onnx")
    if target.is_dir():
        raise UserError("is a folder; a file is wanted", where=str(target))
    if target.resolve() == layout.onnx.resolve():
        raise UserError(
            "belongs to the pipeline, which would no longer know it; set params.yaml: export and run `dvc repro`,"
            " or name another file",
            where=str(target),
        )
    return target


def _write(params: Params, layout: Layout, settings: ExportSettings, variant: str, path: Path) -> dict[str, Any]:
    """Export, check, and only then put the file in its place; returns the check's figures."""
    from ltrec.serving import onnx_export
    from ltrec.serving.predictor import Predictor

    network, card = _assemble(params, layout, variant, settings.precision)
    images, labels = _images(params, layout, "val", settings.check_images, network.geometry, len(card.classes))
    calibration = None
    if settings.precision == "int8":
        count = settings.calibration_images
        calibration, _ = _images(params, layout, "train", count, network.geometry, len(card.classes))
    with artifacts.replacing(path) as temporary:
        with console.progress("export: images checked", len(images)) as advance:
            model = onnx_export.export(network, card, opset=settings.opset, calibration=calibration)
            temporary.write_bytes(model.SerializeToString(deterministic=True))
            try:
                parity = onnx_export.compare(Predictor(temporary).run, network, images, labels, advance)
            except onnx_export.OverflowedError as error:
                if settings.precision == "fp32":
                    raise
                raise UserError(
                    f"{error}: the backbone's numbers are too large or too small for {settings.precision}; export fp32",
                    where="params.yaml: export.precision",
                ) from None
        _judge(parity, settings)
        size = temporary.stat().st_size
    console.say(
        f"export: {variant}, {settings.precision}, {size / 1e6:.1f} MB; on {parity.images} val images agrees with"
        f" PyTorch in {parity.agreement:.1%}, largest logit difference {parity.logit_difference:.1e} → {path}"
    )
    return {
        "variant": variant,
        "method": card.method,
        "precision": settings.precision,
        "opset": settings.opset,
        "bytes": size,
        **asdict(parity),
    }


def _assemble(params: Params, layout: Layout, variant: str, precision: ExportPrecision) -> tuple[Network, ModelCard]:
    """The backbone with the variant's head, and what the file will say of them."""
    from ltrec.data.image_lists import read_classes
    from ltrec.models import network as networks
    from ltrec.project import git_state
    from ltrec.serving.model_card import ModelCard

    network = networks.load(layout.model, classes=layout.classes, head=layout.head(variant))
    card = ModelCard(
        classes=read_classes(layout.classes),
        geometry=network.geometry,
        mean=network.mean,
        std=network.std,
        method=params.rebalance[variant].method,
        variant=variant,
        precision=precision,
        commit=git_state().commit or "unknown",
        unknown_below=_threshold(layout, variant),
    )
    return network, card


def _threshold(layout: Layout, variant: str) -> float | None:
    """On the largest probability, as `evaluate` chose it on val; None without an open set or an evaluation."""
    if not layout.evaluation_metrics.is_file():
        return None
    of_variant = artifacts.read_json(layout.evaluation_metrics).get(variant, {})
    return of_variant["openset"]["msp"]["threshold"] if "openset" in of_variant else None


def _images(
    params: Params, layout: Layout, split: Split, count: int, geometry: Geometry, classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Known images spread evenly over a split, uint8 (N, H, W, 3), and their labels (N,); decoded as in serving."""
    from ltrec.data.image_lists import read_list
    from ltrec.data.images.decoding import UnreadableImageError, decode_rgb, square

    listed = read_list(layout.split_list(split), classes, unknown=split != "train").known()
    chosen = np.linspace(0, len(listed) - 1, min(count, len(listed))).round().astype(int)
    images = np.empty((len(chosen), geometry.size, geometry.size, 3), dtype=np.uint8)
    for row, index in enumerate(chosen):
        file = Path(params.prepare.source.root, listed.paths[index])
        try:
            images[row] = square(decode_rgb(file), geometry)
        except UnreadableImageError as error:
            raise UserError(
                f"{error}; has the data changed since `prepare`? run `dvc repro`", where=str(file)
            ) from None
    return images, listed.labels[chosen]


def _judge(parity: Parity, settings: ExportSettings) -> None:
    """Refuse a file that is not what was evaluated."""
    from ltrec.serving.onnx_export import ParityError

    figures = (
        f"the {settings.precision} file gives the class that PyTorch gives on {parity.agreement:.1%} of"
        f" {parity.images} val images, largest logit difference {parity.logit_difference:.2e}"
    )
    if settings.precision == "fp32":
        if parity.agreement < 1 or parity.logit_difference > settings.max_logit_difference:
            raise ParityError(
                f"{figures}; allowed: 100 % and at most {settings.max_logit_difference:g}"
                " (params.yaml: export.max_logit_difference)"
            )
    elif parity.agreement < settings.min_agreement:
        accuracy = f"accuracy {parity.accuracy['onnx']:.1%} in place of {parity.accuracy['pytorch']:.1%}"
        raise UserError(
            f"{figures}, {accuracy}; wanted: {settings.min_agreement:.1%}; nothing was written",
            where="params.yaml: export.min_agreement",
        )


def _numbers(figures: dict[str, Any]) -> dict[str, float]:
    """The figures that are numbers, nested ones by path."""
    flat: dict[str, float] = {}
    for key, value in figures.items():
        if isinstance(value, dict):
            flat |= {f"{key}/{inner}": number for inner, number in _numbers(value).items()}
        elif isinstance(value, int | float):
            flat[key] = value
    return flat
