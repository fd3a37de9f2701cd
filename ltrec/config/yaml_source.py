"""YAML read with the place and the spelling of every value, so that a mistake can be pointed at."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ruamel.yaml import YAML, MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from ltrec.errors import UserError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ruamel.yaml import Node

KeyPath = tuple[str | int, ...]
Place = tuple[int, int]
"""Line and column, counted from 1."""
Mistake = tuple[Place, KeyPath, str]
"""Where a mistake is, the parameter that it is about, and what is wrong."""

_LONGEST = 60  # characters of a value that a message repeats
_TAG = "tag:yaml.org,2002:"


class _Constructor(SafeConstructor):
    """Builds plain values only; a date stays text, since YAML 1.2 knows no dates."""


_Constructor.add_constructor(f"{_TAG}timestamp", SafeConstructor.construct_yaml_str)


@dataclass(frozen=True)
class Source:
    """A YAML file's content as JSON, and the nodes that say where each piece of it is written."""

    name: str
    text: str
    root: Node
    content: str

    def find(self, path: KeyPath) -> tuple[Place, Place, str]:
        """Return where a key is, where its value is, and the value as the file spells it.

        Where the file has no such key, the spelling is empty and both places are that of the key around it.
        """
        key = value = self.root
        for part in path:
            # Of merged and own keys the own come last.
            inner = [pair for name, *pair in _entries(value) if name == part]
            if not inner:
                return _place(key), _place(key), ""
            key, value = inner[-1]
        spelt = " ".join(self.text[value.start_mark.index : value.end_mark.index].split())
        shown = spelt if len(spelt) <= _LONGEST else f"{spelt[:_LONGEST]}…"
        return _place(key), _place(value if spelt else key), shown or "nothing"


def read(path: Path) -> Source:
    """Return the source that a YAML 1.2 file is.

    Raises:
        UserError: It cannot be read, is not YAML, is empty, or has duplicate keys or such as are no text.
    """
    name = str(path)
    try:
        return parse(path.read_text(encoding="utf-8-sig"), name)
    except FileNotFoundError:
        hint = "run ltrec in the project's folder, or name the file with --params"
        raise UserError(f"no such file; {hint}", where=name) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"not UTF-8 text (byte 0x{error.object[error.start]:02x})", where=f"{name}:{line}") from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=name) from None


def parse(text: str, name: str) -> Source:
    """Return a text's source, as `read` does a file's; `name` stands in the messages."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        with warnings.catch_warnings(action="ignore"):  # a reused anchor is legal
            root = yaml.compose(text)
        if root is None:
            raise UserError("is empty; `ltrec params schema` says what belongs there", where=name)
        if mistakes := list(_wrong_keys(root, ())):
            raise refusal(name, mistakes)
        return Source(name, text, root, json.dumps(yaml.constructor.construct_document(root)))
    except MarkedYAMLError as error:
        hint = "; indent with spaces, not tabs" if "'\\t'" in error.problem else ""
        place = error.problem_mark.line + 1, error.problem_mark.column + 1
        raise refusal(name, [(place, (), f"not YAML: {error.context or ''} {error.problem}{hint}")]) from None
    except (YAMLError, ValueError, TypeError, LookupError, RecursionError) as error:
        # Such as a list that contains itself.
        raise UserError(f"not YAML: {one_line(error)}", where=name) from None


def refusal(name: str, mistakes: Iterable[Mistake]) -> UserError:
    """Return one exception for all mistakes in a file, a line each, in the order of the file."""
    lines = []
    for (line, column), path, what in sorted(mistakes, key=lambda mistake: mistake[0]):
        shown = (part if re.fullmatch(r"[\w-]+", str(part)) else repr(part) for part in path)
        dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in shown)[1:]
        lines.append(": ".join(filter(None, (f"{name}:{line}:{column}", dotted, " ".join(what.split())))))
    return UserError("\n".join(lines))


def _wrong_keys(node: Node, path: KeyPath) -> Iterator[Mistake]:
    """Yield the keys that are no text or are there already."""
    lines: dict[str | int, int] = {}
    for name, key, value in _entries(node):
        if isinstance(node, MappingNode) and key.tag not in {f"{_TAG}str", f"{_TAG}merge"}:
            # In `{lr: 0,1}` the 1 is a key.
            decimal = node.flow_style and str(name).isdecimal()
            hint = "a decimal takes a point, not a comma" if decimal else "write it in quotes"
            yield _place(key), path, f"a key must be text, got {name}; {hint}"
        elif name in lines:
            yield _place(key), (*path, name), f"duplicate key; the first is in line {lines[name]}"
        lines.setdefault(name, _place(key)[0])
        yield from _wrong_keys(value, (*path, name))


def _entries(node: Node) -> Iterator[tuple[str | int, Node, Node]]:
    """Yield a mapping's or a list's entries: its name or number, the node that says so, and its value."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield key.value if isinstance(key, ScalarNode) else "a list or mapping", key, value
    elif isinstance(node, SequenceNode):
        yield from ((index, item, item) for index, item in enumerate(node.value))


def _place(node: Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1
