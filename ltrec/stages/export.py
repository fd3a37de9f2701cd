"""Write one variant as an ONNX file that is checked against PyTorch on real images, and register the champion."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ltrec import artifacts, console, tracking
from ltrec.artifacts import Layout
from ltrec.config.export import CHAMPION
from ltrec.data.image_lists import read_classes, read_list
from ltrec.errors import UserError
from ltrec.models import network as networks
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.serving import onnx_export, parity, predictor, seal
from ltrec.serving.model_card import ModelCard
from ltrec.serving.sample import sample
from ltrec.stages import deployment, recording

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    from numpy.typing import NDArray

    from ltrec.config.export import ExportSettings
    from ltrec.config.params import Params
    from ltrec.data.image_lists import ImageList
    from ltrec.models.heads import Head
    from ltrec.models.network import Network
    from ltrec.serving.abstaining import AbstainSettings
    from ltrec.serving.model_card import ExportPrecision
    from ltrec.serving.parity import Parity
    from ltrec.serving.sample import Sample
    from ltrec.stages.deployment import Deployment


def run(
    params: Params,
    *,
    variant: str | None = None,
    precision: ExportPrecision | None = None,
    output: Path | None = None,
    prior: str | dict[str, float] | None = None,
    abstain: AbstainSettings | None = None,
) -> None:
    """Export as `params.yaml` says to `artifacts/export/`, or on request something else to somewhere else.

    Args:
        params: The parameters.
        variant: What to export in place of `export.variant`.
        precision: The precision in place of `export.precision`.
        output: Where to write; None: the stage's own file, or with any of the others a file named after variant and
            precision in the current folder, so that the stage's outputs stay as DVC knows them.
        prior: The class prior in place of `export.prior`.
        abstain: When to give no answer, in place of `export.abstain`.
    """
    layout, root = Layout(), Path(params.prepare.source.root)
    asked = {"variant": variant, "precision": precision, "prior": prior, "abstain": abstain}
    asked = {name: value for name, value in asked.items() if value is not None}
    is_stage = output is None and not asked
    settings = params.export.model_copy(update=asked)
    where = "--variant" if variant else "params.yaml: export.variant"
    name = _variant(layout, settings.variant, params.rebalance, where=where)
    path = layout.onnx if is_stage else _target(layout, output, name, settings.precision)
    with recording.stage_run(params, "export") if is_stage else contextlib.nullcontext(tracking.Run()) as record:
        record.params({"export": settings.model_dump(mode="json") | {"prior": json.dumps(settings.prior)}})
        network = networks.load(
            layout.model, classes=layout.classes, images=layout.split_digest("train"), head=layout.head(name)
        )
        classes = network.head.classes
        train = read_list(layout.split_list("train"), classes)
        val = read_list(layout.split_list("val"), classes, unknown=True).known()
        bank = _val_bank(layout, val)
        deployed = deployment.prepare(layout, name, network.head, train, bank, settings, asked)
        network.head = deployed.head
        card = _card(layout, network, name, params.rebalance[name].method, settings.precision, deployed)
        checked = sample(val, settings.check_images, root, network.geometry)
        evaluated = _logits(network.head, bank, checked.rows)
        calibration = None
        if settings.precision == "int8":
            calibration = sample(train, settings.calibration_images, root, network.geometry).images
        with artifacts.replacing(path) as temporary:
            with console.progress("export: images checked", len(checked.images)) as advance:
                model = onnx_export.export(network, card, opset=settings.opset, calibration=calibration)
                temporary.write_bytes(seal.sealed(model.SerializeToString(deterministic=True)))
                reached = _compared(temporary, network, checked, evaluated, settings.precision, advance)
            parity.require_parity(
                reached, settings.precision,
                max_logit_difference=settings.max_logit_difference, min_agreement=settings.min_agreement,
            )  # fmt: skip
            size = temporary.stat().st_size
        _warn_of_other_features(reached, settings)
        console.say(
            f"export: {name}, {settings.precision}, {size / 1e6:.1f} MB; on {reached.images} val images agrees with"
            f" PyTorch in {reached.agreement:.1%}, largest logit difference {reached.logit_difference:.1e}"
            f"{deployed.said} → {path}"
        )
        if is_stage:
            figures = {
                "variant": name, "method": card.method, "precision": settings.precision, "opset": settings.opset,
                "bytes": size, **asdict(reached), **deployed.figures,
            }  # fmt: skip
            artifacts.write_json(layout.onnx_check, figures)
            numbers = figures | {f"accuracy/{name}": value for name, value in reached.accuracy.items()}
            record.metrics({f"export/{key}": value for key, value in numbers.items() if isinstance(value, int | float)})
            record.file(layout.onnx_check)
            if settings.variant == CHAMPION:
                record.model(layout.onnx)


def _variant(layout: Layout, wanted: str, variants: Collection[str], *, where: str) -> str:
    """Return the variant's name, the champion's if that is wanted."""
    if wanted == CHAMPION:
        evaluation, where = artifacts.read_json(layout.evaluation_metrics), str(layout.evaluation_metrics)
        if not isinstance(evaluation, dict) or "champion" not in evaluation:
            raise UserError("names no champion; `ltrec evaluate` or `dvc repro` writes it anew", where=where)
        wanted = str(evaluation["champion"])
        if wanted not in variants:
            raise UserError(
                f"its champion is {wanted!r}, but params.yaml: rebalance has {', '.join(variants)}; `ltrec evaluate` or"
                " `dvc repro` compares them anew",
                where=where,
            )
    elif wanted not in variants:
        raise UserError(f"no such variant: {wanted}; allowed: {CHAMPION}, {', '.join(variants)}", where=where)
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


def _card(
    layout: Layout, network: Network, variant: str, method: str, precision: ExportPrecision, deployed: Deployment
) -> ModelCard:
    """Return what the file will say of a network with a variant's head."""
    return ModelCard(
        classes=read_classes(layout.classes), geometry=network.geometry, mean=network.mean, std=network.std,
        method=method, variant=variant, precision=precision,
        unknown_below=_threshold(layout, variant), weights_license=network.weights_license,
        class_counts=deployed.class_counts, head_prior=deployed.head_prior, prior=deployed.prior,
        abstain_below=None if deployed.abstention is None else deployed.abstention.below,
    )  # fmt: skip


def _threshold(layout: Layout, variant: str) -> float | None:
    """Return the smallest probability of a known image, as `evaluate` chose it; None without open set or evaluation."""
    if not layout.evaluation_metrics.is_file():
        return None
    figures = artifacts.read_json(layout.evaluation_metrics).get(variant, {})
    return figures["openset"]["msp"]["threshold"] if "openset" in figures else None


def _val_bank(layout: Layout, val: ImageList) -> FeatureBank:
    """Return the features of val's known images."""
    path = layout.features("val")
    bank = FeatureBank.open(
        path, representation=artifacts.digest(layout.model), images=layout.split_digest("val")
    ).known()
    bank.require_images_of(val, layout.split_list("val"), where=str(path))
    return bank


def _logits(head: Head, bank: FeatureBank, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the logits (n, C) of rows of the feature bank, as they are evaluated."""
    with torch.inference_mode():
        logits: NDArray[np.float32] = head(bank.plain[torch.from_numpy(rows)]).numpy()
    return logits


def _warn_of_other_features(reached: Parity, settings: ExportSettings) -> None:
    """Say where the file is right, and yet not what was evaluated."""
    allowed = parity.allowed_difference(reached, settings.max_logit_difference)
    if settings.precision == "fp32" and (reached.evaluated_difference or 0.0) > allowed:
        console.warn(
            f"export: the file's logits are up to {reached.evaluated_difference:.2g} from those that were evaluated,"
            f" which is more than rounding ({allowed:.2g}): the features were computed in another precision or on"
            " another device (params.yaml: featurize.precision)"
        )


def _compared(
    file: Path,
    network: Network,
    checked: Sample,
    evaluated: NDArray[np.float32],
    precision: ExportPrecision,
    advance: console.Advance,
) -> Parity:
    try:
        run = predictor.Predictor(file).run
        return parity.compare(run, network, checked.images, checked.labels, advance, evaluated=evaluated)
    except parity.OverflowedError as error:
        if precision == "fp32":
            raise
        raise UserError(
            f"{error}: the backbone's numbers are too large or too small for {precision}; export fp32",
            where="params.yaml: export.precision",
        ) from None
