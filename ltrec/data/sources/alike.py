"""Names of classes that are alike but for case, blanks at their ends or the Unicode form of their letters."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from ltrec import console
from ltrec.errors import some

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def joined(names: Sequence[str], *, join: bool, where: str) -> dict[str, str]:
    """Return the class that each name stands for: itself, or with `join` the first of the names that are alike.

    In one line the names are said that are alike, joined or not.

    Args:
        names: The names, in the order of the classes.
        join: Whether names that are alike stand for one class.
        where: Where the names are from.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_key(name), []).append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    if alike:
        listed = some([" and ".join(_spelt(group)) for group in alike], shown=10)
        what = "are one class each" if join else "are classes of their own; prepare.source.join_alike: true joins them"
        say = console.say if join else console.warn
        say(f"prepare: {where}: names alike but for case, blanks at the ends or Unicode form {what}: {listed}")
    return {name: group[0] if join else name for group in groups.values() for name in group}


def _key(name: str) -> str:
    """Return what names that are alike share."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).strip().casefold())


def _spelt(names: Iterable[str]) -> list[str]:
    """Return names in quotes; where two would look the same, by the codes of their letters."""
    spelt = [repr(name) for name in names]
    forms = {unicodedata.normalize("NFC", name) for name in names}
    return spelt if len(forms) == len(spelt) else [ascii(name) for name in names]
