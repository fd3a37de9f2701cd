"""Where images come from: the union of the sources, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltrec.data.cifar import Cifar10Source, Cifar100Source
from ltrec.data.folder import FolderSource
from ltrec.data.imagefolder import ImageFolderSource
from ltrec.data.imagenet import ImageNetSource
from ltrec.data.inaturalist import INaturalistSource
from ltrec.data.list_files import ListsSource
from ltrec.data.places365 import Places365Source
from ltrec.data.table import CsvSource

SourceSettings = Annotated[
    FolderSource
    | ImageFolderSource
    | ListsSource
    | CsvSource
    | INaturalistSource
    | ImageNetSource
    | Places365Source
    | Cifar10Source
    | Cifar100Source,
    Field(discriminator="kind"),
]
