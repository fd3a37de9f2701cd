"""What an exported file is made for: the class prior that it answers for, and when it gives no answer. C classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ltrec import artifacts
from ltrec.data.image_lists import read_classes
from ltrec.errors import UserError, some
from ltrec.models.heads import logits_in_blocks
from ltrec.serving.prior_files import prior_of, prior_of_word
from ltrec.serving.priors import counted_prior

if TYPE_CHECKING:
    from collections.abc import Collection

    from ltrec.artifacts import Layout
    from ltrec.config.export import ExportSettings
    from ltrec.data.image_lists import ImageList
    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank
    from ltrec.serving.abstaining import AbstainSettings, Abstention
    from ltrec.serving.priors import Prior


@dataclass(frozen=True)
class Deployment:
    """A head as it is exported.

    Attributes:
        head: The head, which answers for `prior` if there is one.
        class_counts: The number of training images of each class, (C,).
        head_prior: The class prior that the head answers for by itself, (C,); None: it expects none of some class.
        prior: The class prior in its place, (C,); None: its own stays.
        prior_name: What it was asked for by: `uniform`, `train`, `given`, or `own`.
        abstention: When no answer is given; None: there is always one.
    """

    head: Head
    class_counts: tuple[int, ...]
    head_prior: tuple[float, ...] | None
    prior: tuple[float, ...] | None
    prior_name: str
    abstention: Abstention | None

    @property
    def figures(self) -> dict[str, Any]:
        """Return what `check.json` says of it."""
        of_abstention = {} if self.abstention is None else asdict(self.abstention)
        return {"prior": self.prior_name} | {f"abstain_{name}": value for name, value in of_abstention.items()}

    @property
    def said(self) -> str:
        """Return what the stage says of it, behind all else."""
        prior = "" if self.prior is None else f"; for the class prior {self.prior_name}"
        if self.abstention is None:
            return prior
        return (
            f"{prior}; no answer below {self.abstention.below:.3g}, which on val leaves {self.abstention.coverage:.1%}"
            f" answered, {self.abstention.error:.1%} of them wrongly"
        )


def prepare(
    layout: Layout,
    variant: str,
    head: Head,
    train: ImageList,
    val: FeatureBank,
    settings: ExportSettings,
    asked: Collection[str],
) -> Deployment:
    """Return a variant's head made ready for where it will work.

    Args:
        layout: Where the variant's figures are.
        variant: The variant.
        head: Its head.
        train: The training list.
        val: The features of val's known images.
        settings: What is wanted.
        asked: Which of the settings the command line gave, for the messages.

    Raises:
        UserError: The prior cannot take the place of the head's own, or abstaining is not possible.
    """
    classes = read_classes(layout.classes)
    counts = train.counts(len(classes))
    own = counted_prior(counts, head.prior_power) if head.prior_power == 0 or counts.all() else None
    wanted, abstention = None, None
    if settings.prior is not None:
        where = _where("prior", asked)
        if own is None:
            absent = some([name for name, count in zip(classes, counts, strict=True) if not count])
            raise UserError(f"the head expects no image of {absent}, which train has none of", where=where)
        if isinstance(settings.prior, str):
            wanted = prior_of_word(settings.prior, counts.tolist(), classes, where=where)
        else:
            wanted = prior_of(settings.prior, classes, where=where)
        head = head.shifted(torch.from_numpy(np.log(wanted) - np.log(own)))
    if settings.abstain is not None:
        where = _where("abstain", asked)
        if settings.abstain.error is not None:
            where = where.replace("--abstain", "--max-error")
        _require_calibrated(layout, variant, where)
        try:
            abstention = _abstention(head, val, settings.abstain, wanted)
        except UserError as error:
            raise UserError(error.what, where=where) from None
    name = "own" if settings.prior is None else settings.prior if isinstance(settings.prior, str) else "given"
    return Deployment(head, tuple(counts.tolist()), _listed(own), _listed(wanted), name, abstention)


def _where(name: str, asked: Collection[str]) -> str:
    return f"--{name}" if name in asked else f"params.yaml: export.{name}"


def _listed(prior: Prior | None) -> tuple[float, ...] | None:
    return None if prior is None else tuple(prior.tolist())


def _require_calibrated(layout: Layout, variant: str, where: str) -> None:
    """Refuse a head without a temperature that was fitted on val: its confidence is no probability."""
    path = layout.head_metrics(variant)
    metrics = artifacts.read_json(path)
    if "temperature" not in metrics.get("chosen", {}):
        raise UserError(
            f"abstaining needs calibrated probabilities, and {path} has no temperature that was fitted on val"
            f" (chosen.temperature); `ltrec rebalance {variant}` may fit one, or take another variant",
            where=where,
        )


def _abstention(head: Head, val: FeatureBank, settings: AbstainSettings, prior: Prior | None) -> Abstention:
    """Return the threshold that `settings` ask for on val; with a prior (C,) each class of val counts by it."""
    labels = val.labels.numpy()
    confidences, right = np.empty(len(labels), np.float32), np.empty(len(labels), np.bool_)
    for rows, logits in logits_in_blocks(head, val.plain):
        largest, predicted = logits.softmax(dim=1).max(dim=1)
        confidences[rows], right[rows] = largest.numpy(), predicted.numpy() == labels[rows]
    weights = np.ones(len(labels))
    if prior is not None:
        weights = prior[labels] / np.bincount(labels, minlength=len(prior))[labels]
    return settings.choose(confidences, right, weights)
