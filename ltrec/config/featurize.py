"""The `featurize` section of `params.yaml`."""

from __future__ import annotations

from ltrec.settings import Count, PositiveInt, Settings


class FeaturizeSettings(Settings):
    """What the feature bank holds."""

    views: Count = 4
    """Augmented views of each training image beside the plain one; with them a classifier learns from features as it
    would from images."""
    batch_size: PositiveInt = 256
    workers: Count | None = None
    """Processes that decode; null: none where little is decoded, else one a core."""
