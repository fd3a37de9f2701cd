"""The `prepare` section of `params.yaml`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from ltrec.data.images.cache import CacheSettings
from ltrec.data.long_tail import LongTailSettings
from ltrec.data.open_set import OpenSetSettings
from ltrec.data.sources import SourceSettings
from ltrec.data.sources.folder import FolderSource
from ltrec.data.splits import SplitSettings
from ltrec.settings import PositiveInt, Settings, conflict


class PrepareSettings(Settings):
    """Where the images come from, and how they are split."""

    source: SourceSettings = FolderSource()
    split: SplitSettings = SplitSettings()
    long_tail: LongTailSettings | None = None
    """Cuts train down to a long tail; null: train stays as it is."""
    openset: OpenSetSettings | None = None
    """Adds images of unknown classes to val and test; null: every image is of a class of the task."""
    decode: bool = True
    """Decode every file once, so that a damaged or missing one is found here; false: open no image file at all."""
    truncated: Literal["skip", "keep"] = "skip"
    """What to do about images whose end is missing: leave them out, or take what is there, with the rest grey."""
    cache: CacheSettings | None = None
    """Smaller copies of large originals, from which training crops are taken; null: from the originals."""
    workers: PositiveInt | None = None
    """Threads that decode; null: somewhat more than cores."""

    @model_validator(mode="after")
    def _contents_are_known(self) -> Self:
        if self.cache is not None and not self.decode:
            raise conflict(("cache",), "goes by what is in the images: decode must be true")
        if self.truncated == "keep" and not self.decode:
            raise conflict(("truncated",), "goes by what is in the images: decode must be true")
        return self
