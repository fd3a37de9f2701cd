"""What every training loss is: settings that build a module from the class counts. B images, C classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ltrec.errors import UserError
from ltrec.settings import Settings, conflict

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.training.losses.module import LossModule
    from ltrec.training.samplers import SamplerSettings

    Constants = dict[str, NDArray[np.float64]]


class Loss(Settings, ABC):
    """A loss's settings, and its formula in two hooks: `constants` and `per_image`."""

    name: str
    corrects_prior: ClassVar[bool] = False
    """Whether the loss itself makes up for uneven class counts, as balanced draws do."""

    @property
    def corrected_power(self) -> float:
        """Return the t for which it takes n_j^t out of the prior that a classifier learns: its τ, if it has one."""
        return float(getattr(self, "tau", 1.0)) if self.corrects_prior else 0.0

    def build(self, class_counts: NDArray[np.int64]) -> LossModule:
        """Return the module that computes this loss for training images counted by class, (C,).

        Raises:
            UserError: A class has no training image, and the formula needs one.
        """
        from ltrec.training.losses.module import LossModule

        return LossModule(self.per_image, self.constants(class_counts))

    def constants(self, class_counts: NDArray[np.int64]) -> Constants:  # noqa: ARG002 - for those that need it
        """Return what the formula takes from the class counts (C,), by the names of `per_image`'s arguments."""
        return {}

    @abstractmethod
    def per_image(self, logits: Tensor, labels: Tensor, **constants: Tensor) -> Tensor:
        """Return the loss of each image, (B,), for float32 logits (B, C) and labels (B,)."""


def log_prior(class_counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the log of the class prior, log(n_j / Σ n_i) for class counts n, (C,).

    Raises:
        UserError: A class has no image.
    """
    if not class_counts.all():
        raise UserError(f"class {int(np.argmin(class_counts))} has no training image, and the loss takes its logarithm")
    return np.asarray(np.log(class_counts / class_counts.sum()))


def prior_power(loss: Loss, sampler: SamplerSettings) -> float:
    """Return the power p of the class prior q_j ∝ n_j^p that a classifier answers for which is trained this way.

    1 is the training list's prior, 0 the uniform one. Draws with shares ∝ n_j^s teach that prior (Kang et al. 2020,
    equation 1), and z + τ·log π in the loss leaves n_j^(s − τ) to z (Menon et al. 2021, section 4).
    """
    return sampler.prior_power - loss.corrected_power


def refuse_double_correction(loss: Loss, sampler: SamplerSettings) -> None:
    """Refuse settings whose loss and draws both make up for uneven class counts, unless the loss says `twice: true`.

    The published code of Ren et al. 2020 made this mistake; its classifiers then prefer the rare classes.

    Raises:
        PydanticCustomError: Both do.
    """
    if loss.corrects_prior and not getattr(loss, "twice", False) and sampler.name != "instance_balanced":
        raise conflict(
            ("loss",),
            f"{loss.name} makes up for uneven classes, and so does the sampler {sampler.name}; allowed: sampler"
            " instance_balanced, another loss, or twice: true",
        )
