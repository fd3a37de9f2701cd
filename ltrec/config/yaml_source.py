"""YAML read with the place of every key and value, so that a mistake can be pointed at."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from ruamel.yaml import YAML, MappingNode, Node, ScalarNode

KeyPath = tuple[str | int, ...]
Place = tuple[int, int]
"""Line and column, counted from 1."""

_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Problem:
    """One mistake in a file."""

    place: Place
    path: KeyPath
    what: str

    def line(self, file: str) -> str:
        """Such as `params.yaml:12:9: rebalance.crt.lr: out of range, got -1; …`."""
        dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" for part in self.path)[1:]
        return ": ".join(filter(None, (f"{file}:{self.place[0]}:{self.place[1]}", dotted, self.what)))


def refuse(file: str, problems: list[Problem]) -> UserError:
    """One exception for all problems, a line each, in the order of the file."""
    ordered = sorted(problems, key=lambda problem: problem.place)
    return UserError("\n".join(dict.fromkeys(problem.line(file) for problem in ordered)))


@dataclass
class Source:
    """Plain data, and where and how each piece of it is written."""

    data: Any = None
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    written: dict[KeyPath, str] = field(default_factory=dict)
    """Scalars as the file spells them, quotes included."""

    def value_place(self, path: KeyPath) -> Place:
        """Where the value is, or what encloses the place where it should be."""
        if path in self.values:
            return self.values[path]
        return self.key_place(path[:-1]) if path else (1, 1)

    def key_place(self, path: KeyPath) -> Place:
        return self.keys[path] if path in self.keys else self.value_place(path)


def read(path: Path) -> Source:
    """Read a YAML 1.2 file whose top level is a mapping.

    Raises:
        UserError: it cannot be read, is not YAML, is empty, or repeats a key; a line for each mistake.
    """
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            "no such file; run ltrec in the project's folder, or name the file with --params", where=name
        ) from None
    except IsADirectoryError:
        raise UserError("is a folder, not a file", where=name) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"not UTF-8 text (byte 0x{error.object[error.start]:02x})", where=f"{name}:{line}") from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=name) from None
    return parse(text, name)


def parse(text: str, name: str) -> Source:
    """As `read`, for text."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    yaml = YAML(typ="rt")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a reused anchor is legal
            root = yaml.compose(text)
    except ReaderError as error:
        line = text[: error.position].count("\n") + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        what = f"not YAML: the character U+{error.character:04X} is not allowed"
        raise refuse(name, [Problem((line, column), (), what)]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = " ".join(f"{error.context or ''} {error.problem or error}".split())
        hint = "; indent with spaces, not tabs" if "'\\t'" in what else ""
        raise refuse(name, [Problem(place, (), f"not YAML: {what}{hint}")]) from None
    if root is None:
        raise UserError("is empty; `ltrec params schema` says what belongs there", where=name)
    reader = _Reader(yaml)
    reader.source.data = reader.value(root, ())
    if not isinstance(reader.source.data, dict) and not reader.problems:
        reader.problem(root, (), f"must be a mapping of sections, got {kind(reader.source.data)}")
    if reader.problems:
        raise refuse(name, reader.problems)
    return reader.source


def kind(value: object) -> str:
    """What a value is, in words."""
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")


class _Reader:
    """Walks the nodes and takes down what stands where."""

    def __init__(self, yaml: YAML) -> None:
        self.scalars = yaml.constructor
        self.source = Source()
        self.problems: list[Problem] = []
        self._within: list[Node] = []

    def problem(self, node: Node, path: KeyPath, what: str) -> None:
        self.problems.append(Problem(_place(node), path, what))

    def value(self, node: Node, path: KeyPath) -> Any:
        from ruamel.yaml import MappingNode, ScalarNode, SequenceNode

        if node in self._within:
            self.problem(node, path, "the value contains itself")
            return None
        empty = isinstance(node, ScalarNode) and not node.value and node.style is None
        self.source.values[path] = self.source.key_place(path) if empty else _place(node)
        self._within.append(node)
        try:
            if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
                return self._mapping(node, path)
            if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            if isinstance(node, ScalarNode):
                return self._scalar(node, path)
        finally:
            self._within.pop()
        self.problem(node, path, f"the tag {str(node.tag).replace(_TAG, '!!')} is not allowed")
        return None

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        # Merged keys come first, so that the places of own keys stand.
        merged = self._merged([value for key, value in node.value if key.tag == f"{_TAG}merge"], path)
        own: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                continue
            if key.tag != f"{_TAG}str":
                self._odd_key(key, path, in_line=bool(node.flow_style))
            elif key.value in own:
                first = self.source.keys[*path, key.value]
                self.problem(key, (*path, key.value), f"duplicate key; the first is in line {first[0]}")
            else:
                inner = (*path, key.value)
                self.source.keys[inner] = _place(key)
                own[key.value] = self.value(value, inner)
        return merged | own

    def _odd_key(self, key: Node, path: KeyPath, *, in_line: bool) -> None:
        seen = key.value if isinstance(key.value, str) else "a list or mapping"
        number = in_line and key.tag in {f"{_TAG}int", f"{_TAG}float"}
        hint = "a decimal takes a point, not a comma" if number else "write it in quotes"
        self.problem(key, path, f"a key must be text, got {seen or 'nothing'}; {hint}")

    def _merged(self, nodes: list[Node], path: KeyPath) -> dict[str, Any]:
        """What `<<: *anchor` or `<<: [*anchor, …]` brings; earlier ones win."""
        from ruamel.yaml import MappingNode, SequenceNode

        merged: dict[str, Any] = {}
        for node in nodes:
            for part in reversed(node.value if isinstance(node, SequenceNode) else [node]):
                if isinstance(part, MappingNode) and part not in self._within:
                    self._within.append(part)
                    merged |= self._mapping(part, path)
                    self._within.pop()
                else:
                    self.problem(part, path, "<< merges mappings, and this is none")
        return merged

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        quote = node.style if node.style in {"'", '"'} else ""
        self.source.written[path] = f"{quote}{node.value}{quote}"
        match str(node.tag).removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return bool(self.scalars.construct_yaml_bool(node))
            case "int":
                return int(self.scalars.construct_yaml_int(node))
            case "float":
                return float(self.scalars.construct_yaml_float(node))
            case "str" | "timestamp":  # YAML 1.2 knows no dates
                return str(node.value)
        self.problem(node, path, f"the tag {str(node.tag).replace(_TAG, '!!')} is not allowed")
        return None


def _shown(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key) else repr(key)


def _place(node: Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1
