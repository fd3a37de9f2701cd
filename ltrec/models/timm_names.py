"""timm's networks by name, known without importing timm: `timm_names.txt` lists them.

Each of its lines is an architecture, with the tags under which weights for it are published, timm's default first. A
newer timm's are listed by `python -m ltrec.models.timm_names > names.txt && mv names.txt ltrec/models/timm_names.txt`.
"""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import sys
from importlib import resources
from typing import TYPE_CHECKING

from ltrec.errors import shortened, some

if TYPE_CHECKING:
    from collections.abc import Mapping

    Names = Mapping[str, tuple[str, ...]]
    """The tags of each architecture."""

PREFIX = "timm/"
"""How the names of timm's networks begin in `params.yaml`."""
ANY = f"{PREFIX}NAME"
"""What stands for all of them where names are listed."""

_LONGEST = 60  # characters of a name that a message repeats
_MOST_TAGS = 12  # tags that a message lists
_LIKENESS = 0.55  # how like a name must be to be meant, of 1


def known_name(name: str) -> str:
    """Return the name of a network, with or without a tag, if timm has it.

    Raises:
        ValueError: It has none of this name; the message offers near names.
    """
    if not name.startswith(PREFIX):
        known = known_name(f"{PREFIX}{name}")
        raise ValueError(f"timm's names begin with {PREFIX}, got {name} (did you mean {known}?)")
    names = _listed() if exists(name) or _is_listed_version() else _installed()
    if not _exists(name, names):
        raise ValueError(_mistake(name, names))
    return name


def exists(name: str) -> bool:
    """Return whether the list has a network of this name, with its prefix."""
    return _exists(name, _listed())


def has_weights(name: str) -> bool:
    """Return whether weights are published under a known name."""
    architecture = _parts(name)[0]
    return bool(_listed().get(architecture) or (not _is_listed_version() and _installed().get(architecture)))


def text() -> str:
    """Return what `timm_names.txt` holds for the timm that is installed."""
    lines = (" ".join((architecture, *tags)) for architecture, tags in _installed().items())
    return "\n".join((f"timm {importlib.metadata.version('timm')}", *lines, ""))


def _parts(name: str) -> tuple[str, str]:
    """Return architecture and tag; the tag is empty where the name has none."""
    architecture, _, tag = name.removeprefix(PREFIX).partition(".")
    return architecture, tag


def _exists(name: str, names: Names) -> bool:
    architecture, dot, tag = name.removeprefix(PREFIX).partition(".")
    return name.startswith(PREFIX) and architecture in names and (not dot or tag in names[architecture])


def _mistake(name: str, names: Names) -> str:
    """Return what to say of a name that is none."""
    architecture, tag = _parts(name)
    got = f"got {shortened(name, _LONGEST)}"
    if architecture in names:
        tags = names[architecture]
        allowed = some([f"{PREFIX}{architecture}", *(f"{PREFIX}{architecture}.{each}" for each in tags)], _MOST_TAGS)
        meant = [f"{architecture}.{close}" for close in difflib.get_close_matches(tag, tags, 1, _LIKENESS)]
        return f"timm has no weights of this tag, {got}{_question(meant)}; allowed: {allowed}"
    close = difflib.get_close_matches(architecture, names, 3, _LIKENESS)
    meant = [f"{each}.{tag}" if tag in names[each] else each for each in close]
    near = f"near: {', '.join(PREFIX + each for each in meant)}; " if meant else ""
    where = "timm.list_models() and timm.list_pretrained() list them all"
    return f"timm has no network of this name, {got}{_question(meant)}; {near}{where}"


def _question(meant: list[str]) -> str:
    return f" (did you mean {PREFIX}{meant[0]}?)" if meant else ""


@functools.cache
def _lines() -> list[str]:
    return resources.files("ltrec.models").joinpath("timm_names.txt").read_text(encoding="utf-8").splitlines()


@functools.cache
def _listed() -> Names:
    return {architecture: tuple(tags) for architecture, *tags in map(str.split, _lines()[1:])}


@functools.cache
def _is_listed_version() -> bool:
    """Return whether the timm that is installed is the one whose names are listed."""
    return _lines()[0] == f"timm {importlib.metadata.version('timm')}"


@functools.cache
def _installed() -> Names:
    """Return the names of the timm that is installed; it takes seconds to import."""
    import timm

    tags: dict[str, list[str]] = {architecture: [] for architecture in timm.list_models()}
    for name in timm.list_pretrained():
        architecture, _, tag = name.partition(".")
        is_default = tag == timm.models.get_pretrained_cfg_value(architecture, "tag")
        tags[architecture].insert(0 if is_default else len(tags[architecture]), tag)
    return {architecture: tuple(each) for architecture, each in tags.items()}


if __name__ == "__main__":
    sys.stdout.write(text())
