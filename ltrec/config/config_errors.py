"""What is wrong with `params.yaml`: pydantic's errors, placed in the file, beside what the JSON Schema allows."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from ltrec.config import yaml_source
from ltrec.errors import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from ltrec.config.yaml_source import KeyPath, Place, Source
    from ltrec.errors import UserError

    Node = Mapping[str, Any]

_MOST_REASONS = 200  # of pydantic's errors, those that are explained
_LONGEST = 60  # characters of a name that a message repeats
_MOST_NAMES = 12  # names that a message lists
_LIKENESS = 0.55  # how like a name must be to be meant, of 1
_OF_KEY = "[key]"  # what pydantic puts behind a key that is itself wrong


def refusal(error: ValidationError, source: Source, schema: Node) -> UserError:
    """Return one exception for all mistakes that pydantic found in a file, a line each.

    Args:
        error: What pydantic found in the file's content.
        source: The file.
        schema: The JSON Schema of the content.
    """
    # Of a value that may be of several kinds, pydantic says for each why it is none of it: one line says them all.
    reasons: dict[tuple[Place, KeyPath, str], list[str]] = {}
    for details in error.errors(include_url=False)[:_MOST_REASONS]:
        place, path, what, more = _explained(details, source, schema)
        reasons.setdefault((place, path, more), []).append(what)
    mistakes = []
    for (place, path, more), (first, *others) in reasons.items():
        alternatives = "".join(f" or {what.removeprefix('should be ')}" for what in others)
        mistakes.append((place, path, f"{first}{alternatives}{more}"))
    return yaml_source.refusal(source.name, mistakes)


def _explained(details: ErrorDetails, source: Source, schema: Node) -> tuple[Place, KeyPath, str, str]:
    """Return the place of a mistake, the parameter, what is wrong with it, and what to say behind that."""
    path, node = _located(details["loc"], schema)
    context = details.get("ctx", {})
    tag = node.get("discriminator", {}).get("propertyName")
    key_place, place, seen = source.find(path)
    got = f", got {seen}" if seen else ""
    what, more = str(context.get("error", details["msg"])), ""
    match details["type"]:
        case "several_settings":
            path = (*path, *context["path"])
            place = source.find(path)[1]
        case "value_error" if "properties" in node:
            # The first word of a section's rule may be the key that the rule is about.
            _, inner, spelling = source.find((*path, what.partition(" ")[0]))
            place = inner if spelling else place
        case "value_error" if _OF_KEY in details["loc"]:
            place = key_place
        case "value_error":
            more = "" if "got" in what else got
        case "extra_forbidden":
            parent = _located(details["loc"][:-1], schema)[1]
            place, what = key_place, f"unknown key{_alike(path[-1], parent)}{_allowed(parent)}"
        case "missing" | "union_tag_not_found":
            path = (*path, tag) if tag else path
            said = _allowed(node) or f"; {node.get('description', 'a value is wanted')}"
            place, what = key_place, f"missing{said}"
        case "union_tag_invalid":
            path, name = (*path, tag), shortened(context["tag"], _LONGEST)
            place, what = source.find(path)[1], f"unknown name, got {name}{_alike(name, node)}{_allowed(node, name)}"
        case "dict_type" | "model_type":
            what, more = f"should be a mapping{f' with {tag}' if tag else ''}", f"{got}{_allowed(node)}"
        case _:  # such as "Input should be greater than 0" and "List should have at least 1 item after validation"
            what = f"should {what.partition(' should ')[2]}{' or null' if 'nullable' in node else ''}"
            what = what.replace("valid array", "list").replace(" after validation", "")
            more = got + _alike(seen, node)
    return place, path, what, more


def _located(location: Iterable[str | int], schema: Node) -> tuple[KeyPath, Node]:
    """Return the path in the file and the schema there.

    pydantic's locations hold the tags of union members as well; the schema tells them from keys.
    """
    path: KeyPath = ()
    node = schema
    for part in location:
        if part == _OF_KEY or "anyOf" in node:
            break
        if "discriminator" in node:
            mapping = node["discriminator"]["mapping"]
            # What is none of its tags is that of a union within the union, which the schema shows as one.
            inner = {"$ref": mapping[part]} if part in mapping else node
        else:
            path = (*path, part)
            inner = node.get("properties", {}).get(part) or node.get("items") or node.get("additionalProperties") or {}
        node = _resolved(inner, schema)
    return path, node


def _resolved(node: Node, schema: Node) -> Node:
    """Return the schema that a reference leads to, and of a value that may be null that of the value."""
    if "$ref" in node:
        return _resolved(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    others = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
    return {**_resolved(others[0], schema), "nullable": True} if len(others) == 1 else node


def _names(node: Node) -> list[str]:
    """Return the names that may stand here: tags of a union, values, or keys."""
    tags = node.get("discriminator", {}).get("mapping")
    return [str(name) for name in tags or node.get("enum") or node.get("properties") or ()]


def _allowed(node: Node, near: object = "") -> str:
    """Return the names that may stand here, as a message's end; of very many the nearest."""
    names = _names(node)
    if len(names) > _MOST_NAMES:
        close = difflib.get_close_matches(str(near), names, n=3, cutoff=_LIKENESS) or names[:3]
        names = [f"{', '.join(close)} and {len(names) - len(close)} more (`ltrec params schema` lists them)"]
    return f"; allowed: {', '.join(names)}" if names else ""


def _alike(seen: object, node: Node) -> str:
    """Return the name that was probably meant, as a question; empty where there is none."""
    close = difflib.get_close_matches(str(seen), _names(node), n=1, cutoff=_LIKENESS)
    return f" (did you mean {close[0]}?)" if close else ""
