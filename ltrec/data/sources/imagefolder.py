"""Images in folders, with the labels that torchvision's `ImageFolder` gives them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ltrec.data.sources.folder import scan_folder
from ltrec.settings import Settings, Text

if TYPE_CHECKING:
    from ltrec.data.sources.collection import Collection


class ImageFolderSource(Settings):
    """As `folder`, but classes are numbered as torchvision's ImageFolder does: by name, 10 before 2, Z before a."""

    kind: Literal["imagefolder"]
    root: Text = "data"
    """The folder that holds the class folders, or `train`, `val` and `test` above them."""
    join_alike: bool = False
    """Whether folders alike but for case, blanks at the ends or Unicode form are one class, by the first one's name."""
    names: dict[Text, Text] = {}
    """What classes are called where they are shown, as `folder: name`."""

    def scan(self) -> Collection:
        return scan_folder(Path(self.root), order=str, join_alike=self.join_alike).called(self.names)
