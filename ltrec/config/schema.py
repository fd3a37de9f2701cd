"""What a JSON Schema permits, in plain words."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Node = Mapping[str, Any]

_MOST_NAMES = 12  # names that a message lists
_LIKENESS = 0.55  # how like a name must be to be meant, of 1
_BOUNDS = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
_PLAIN = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


class Schema:
    """A schema with its definitions."""

    def __init__(self, root: Node) -> None:
        self._definitions: Node = root.get("$defs", {})
        self.root = self.resolved(root)

    def resolved(self, node: Node) -> Node:
        """Follow references, and look through "or null"."""
        while True:
            if "$ref" in node:
                node = self._definitions[node["$ref"].rpartition("/")[2]]
            elif len(others := [option for option in node.get("anyOf", ()) if option.get("type") != "null"]) == 1:
                node = {**others[0], "nullable": True}
            else:
                return node

    def inner(self, node: Node, part: object) -> Node:
        """The schema of a key or an item; empty where there is none."""
        if isinstance(part, int):
            prefix = node.get("prefixItems", ())
            found = prefix[part] if part < len(prefix) else node.get("items", {})
        else:
            found = node.get("properties", {}).get(part, node.get("additionalProperties"))
        return self.resolved(found) if isinstance(found, dict) else {}

    def member(self, node: Node, tag: object) -> Node:
        """The member of a union that goes by this tag; the union itself where there is none."""
        reference = node["discriminator"]["mapping"].get(tag)
        return self.resolved({"$ref": reference}) if reference else node

    def allowed(self, node: Node) -> str:
        """Such as `a whole number above 0` or `auto, cpu, cuda`."""
        node = self.resolved(node)
        return self._without_null(node) + (" or null" if node.get("nullable") else "")

    def _without_null(self, node: Node) -> str:
        if "discriminator" in node:
            return f"a mapping with {tag(node)}: {names(tags(node))}"
        if "anyOf" in node:
            return " or ".join(self.allowed(option) for option in node["anyOf"])
        if "const" in node or "enum" in node:
            return names(node.get("enum", [node.get("const")]))
        if node.get("type") in {"array", "string"}:
            return self._list(node) if node["type"] == "array" else _text(node)
        if "properties" in node:
            return f"a mapping with {names(node['properties'])}"
        entries = " with at least one entry" if node.get("minProperties") else ""
        return _PLAIN.get(node.get("type", ""), "a mapping") + entries + _bounds(node)

    def _list(self, node: Node) -> str:
        if "prefixItems" in node:
            return f"a list of {len(node['prefixItems'])}, each {self.allowed(node['prefixItems'][0])}"
        least = f" of at least {node['minItems']}" if "minItems" in node else ""
        return f"a list{least}, each {self.allowed(node.get('items', {}))}"


def tag(union: Node) -> str:
    """The key that tells the members of a union apart."""
    return str(union["discriminator"]["propertyName"])


def tags(union: Node) -> list[str]:
    """What it can say."""
    return list(union["discriminator"]["mapping"])


def names(allowed: Iterable[Any], near: object = "") -> str:
    """The names; of very many the nearest."""
    every = [str(name) for name in allowed]
    if len(every) <= _MOST_NAMES:
        return ", ".join(every)
    close = difflib.get_close_matches(str(near), every, n=3, cutoff=_LIKENESS) or every[:3]
    return f"{', '.join(close)} and {len(every) - len(close)} more (`ltrec params schema` lists them)"


def alike(seen: object, allowed: Iterable[Any]) -> str:
    """The name that was probably meant, as a question; empty where there is none."""
    close = difflib.get_close_matches(str(seen), [str(name) for name in allowed], n=1, cutoff=_LIKENESS)
    return f" (did you mean {close[0]}?)" if close else ""


def _text(node: Node) -> str:
    longest = f" of at most {node['maxLength']} characters" if "maxLength" in node else ""
    pattern = f" that matches {node['pattern']}" if "pattern" in node else ""
    return f"{'text, not empty' if node.get('minLength') and not (longest or pattern) else 'text'}{longest}{pattern}"


def _bounds(node: Node) -> str:
    found = [f"{word} {node[key]:.10g}" for key, word in _BOUNDS.items() if key in node]
    return " " + " and ".join(found) if found else ""
