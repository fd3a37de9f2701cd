"""The `featurize` section of `params.yaml`."""

from __future__ import annotations

from ltrec.compute.precision import PrecisionSetting
from ltrec.rebalancing.probe import ProbeSettings
from ltrec.settings import Count, PositiveInt, Settings


class FeaturizeSettings(Settings):
    """What the feature bank holds, and how a network that was not trained gets its joint classifier."""

    views: Count = 4
    """Augmented views of each training image beside the plain one; with them a classifier learns from features as it
    would from images."""
    batch_size: PositiveInt = 256
    precision: PrecisionSetting = "fp32"
    """Of the network's arithmetic; fp32: what is evaluated is what `export` writes; auto, on a GPU that has it: bf16,
    which is faster and moves logits by some hundredths to tenths."""
    workers: Count | None = None
    """Processes that decode; null: none where little is decoded, else one a core."""
    probe: ProbeSettings = ProbeSettings()
    """The fit of the joint classifier on the features, where `represent.epochs` is 0."""
