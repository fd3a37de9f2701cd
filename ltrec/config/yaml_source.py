"""YAML read with the place and the spelling of every value, so that a mistake can be pointed at.

A file may be hostile: ten lines whose aliases double ask for gigabytes, and deep nesting for more stack than there is.
So its bytes, its values with all aliases written out, and its depth have limits, far above any list of parameters.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML, MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from ltrec.artifacts import present
from ltrec.errors import UserError, one_line, shortened

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from ruamel.yaml import Node

KeyPath = tuple[str | int, ...]
Place = tuple[int, int]
"""Line and column, counted from 1."""
Mistake = tuple[Place, KeyPath, str]
"""Where a mistake is, the parameter that it is about, and what is wrong."""

_LONGEST = 60  # characters of a value that a message repeats
_LONGEST_REASON = 1000
_MOST_MISTAKES = 50  # lines about one file
_MOST_BYTES = 1 << 20
_MOST_VALUES = 20_000  # keys, lists and mappings among them
_DEEPEST = 50
_MOST_BITS = 14_000  # some 4,200 digits: Python writes no whole number of more than 4,300
_TAG = "tag:yaml.org,2002:"
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_ALLOWED_TAGS = {f"{_TAG}{name}" for name in ("null", "str", "timestamp", "seq", "map", "merge", *_KINDS)}


class _Composer(Composer):
    """Stops where a file has too many values, or nests them too deep: it is not read to its end then."""

    values = depth = 0

    def compose_node(self, parent: Node | None, index: object) -> Node | None:
        self.values += 1
        self.depth += 1
        mark = self.parser.peek_event().start_mark
        if self.values > _MOST_VALUES:
            raise ComposerError(None, None, f"more than {_MOST_VALUES:,} values", mark)
        if self.depth > _DEEPEST:
            raise ComposerError(None, None, f"nested more than {_DEEPEST} deep", mark)
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Constructor(SafeConstructor):
    """Builds plain values only; a date stays text, since YAML 1.2 knows no dates."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        if not isinstance(node, ScalarNode):
            return super().construct_object(node, deep=deep)
        try:
            value = super().construct_object(node, deep=deep)
        except (ValueError, LookupError, TypeError, ArithmeticError):
            kind = _KINDS.get(str(node.tag).removeprefix(_TAG), "a value")
            said = shortened(node.value, _LONGEST)
            raise ConstructorError(None, None, f"'{said}' cannot be read as {kind}", node.start_mark) from None
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise ConstructorError(None, None, "a whole number of more than 4,200 digits", node.start_mark)
        if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
            raise ConstructorError(None, None, "half of a character, of the range U+D800 … U+DFFF", node.start_mark)
        return value


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
        UserError: It cannot be read, is too large, is not YAML, is empty, or has duplicate keys or such as are no text.
    """
    name = str(path)
    try:
        if not path.exists():
            hint = "run ltrec in the project's folder, or name the file with --params"
            raise UserError(f"no such file; {hint}", where=name)
        with present(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UserError(f"is longer than {_MOST_BYTES:,} bytes, which no parameters are", where=name)
        return parse(content.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"not UTF-8 text (byte 0x{error.object[error.start]:02x})", where=f"{name}:{line}") from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=name) from None


def parse(text: str, name: str) -> Source:
    """Return a text's source, as `read` does a file's; `name` stands in the messages."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer, yaml.Constructor = _Composer, _Constructor
    try:
        with warnings.catch_warnings(action="ignore"):  # a reused anchor is legal, and so are numbers of YAML 1.1
            root = yaml.compose(text)
            if root is None:
                raise UserError("is empty; `ltrec params schema` says what belongs there", where=name)
            _measure(root, {})
            if mistakes := list(_wrong_keys(root, ())):
                raise refusal(name, mistakes)
            return Source(name, text, root, json.dumps(yaml.constructor.construct_document(root)))
    except MarkedYAMLError as error:
        hint = "; indent with spaces, not tabs" if "'\\t'" in error.problem else ""
        place = error.problem_mark.line + 1, error.problem_mark.column + 1
        raise refusal(name, [(place, (), f"not YAML: {error.context or ''} {error.problem}{hint}")]) from None
    except (YAMLError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise UserError(f"not YAML: {one_line(error)}", where=name) from None


def refusal(name: str, mistakes: Collection[Mistake]) -> UserError:
    """Return one error for all mistakes in a file, a line each, in the order of the file; of very many the first."""
    lines = []
    for (line, column), path, what in sorted(mistakes, key=lambda mistake: mistake[0])[:_MOST_MISTAKES]:
        dotted = "".join(map(_dotted, path)).removeprefix(".")
        lines.append(
            ": ".join(
                filter(None, (f"{name}:{line}:{column}", dotted, shortened(" ".join(what.split()), _LONGEST_REASON)))
            )
        )
    if more := len(mistakes) - len(lines):
        lines.append(f"{name}: {more:,} more mistakes")
    return UserError.of_lines(lines)


def _dotted(part: str | int) -> str:
    """Return a part of a key path as messages show it."""
    if isinstance(part, int):
        return f"[{part}]"
    shown = part if re.fullmatch(r"[\w-]+", part) else repr(part)
    return f".{shortened(shown, _LONGEST)}"


def _measure(node: Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return how many values a node is, and how deep, with all aliases written out.

    Args:
        node: The node.
        known: What is known of nodes already, by their ids; a node is 0 deep while it is looked at.

    Raises:
        MarkedYAMLError: It is too much, or contains itself, or has a tag that no parameter has.
    """
    if (measured := known.get(id(node))) is not None:
        if not measured[1]:
            raise ComposerError(None, None, "an alias of what it stands in", node.start_mark)
        return measured
    if (tag := str(node.tag)) not in _ALLOWED_TAGS:
        shown = shortened(tag.replace(_TAG, "!!"), _LONGEST)
        raise ConstructorError(None, None, f"the tag {shown} has no meaning here", node.start_mark)
    known[id(node)] = 0, 0
    inner = [_measure(part, known) for _, *parts in _entries(node) for part in dict.fromkeys(parts)]
    values, depth = 1 + sum(count for count, _ in inner), 1 + max((depth for _, depth in inner), default=0)
    if values > _MOST_VALUES or depth > _DEEPEST:
        much = f"more than {_MOST_VALUES:,} values" if values > _MOST_VALUES else f"nested more than {_DEEPEST} deep"
        raise ComposerError(None, None, f"{much}, with its aliases written out", node.start_mark)
    known[id(node)] = values, depth
    return values, depth


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
