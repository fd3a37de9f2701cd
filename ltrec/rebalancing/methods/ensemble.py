"""Several methods' heads as one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from ltrec.errors import UserError
from ltrec.rebalancing.adjusting import Adjustable, calibrated
from ltrec.rebalancing.complexity import Complexity
from ltrec.rebalancing.methods.base import FitResult, Rebalancer, Row
from ltrec.settings import conflict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from torch import Tensor

    from ltrec.models.heads import Head
    from ltrec.rebalancing.feature_bank import FeatureBank
    from ltrec.rebalancing.methods import MemberSettings  # noqa: TC004 - it is given when the model is rebuilt
    from ltrec.rebalancing.selection import LogitBlocks

# A part of a parameter of `dvc exp run -S`.
_MEMBER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,49}")
_EXAMPLE = {"ncm": {"method": "ncm"}, "tau_norm": {"method": "tau_norm"}}


def _member_name(name: str) -> str:
    if not _MEMBER_NAME.fullmatch(name):
        raise ValueError(
            "not a name for a member; allowed: lower-case letters, digits, _ and -, a letter first, at most 50"
        )
    return name


class EnsembleSettings(Adjustable):
    """The mean of several heads' log-probabilities: one head, and one ONNX file."""

    complexity: ClassVar = Complexity.COMBINED

    method: Literal["ensemble"]
    members: Annotated[
        dict[Annotated[str, AfterValidator(_member_name)], MemberSettings],
        Field(
            min_length=2,
            examples=[_EXAMPLE],
            json_schema_extra={"propertyNames": {"pattern": f"^{_MEMBER_NAME.pattern}$"}},
        ),
    ]
    """The heads that are pooled, each `name: {method: …}`, with the settings of a variant. They are fitted anew within
    this variant, whose result so depends on nothing but itself; an anchor spares writing a variant twice:
    `ridge: &ridge {method: ridge}`, and under members `ridge: *ridge`."""
    weights: Literal["fitted", "equal"] = "fitted"
    """How much each head counts: fitted to val by likelihood, or all the same."""

    @field_validator("members", mode="before")
    @classmethod
    def _settings_and_no_names(cls, members: Any) -> Any:
        values = members.values() if isinstance(members, dict) else [members]
        if any(isinstance(value, list | str) for value in values):
            raise ValueError(
                "should be a mapping from names to settings, such as {ridge: {method: ridge}, …}, or to the alias of a"
                " variant with an anchor, such as {ridge: *ridge, …} for `ridge: &ridge {method: ridge}`"
            )
        return members

    @model_validator(mode="after")
    def _members_take_the_bank(self) -> Self:
        for name, settings in self.members.items():
            if getattr(settings, "images", False):
                raise conflict(
                    ("members", name, "images"),
                    "an ensemble fits its members on the feature bank, got true; allowed: false",
                )
        return self

    def build(self, seed: int) -> Ensemble:
        members = {
            name: Member(settings.build(seed), isinstance(settings, Adjustable) and settings.adjust)
            for name, settings in self.members.items()
        }
        return Ensemble(members, fits_weights=self.weights == "fitted")


class Member(NamedTuple):
    """A method that makes one of the heads."""

    rebalancer: Rebalancer
    adjust: bool
    """Whether the head is `adjusted`."""


@dataclass(frozen=True)
class Ensemble(Rebalancer):
    """Gives Σ_m w_m·log softmax(z_m) of calibrated heads: the logarithmic opinion pool (Genest & Zidek 1986).

    Heads that the weights leave out are not in it.

    Attributes:
        members: The methods, by the names under which their choices are reported.
        fits_weights: Whether w is fitted on val; else each head counts the same.
    """

    members: Mapping[str, Member]
    fits_weights: bool

    def fit(self, train: FeatureBank, val: FeatureBank, joint: Head) -> FitResult:
        import torch

        from ltrec.models.heads import EnsembleHead
        from ltrec.rebalancing.selection import ScoredLogits, head_logits

        heads: list[Head] = []
        chosen: Row = {}
        for name, member in self.members.items():
            try:
                fitted = member.rebalancer.fit(train, val, joint)
                head, calibration = calibrated(fitted.head.eval(), train.labels, val, adjust=member.adjust)
            except UserError as error:
                raise UserError(f"member {name}: {error.what}", where=error.where) from None
            heads.append(head)
            chosen |= {f"{name}.{key}": value for key, value in (fitted.chosen | calibration).items()}
        weights = fit_weights(heads, val) if self.fits_weights else [1 / len(heads)] * len(heads)
        chosen |= {f"{name}.weight": weight for name, weight in zip(self.members, weights, strict=True)}
        kept = [(head, weight) for head, weight in zip(heads, weights, strict=True) if weight > 0]
        pool = EnsembleHead([head for head, _ in kept], torch.tensor([weight for _, weight in kept]))
        pool = pool.to(val.labels.device)
        curve: list[Row] = [{"val": ScoredLogits(head_logits(pool, val.plain), val.labels).balanced}]
        return FitResult(pool, chosen, curve)


def fit_weights(heads: Sequence[Head], val: FeatureBank) -> list[float]:
    """Return the weights (M,) under which the pool of heads fits val best, none negative and with a sum of 1.

    They are v / Σ v for the v ≥ 0 at which softmax(Σ v_m·log softmax(z_m)) fits best: its sharpness Σ v is left to
    the temperature. Each class of val counts the same and, beside its images, a few of any class, as for `adjusted`.
    Each v_m has a normal prior of variance 1 about 1/M, which weighs as much as one image: where heads are alike, or
    images few, each counts about the same, and there is one best v.
    """
    import torch
    from scipy.optimize import minimize

    from ltrec.models.heads import logits_in_blocks
    from ltrec.rebalancing.head_figures import ANY_CLASS
    from ltrec.rebalancing.selection import LogitBlocks

    def log_probabilities() -> Iterator[Tensor]:
        """Yield log softmax(z_m) of some images at a time, (n, M, C)."""
        for blocks in zip(*(logits_in_blocks(head, val.plain) for head in heads), strict=True):
            yield torch.stack([logits.log_softmax(dim=1) for _, logits in blocks], dim=1)

    labels = val.labels
    smoothing = ANY_CLASS / (len(labels) + ANY_CLASS)
    blocks = LogitBlocks(log_probabilities)

    def objective(v: np.ndarray) -> tuple[float, np.ndarray]:
        nll, slopes = pool_likelihood(blocks, labels, torch.from_numpy(v), smoothing)
        from_equal = v - 1 / count
        pull = float(from_equal @ from_equal) / (2 * len(labels))
        return nll + pull, slopes.numpy() + from_equal / len(labels)

    count = len(heads)
    v = minimize(objective, [1 / count] * count, jac=True, method="L-BFGS-B", bounds=[(0, None)] * count).x
    # Where all heads mislead, all v are 0.
    return [float(weight) for weight in (v / v.sum() if v.sum() > 0 else v + 1 / count)]


def pool_likelihood(blocks: LogitBlocks, labels: Tensor, v: Tensor, smoothing: float) -> tuple[float, Tensor]:
    """Return the mean negative log-likelihood under softmax(Σ v_m·ℓ_m), and its slopes by v; classes count the same.

    With expectations under the softmax, the slope by v_m is the mean of E[ℓ_m] − ℓ_m,y over the images.

    Args:
        blocks: ℓ_m = log softmax(z_m), some images at a time, (n, M, C).
        labels: (N,), on the device of ℓ.
        v: float64 (M,).
        smoothing: ε; each label counts as 1 − ε of itself and ε / C of every class.

    Returns:
        The likelihood; float64 (M,) on the CPU.
    """
    import torch

    counts = labels.bincount().double()
    image_weights = (1 / counts)[labels] / (counts > 0).sum()
    nll, slopes, start = 0.0, torch.zeros_like(v), 0
    for block in blocks:
        rows = slice(start, start := start + len(block))
        pool = torch.einsum("nmc,m->nc", block, v.to(block))
        own = block.gather(2, labels[rows, None, None].expand(-1, len(v), 1))[:, :, 0]
        target = torch.lerp(own, block.mean(dim=2), smoothing)  # (n, M)
        expected = torch.einsum("nmc,nc->nm", block, pool.softmax(dim=1))
        terms = pool.logsumexp(dim=1) - target @ v.to(block)
        nll += float(image_weights[rows] @ terms.double())
        slopes += (image_weights[rows] @ (expected - target).double()).cpu()
    return nll, slopes
