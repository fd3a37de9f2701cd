"""COCO Camera Traps: JSON files of what camera traps saw, with the sequences and places that must not be torn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ltrec.data.sources.annotations import annotation_file
from ltrec.data.sources.inaturalist import collect, read
from ltrec.settings import Settings, Text

if TYPE_CHECKING:
    from ltrec.artifacts import Split
    from ltrec.data.sources.collection import Collection


class CameraTrapsSource(Settings):
    """Files as iNaturalist's, with images that may show several categories: these are skipped. `empty` is a class.

    Their images have a `seq_id` and a `location`: `prepare.split.group: {by: column, column: location}`.
    """

    kind: Literal["coco_camera_traps"]
    root: Text = "data"
    """The folder that the files' `file_name`s are relative to; the files below are named relative to it as well."""
    train: Text
    """The file of the images, or of the training images."""
    val: Text | None = None
    """The file of the validation images; null: they are carved from train."""
    test: Text | None = None
    """The file of the test images; null: they are carved from train."""

    def scan(self, *, group: str | None = None) -> Collection:
        """Return what the files hold; `group` is the key of the images' groups."""
        files: dict[Split, str | None] = {"train": self.train, "val": self.val, "test": self.test}
        return collect(
            {
                split: read(annotation_file(Path(self.root), name), None, group=group, skip_several=True)
                for split, name in files.items()
                if name is not None
            }
        )
