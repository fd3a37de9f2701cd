"""What every training loss is: settings that build a module from the class counts. B images, C classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ltrec.errors import UserError
from ltrec.settings import Settings, conflict
from ltrec.training.losses.class_weights import ClassWeights

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ltrec.training.losses.module import LossModule
    from ltrec.training.samplers import SamplerSettings

    Constants = dict[str, NDArray[np.float64]]

_OF_COSINES = "takes its margins from cosines, and the head that it trains has none; allowed"


class Loss(Settings, ABC):
    """A loss's settings, and its formula in two hooks: `constants` and `per_image`."""

    name: str
    class_weights: ClassWeights | None = None
    """Weights of the classes by their effective number of images; null: each image counts the same."""
    corrects_prior: ClassVar[bool] = False
    """Whether the loss itself makes up for uneven class counts, as balanced draws do."""
    of_cosines: ClassVar[bool] = False
    """Whether the logits must be cosines times a scale, which `per_image` then takes as `scale`."""

    def corrected_power(self, class_counts: NDArray[np.int64]) -> float:
        """Return the t for which it takes about n_j^t out of the prior that a classifier learns.

        A prior-adjusting loss takes its τ; LDAM's margins are no power of the counts, and count as all of it. Class
        weights w take the slope of −log w_j over log n_j.

        Args:
            class_counts: The training images of each class, (C,), none of which is 0 where there are class weights.
        """
        own = float(getattr(self, "tau", 1.0)) if self.corrects_prior else 0.0
        if self.class_weights is None or self.of_cosines:
            return own
        return own + self.class_weights.power(class_counts)

    def build(self, class_counts: NDArray[np.int64], cosine_scale: float | None = None) -> LossModule:
        """Return the module that computes this loss.

        Args:
            class_counts: The training images of each class, (C,).
            cosine_scale: s of a head whose logits are s·cos θ_j; None: they are no cosines.

        Raises:
            UserError: A class has no training image, and the loss needs one; or the logits must be cosines.
        """
        from ltrec.training.losses.module import LossModule

        constants = self.constants(class_counts)
        if self.of_cosines:
            if cosine_scale is None:
                raise UserError(f"{self.name} {_OF_COSINES}: a cosine head, or another loss")
            constants |= {"scale": np.asarray(cosine_scale)}
        if self.class_weights is None:
            return LossModule(self.per_image, constants)
        require_images(class_counts, "class_weights divide by how many there are")
        return LossModule(self.per_image, constants, self.class_weights.weights(class_counts), self.class_weights.start)

    def constants(self, class_counts: NDArray[np.int64]) -> Constants:  # noqa: ARG002 - for those that need it
        """Return what the formula takes from the class counts (C,), by the names of `per_image`'s arguments."""
        return {}

    @abstractmethod
    def per_image(self, logits: Tensor, labels: Tensor, **constants: Tensor) -> Tensor:
        """Return the loss of each image, (B,), for float32 logits (B, C) and labels (B,)."""


def require_images(class_counts: NDArray[np.int64], why: str) -> None:
    """Refuse class counts (C,) of which one is 0.

    Raises:
        UserError: A class has no image.
    """
    if not class_counts.all():
        raise UserError(f"class {int(np.argmin(class_counts))} has no training image, and {why}")


def log_prior(class_counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the log of the class prior, log(n_j / Σ n_i) for class counts n, (C,).

    Raises:
        UserError: A class has no image.
    """
    require_images(class_counts, "the loss takes its logarithm")
    return np.asarray(np.log(class_counts / class_counts.sum()))


def prior_power(loss: Loss, sampler: SamplerSettings, class_counts: NDArray[np.int64]) -> float:
    """Return the power p of the class prior q_j ∝ n_j^p that a classifier answers for which is trained this way.

    1 is the training list's prior, 0 the uniform one. Draws with shares ∝ n_j^s teach that prior (Kang et al. 2020,
    equation 1), and z + τ·log π in the loss leaves n_j^(s − τ) to z (Menon et al. 2021, section 4).
    """
    return sampler.prior_power - loss.corrected_power(class_counts)


def refuse_double_correction(loss: Loss, sampler: SamplerSettings) -> None:
    """Refuse settings that make up for uneven class counts twice, unless they say `twice: true`.

    Loss, class weights and draws can each do so; LDAM with class weights is the published LDAM-DRW.

    The published code of Ren et al. 2020 made this mistake; its classifiers then prefer the rare classes.

    Raises:
        PydanticCustomError: Both do.
    """
    weights = loss.class_weights
    if weights is not None and loss.corrects_prior and not (loss.of_cosines or weights.twice):
        raise conflict(
            ("loss", "class_weights"),
            f"they make up for uneven classes, and so does the loss {loss.name}; allowed: null, another loss, or twice:"
            " true in them",
        )
    if sampler.name == "instance_balanced":
        return
    if loss.corrects_prior and not getattr(loss, "twice", False):
        raise conflict(
            ("loss",),
            f"{loss.name} makes up for uneven classes, and so does the sampler {sampler.name}; allowed: sampler"
            " instance_balanced, another loss, or twice: true",
        )
    if weights is not None and not weights.twice:
        raise conflict(
            ("loss", "class_weights"),
            f"they make up for uneven classes, and so does the sampler {sampler.name}; allowed: sampler"
            " instance_balanced, null, or twice: true in them",
        )


def refuse_without_cosines(loss: Loss, head: str) -> None:
    """Refuse a loss of cosines where the head's logits are none.

    Args:
        loss: The loss.
        head: The name of the head that it trains.

    Raises:
        PydanticCustomError: They are none.
    """
    if loss.of_cosines and head != "cosine":
        raise conflict(("loss",), f"{loss.name} {_OF_COSINES}: head: {{name: cosine}}, or another loss")
