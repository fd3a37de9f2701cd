"""The `represent` section of `params.yaml`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from ltrec.compute.precision import Compilation, PrecisionSetting
from ltrec.data.images.augmentation import AugmentSettings
from ltrec.data.images.erasing import Cutout
from ltrec.models.backbones import BackboneSettings
from ltrec.models.freezing import FreezeSettings
from ltrec.models.joint_heads import JointHeadSettings, LinearJointHead
from ltrec.models.preprocessing import ImageSettings, Preprocessing
from ltrec.settings import Count, PositiveInt, Settings, conflict
from ltrec.training.losses import LossSettings
from ltrec.training.losses.base import prior_power, refuse_double_correction, refuse_without_cosines
from ltrec.training.losses.cross_entropy import CrossEntropy
from ltrec.training.mix_settings import MixSettings
from ltrec.training.optim import CosineSchedule, OptimizerSettings, ScheduleSettings, Sgd
from ltrec.training.samplers import ClassBalanced, InstanceBalanced, SamplerSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class EmaSettings(Settings):
    """An exponential moving average of the weights, validated and kept in place of the last ones."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Share of the average that an update leaves, less in the first ones: it rises as (1 + n)/(10 + n) after n updates.
    The average looks back over about 1 / (1 − decay) updates."""


class BatchNormSettings(Settings):
    """Draws that batch norm's running means and variances are taken from anew, once the training is over."""

    sampler: SamplerSettings = ClassBalanced()
    epochs: PositiveInt = 1
    """Passes of as many draws as there are training images; the statistics are the mean over all of their batches."""


class RepresentSettings(Settings):
    """How the representation is learnt."""

    backbone: BackboneSettings
    image: ImageSettings = ImageSettings()
    augment: AugmentSettings = AugmentSettings()
    sampler: SamplerSettings = InstanceBalanced()
    loss: LossSettings = CrossEntropy()
    """What the representation is trained by."""
    head: JointHeadSettings = LinearJointHead()
    """The classifier that the backbone is trained with."""
    freeze: FreezeSettings | None = None
    """What of the backbone stays as it began, batch-norm statistics included; null: nothing."""
    optimizer: OptimizerSettings = Sgd()
    schedule: ScheduleSettings = CosineSchedule()
    epochs: Count = 90
    """Passes over the training images; 0: the backbone is kept as it is, pretrained or random, `featurize` fits the
    joint classifier on its features (`featurize.probe`), and what only a training reads is left unread."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Images an update, of all processes together; batch normalisation needs two in each."""
    sync_batch_norm: bool = False
    """Take batch norm's statistics over the GPUs of all processes; false: each over its own part of the batch."""
    clip_norm: Annotated[float, Field(gt=0, le=1e38)] | None = None
    """Largest norm of an update's gradient; null: not clipped."""
    mix: MixSettings | None = None
    """What training images and their targets are mixed with others by; null: nothing."""
    ema: EmaSettings | None = None
    """Average the weights over the updates and keep the average; null: keep the last weights."""
    batch_norm: BatchNormSettings | None = None
    """Take batch norm's statistics anew when the training is over, on draws of another balance: other features for all
    classifiers, joint included. null: keep those of the training."""
    workers: Count | None = None
    """Processes that decode; null: none where little is decoded, else one a core."""
    precision: PrecisionSetting = "auto"
    """Of the arithmetic; auto: bf16 on a GPU that has it, fp32 elsewhere. The weights are fp32 in each."""
    compile: Compilation = "off"
    """torch.compile's mode: slow to begin with, then faster; reduce-overhead records CUDA graphs."""
    accumulate: PositiveInt | Literal["auto"] = 1
    """Micro-batches that a batch goes through in, one after another, for one update; batch norm sees one at a time.

    auto: one, and more where the GPU's memory does not hold it; of several processes' GPUs each must hold its part."""

    def preprocessing(self) -> Preprocessing:
        """Return what the network sees of an image: what `image` leaves out is as for the pretrained weights.

        Raises:
            UserError: there are no such weights, or what is set does not fit the rest.
        """
        return self.image.completed(self.backbone.preprocessing())

    @property
    def micro_batches(self) -> int:
        """Return into how many parts a batch is divided to begin with."""
        return 1 if self.accumulate == "auto" else self.accumulate

    def prior_power(self, class_counts: NDArray[np.int64]) -> float:
        """Return the power of the class counts in the prior that a joint head trained so answers for."""
        return prior_power(self.loss, self.sampler, class_counts)

    @model_validator(mode="after")
    def _settings_fit_each_other(self) -> Self:
        if self.batch_size < 2 * self.micro_batches:
            raise conflict(
                ("accumulate",),
                f"batch_size ({self.batch_size}) leaves fewer than two images for each of so many micro-batches",
            )
        # A CUDA graph writes the next micro-batch's gradients over those that are to be added to.
        if self.compile == "reduce-overhead" and self.accumulate != 1:
            raise conflict(("compile",), "reduce-overhead needs accumulate: 1; allowed with it: off, default")
        refuse_double_correction(self.loss, self.sampler)
        refuse_without_cosines(self.loss, self.head.name)
        erase, size = self.augment.erase, self.image.size
        if isinstance(erase, Cutout) and size is not None and erase.size >= 2 * size:
            raise conflict(
                ("augment", "erase", "size"), f"a square of {erase.size} wipes out images of {size} px, wherever it is"
            )
        if self.epochs and self.mix is not None:
            self.mix.check(self.epochs)
        try:
            if self.epochs:
                self.schedule.check(self.epochs)
        except ValueError as error:
            raise conflict(("schedule",), str(error)) from None
        return self
