"""How training images are mixed with others: mixup, CutMix and CMO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ltrec.settings import Count, Settings, conflict
from ltrec.training.samplers import ClassBalanced, SamplerSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ltrec.training.mixing import Mix
    from ltrec.training.samplers import Sampler

Alpha = Annotated[float, Field(ge=0.01, le=100)]
Probability = Annotated[float, Field(gt=0, le=1)]

# Added to the seed of the images that others are cut from: with the same one both would be the same images.
_FOREGROUND = 1 << 40


class _Mix(Settings):
    def draws(
        self,
        sampler: Sampler,
        labels: NDArray[np.int64],  # noqa: ARG002 - one signature for all
        *,
        batch_size: int,  # noqa: ARG002
        seed: int,  # noqa: ARG002
        epochs: int,  # noqa: ARG002
    ) -> Sampler:
        """Return what draws an epoch's images, given what draws them without a mix and the labels of the images, (N,).

        Args:
            sampler: Draws the images to be mixed.
            labels: The label of each training image, (N,).
            batch_size: Images an update.
            seed: The seed of what is drawn beside.
            epochs: The epochs of the training.
        """
        return sampler

    def check(self, epochs: int) -> None:
        """Refuse what leaves a training of so many epochs without a mix.

        Raises:
            PydanticCustomError: It does.
        """


class Mixup(_Mix):
    """Each image blended with its opposite in the batch, and their targets alike (Zhang et al., ICLR 2018)."""

    name: Literal["mixup"] = "mixup"
    alpha: Alpha = 1.0
    """α of the Beta(α, α) that says how much of an image stays."""

    def build(self, epochs: int) -> Mix:  # noqa: ARG002 - one signature for all
        from ltrec.training.mixing import Blended

        return Blended(self.alpha)


class CutMix(_Mix):
    """A rectangle of its opposite in the batch pasted into an image, targets by area (Yun et al., ICCV 2019)."""

    name: Literal["cutmix"] = "cutmix"
    alpha: Alpha = 1.0
    """α of the Beta(α, α) that says how much of an image stays."""
    probability: Probability = 0.5
    """Share of the images that are pasted into; the paper's is 0.5 for CIFAR and 1 for ImageNet."""

    def build(self, epochs: int) -> Mix:  # noqa: ARG002
        from ltrec.training.mixing import Pasted

        return Pasted(self.alpha, self.probability)


class Cmo(_Mix):
    """As CutMix, the rectangle cut from an image of a class-balanced draw: rare things before common backgrounds.

    Context-rich minority oversampling (Park et al., CVPR 2022). Each update needs a second batch of images.
    """

    name: Literal["cmo"] = "cmo"
    alpha: Alpha = 1.0
    """α of the Beta(α, α) that says how much of an image stays."""
    probability: Probability = 0.5
    """Share of the images that are pasted into."""
    foreground: SamplerSettings = ClassBalanced(per_visit=1)
    """Draws the images that rectangles are cut from."""
    plain_epochs: Count = 3
    """Epochs at the beginning, and again at the end, in which images stay as they are, as in the published code."""

    def build(self, epochs: int) -> Mix:
        from ltrec.training.mixing import PastedFromOthers

        return PastedFromOthers(self.alpha, self.probability, range(self.plain_epochs, epochs - self.plain_epochs))

    def draws(self, sampler: Sampler, labels: NDArray[np.int64], *, batch_size: int, seed: int, epochs: int) -> Sampler:
        from ltrec.training.samplers import PairedSampler

        foreground = self.foreground.build(labels, seed=seed + _FOREGROUND, epochs=epochs)
        return PairedSampler(sampler, foreground, batch_size)

    def check(self, epochs: int) -> None:
        if 2 * self.plain_epochs >= epochs:
            raise conflict(
                ("mix", "plain_epochs"),
                f"{self.plain_epochs} epochs at the beginning and at the end leave none of {epochs} to mix in;"
                f" allowed here: 0 … {(epochs - 1) // 2}",
            )


MixSettings = Annotated[Mixup | CutMix | Cmo, Field(discriminator="name")]
