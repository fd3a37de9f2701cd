"""Where images come from: the union of the sources, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltrec.data.folder import FolderSource
from ltrec.data.imagefolder import ImageFolderSource
from ltrec.data.list_files import ListsSource

SourceSettings = Annotated[
    FolderSource | ImageFolderSource | ListsSource,
    Field(discriminator="kind"),
]
