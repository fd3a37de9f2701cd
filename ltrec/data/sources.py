"""Where images come from: the union of the sources, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltrec.data.cifar import Cifar10Source, Cifar100Source
from ltrec.data.folder import FolderSource
from ltrec.data.imagenet import ImageNetSource
from ltrec.data.places365 import Places365Source

SourceSettings = Annotated[
    FolderSource | ImageNetSource | Places365Source | Cifar10Source | Cifar100Source, Field(discriminator="kind")
]
