"""The `prepare` section of `params.yaml`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self, get_args

from pydantic import model_validator

from ltrec.data.grouping import ColumnGroups
from ltrec.data.images.cache import CacheSettings
from ltrec.data.long_tail import LongTailSettings
from ltrec.data.open_set import OpenSetSettings
from ltrec.data.sources import SourceSettings
from ltrec.data.sources.camera_traps import CameraTrapsSource
from ltrec.data.sources.folder import FolderSource
from ltrec.data.sources.inaturalist import INaturalistSource
from ltrec.data.sources.table import CsvSource
from ltrec.data.splits import SplitSettings
from ltrec.settings import PositiveInt, Settings, conflict

if TYPE_CHECKING:
    from ltrec.data.sources.collection import Collection


_WITH_COLUMNS = (CsvSource, INaturalistSource, CameraTrapsSource)


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

    def scan(self) -> Collection:
        """Return what the source finds, with the groups that it is asked for."""
        if isinstance(self.split.group, ColumnGroups) and isinstance(self.source, _WITH_COLUMNS):
            return self.source.scan(group=self.split.group.column)
        return self.source.scan()

    @model_validator(mode="after")
    def _source_has_columns(self) -> Self:
        if isinstance(self.split.group, ColumnGroups) and not isinstance(self.source, _WITH_COLUMNS):
            kinds = ", ".join(get_args(source.model_fields["kind"].annotation)[0] for source in _WITH_COLUMNS)
            raise conflict(
                ("split", "group", "column"),
                f"a source of kind {self.source.kind} has no columns; those that have: {kinds}",
            )
        return self

    @model_validator(mode="after")
    def _contents_are_known(self) -> Self:
        if self.cache is not None and not self.decode:
            raise conflict(("cache",), "goes by what is in the images: decode must be true")
        if self.truncated == "keep" and not self.decode:
            raise conflict(("truncated",), "goes by what is in the images: decode must be true")
        return self
