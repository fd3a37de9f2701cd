"""What is wrong with `params.yaml`: pydantic's errors, placed in the file and said in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ltrec.config import schema as schema_words
from ltrec.config.yaml_source import Problem, kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from ltrec.config.schema import Schema
    from ltrec.config.yaml_source import KeyPath, Source

_LONGEST = 60  # characters of a value that a message repeats
_EXACT = 2**53  # below it a float is the whole number that it says

_OF_KEY = "[key]"  # what pydantic puts behind a key that is itself wrong
_WRONG_TYPE = "wrong type"
_IN_WORDS = {
    "finite_number": "not a finite number",
    "greater_than": "out of range",
    "greater_than_equal": "out of range",
    "less_than": "out of range",
    "less_than_equal": "out of range",
    "literal_error": "unknown name",
    "string_pattern_mismatch": "not allowed",
    "string_too_long": "too long",
    "string_too_short": "too short",
    "too_long": "too many entries",
    "too_short": "too few entries",
}


def problems(error: ValidationError, source: Source, schema: Schema) -> list[Problem]:
    """Every mistake that pydantic found, with its place.

    Args:
        error: From validating `source.data`.
        source: The file.
        schema: Of the model.
    """
    found = [_Complaint(details, source, schema) for details in error.errors(include_url=False)]
    # Of a value that may be of several kinds, pydantic says for each kind why it is none of it; the first will do.
    first = {complaint.path: complaint for complaint in reversed(found) if complaint.is_choice}
    return [each.problem() for each in found if not each.is_choice or first[each.path] is each]


class _Complaint:
    """One of pydantic's errors beside the file and the schema."""

    def __init__(self, details: ErrorDetails, source: Source, schema: Schema) -> None:
        self.error = details["type"]
        self.message = str(details.get("ctx", {}).get("error", details["msg"]))
        self.details = details
        self.source = source
        self.schema = schema
        self.path, self.node, self.parent = self._locate()

    @property
    def is_choice(self) -> bool:
        """Whether the value may be of several kinds that no tag tells apart."""
        return "anyOf" in self.node

    def problem(self) -> Problem:
        if _OF_KEY in self.details["loc"]:
            return Problem(self.source.key_place(self.path), self.path, self.message)
        translate = {
            "missing": self._missing,
            "extra_forbidden": self._unknown_key,
            "union_tag_not_found": self._missing_tag,
            "union_tag_invalid": self._unknown_tag,
            "value_error": self._rule,
            "several_settings": self._rule_of_several,
        }
        return translate.get(self.error, self._unfit)()

    def _locate(self) -> tuple[KeyPath, Mapping[str, Any], Mapping[str, Any]]:
        """Path in the file, schema there, and schema of the mapping around it.

        pydantic's locations hold the tags of union members as well; the schema tells them from keys.
        """
        path: KeyPath = ()
        node = parent = self.schema.root
        for part in self.details["loc"]:
            if part == _OF_KEY or "anyOf" in node:
                break
            if "discriminator" in node:
                node = self.schema.member(node, part)
            else:
                path, parent = (*path, part), node
                node = self.schema.inner(node, part)
        return path, node, parent

    def _missing(self) -> Problem:
        return self._at(self.path, f"missing; allowed: {self.schema.allowed(self.node)}")

    def _missing_tag(self) -> Problem:
        allowed = schema_words.names(schema_words.tags(self.node))
        return self._at((*self.path, schema_words.tag(self.node)), f"missing; allowed: {allowed}")

    def _unknown_key(self) -> Problem:
        allowed = list(self.parent.get("properties", ()))
        close = schema_words.alike(self.path[-1], allowed)
        what = f"unknown key{close}; allowed: {schema_words.names(allowed)}"
        return Problem(self.source.key_place(self.path), self.path, what)

    def _unknown_tag(self) -> Problem:
        return self._unknown_name((*self.path, schema_words.tag(self.node)), schema_words.tags(self.node))

    def _unknown_name(self, path: KeyPath, allowed: list[Any]) -> Problem:
        seen = self._value(path)
        close, names = schema_words.alike(seen, allowed), schema_words.names(allowed, near=seen)
        return self._at(path, f"unknown name, got {self._seen(path)}{close}; allowed: {names}")

    def _rule(self) -> Problem:
        """A rule that the settings state themselves; its first word may name the key that it is about."""
        value = self._value(self.path)
        if isinstance(value, dict):
            first = self.message.partition(" ")[0]
            place = self.source.value_place((*self.path, first) if first in value else self.path)
            return Problem(place, self.path, self.message)
        seen = "" if value is None or "got" in self.message else f", got {self._seen(self.path)}"
        return self._at(self.path, self.message + seen)

    def _rule_of_several(self) -> Problem:
        """A rule of several parameters; it says itself which of those below it is about."""
        return self._at((*self.path, *self.details["ctx"]["path"]), self.message)

    def _unfit(self) -> Problem:
        """A value of the wrong type or out of bounds."""
        value = self._value(self.path)
        if self.error == "literal_error" and isinstance(value, str) and "enum" in self.node:
            return self._unknown_name(self.path, self.node["enum"])
        what = _IN_WORDS.get(self.error) or (_WRONG_TYPE if "type" in self.error else self.message)
        allowed = self.schema.allowed(self.node)
        return self._at(self.path, f"{what}, got {self._seen(self.path)}; allowed: {allowed}{self._advice(value)}")

    def _advice(self, value: object) -> str:
        """What people mean who write this."""
        wanted = self.node.get("type")
        kinds = {wanted, *(option.get("type") for option in self.node.get("anyOf", ()))}
        if isinstance(value, str) and kinds & {"number", "integer"} and self._is_quoted() and _is_number(value):
            return f"; write {value.strip()} without quotes"
        if isinstance(value, float) and wanted == "integer" and value.is_integer() and abs(value) < _EXACT:
            return f"; write {value:.0f}"
        if isinstance(value, int | float) and wanted == "string":
            return f"; write '{self._seen(self.path)}' in quotes"
        if isinstance(value, str) and "discriminator" in self.node and value in schema_words.tags(self.node):
            return f"; write {{{schema_words.tag(self.node)}: {value}}}"
        return ""

    def _at(self, path: KeyPath, what: str) -> Problem:
        return Problem(self.source.value_place(path), path, what)

    def _is_quoted(self) -> bool:
        return self.source.written.get(self.path, "").startswith(("'", '"'))

    def _value(self, path: KeyPath) -> Any:
        value = self.source.data
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def _seen(self, path: KeyPath) -> str:
        """The value as the file spells it."""
        value = self._value(path)
        if isinstance(value, dict | list):
            size = f" of {len(value)}" if isinstance(value, list) else ""
            return kind(value) + size if value else f"{kind(value)} without entries"
        text = self.source.written.get(path, "") or "nothing"
        return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
