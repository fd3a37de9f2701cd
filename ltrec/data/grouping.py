"""Groups of images that no split may tear: an individual's, a patient's, a video's, or a camera's bursts."""

from __future__ import annotations

import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Literal

from PIL import ExifTags
from pydantic import AfterValidator, BeforeValidator, Field

from ltrec import console
from ltrec.data.images.formats import open_image
from ltrec.errors import UserError
from ltrec.settings import PositiveFloat, Settings, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from ltrec.artifacts import Split
    from ltrec.data.contents import Contents
    from ltrec.data.image_lists import ImageList
    from ltrec.data.sources.collection import Collection

_WHERE = "params.yaml: prepare.split.group"


def _regular_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is no regular expression ({error}), got {pattern}") from None
    return pattern


class RegexGroups(Settings):
    """Images whose paths have the same part: what a pattern's first group matches, or the whole pattern."""

    by: Literal["regex"]
    pattern: Annotated[Text, AfterValidator(_regular_expression)]
    """A regular expression that is searched in each path relative to the source's root, such as `patient(\\d+)`; an
    image whose path it does not match stands alone."""

    def of(self, collection: Collection, root: Path, contents: Contents, workers: int | None) -> dict[str, str]:  # noqa: ARG002
        """Return the group of each image that has one, by its path.

        Raises:
            UserError: the pattern matches no path.
        """
        search = re.compile(self.pattern).search
        paths = list(_paths(collection))
        found = {path: match[match.re.groups and 1] for path in paths if (match := search(path))}
        groups = {path: group for path, group in found.items() if group is not None}
        if not groups:
            raise UserError(f"matches none of the {len(paths):,} paths, such as '{paths[0]}'", where=_WHERE)
        return groups


class ColumnGroups(Settings):
    """Images with the same entry in a column of the source's table, or under a key of its JSON's `images`."""

    by: Literal["column"]
    column: Text
    """The column's name, or the key, such as seq_id or location in files of COCO Camera Traps."""

    def of(self, collection: Collection, root: Path, contents: Contents, workers: int | None) -> dict[str, str]:  # noqa: ARG002
        """Return the group of each image that has one, by its path, as the source has read them."""
        return dict(collection.groups)


class BurstGroups(Settings):
    """Images that one camera took of one class within seconds, by their EXIF data; without it an image stands alone."""

    by: Literal["burst"]
    seconds: PositiveFloat = 2.0
    """The longest pause between neighbours of a burst."""

    def of(self, collection: Collection, root: Path, contents: Contents, workers: int | None) -> dict[str, str]:
        """Return the burst of each image that has EXIF data, by its path.

        A burst is called after the content of its first image, so that it stays the same when it grows.
        """
        places = {
            path: (split, label)
            for split, images in collection.splits.items()
            for path, label in zip(images.paths, images.labels.tolist(), strict=True)
        }
        with (
            console.progress("prepare: EXIF data", len(places)) as advance,
            ThreadPoolExecutor(workers) as pool,
        ):
            shots = []
            for path, shot in zip(places, pool.map(lambda path: shot_of(root / path), places), strict=True):
                if shot is not None:
                    shots.append((places[path], shot, contents.identity(path), path))
                advance()
        groups = {}
        shots.sort()
        for _, of_camera in groupby(shots, key=lambda each: (each[0], each[1].camera)):
            first = b""
            before = -float("inf")
            for _, shot, identity, path in of_camera:
                first = identity if shot.time - before > self.seconds else first
                groups[path], before = first.hex(), shot.time
        if len(places) > len(groups):
            alone = len(places) - len(groups)
            console.say(f"prepare: {alone:,} of {len(places):,} images have no camera and time in their EXIF data")
        return groups


def _from_text(group: Any) -> Any:
    return {"by": "regex", "pattern": group} if isinstance(group, str) else group


_Groups = Annotated[RegexGroups | ColumnGroups | BurstGroups, Field(discriminator="by")]
GroupSettings = Annotated[_Groups, BeforeValidator(_from_text, json_schema_input_type=_Groups | Text)]
"""How images are grouped; a text is a regular expression."""


@dataclass(frozen=True, order=True)
class Shot:
    """Which camera took an image, and when, in seconds."""

    camera: str
    time: float


def shot_of(file: Path) -> Shot | None:
    """Return what an image's EXIF data say of camera and time; None where they do not say both."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata
    try:
        with open_image(file) as opened:
            exif = opened.getexif()
            details = exif.get_ifd(ExifTags.IFD.Exif)
            camera = str(exif[ExifTags.Base.Model]).strip("\0 ")
            taken = str(details[ExifTags.Base.DateTimeOriginal]).strip("\0 ")
            fraction = str(details.get(ExifTags.Base.SubsecTimeOriginal, "")).strip("\0 ")
            # Without a time zone, as the camera's clock had it: differences are all that is wanted.
            time = (datetime.strptime(taken, "%Y:%m:%d %H:%M:%S") - datetime.min).total_seconds()  # noqa: DTZ007, DTZ901
    except Exception:  # noqa: BLE001 - damaged EXIF data raise almost anything, and are as good as none
        return None
    return Shot(camera, time + (float(f"0.{fraction}") if fraction.isdecimal() else 0.0)) if camera else None


def group_statistics(groups: Mapping[str, str], splits: Mapping[Split, ImageList]) -> dict[str, int]:
    """Return how many groups the splits hold, of how many images, the largest's, and those in several splits."""
    sizes: dict[str, int] = {}
    places: dict[str, set[Split]] = {}
    for split, images in splits.items():
        for path in images.paths:
            if (group := groups.get(path)) is not None:
                sizes[group] = sizes.get(group, 0) + 1
                places.setdefault(group, set()).add(split)
    torn = sum(len(of_group) > 1 for of_group in places.values())
    if torn:
        console.warn(f"prepare: {torn:,} group(s) lie in more than one of the splits that the data has")
    return {
        "number": len(sizes),
        "images": sum(sizes.values()),
        "largest": max(sizes.values(), default=0),
        "in_several_splits": torn,
    }


def _paths(collection: Collection) -> Iterable[str]:
    for images in collection.splits.values():
        yield from images.paths
    yield from collection.unknown
