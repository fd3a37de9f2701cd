"""Where images come from: the union of the sources, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltrec.data.sources.camera_traps import CameraTrapsSource
from ltrec.data.sources.cifar import Cifar10Source, Cifar100Source
from ltrec.data.sources.folder import FolderSource
from ltrec.data.sources.imagefolder import ImageFolderSource
from ltrec.data.sources.imagenet import ImageNetSource
from ltrec.data.sources.inaturalist import INaturalistSource
from ltrec.data.sources.list_files import ListsSource
from ltrec.data.sources.places365 import Places365Source
from ltrec.data.sources.table import CsvSource

SourceSettings = Annotated[
    FolderSource
    | ImageFolderSource
    | ListsSource
    | CsvSource
    | INaturalistSource
    | CameraTrapsSource
    | ImageNetSource
    | Places365Source
    | Cifar10Source
    | Cifar100Source,
    Field(discriminator="kind"),
]
