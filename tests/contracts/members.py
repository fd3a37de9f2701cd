"""The members of a union of settings, and an example of each."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import TypeAdapter
from ruamel.yaml import YAML

from ltrec.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

_VALUES = {float: 0.5, int: 2, bool: True, str: "text"}


def examples(union: Any, *, prefer: tuple[str, ...] = ()) -> list[Settings]:
    """One of each member: its defaults, and something for each field that has none.

    Args:
        union: `Annotated[A | B, Field(discriminator=…)]`, a union of such unions, or the only class of its family.
        prefer: Values to take, where a field allows them, in place of the first.
    """
    return [_example(member, prefer) for member in _members(union)]


def _members(union: Any) -> list[type[Settings]]:
    if isinstance(union, type):
        return [union]
    inner = get_args(union)[0] if get_origin(union) is Annotated else union
    return [inner] if isinstance(inner, type) else [member for part in get_args(inner) for member in _members(part)]


def through_yaml(settings: Settings, union: Any) -> Settings:
    """Written to a params file, read back, and told apart from its siblings."""
    text = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.dump(settings.model_dump(mode="json"), text)
    return TypeAdapter[Settings](union).validate_json(json.dumps(yaml.load(text.getvalue())))


def _example(member: type[Settings], prefer: tuple[str, ...]) -> Settings:
    required = {name: field for name, field in member.model_fields.items() if field.is_required()}
    return member.model_validate(
        {
            name: _preferred(field.examples, prefer) if field.examples else _value(field.annotation, prefer)
            for name, field in required.items()
        }
    )


def _preferred(allowed: Sequence[Any], prefer: tuple[str, ...]) -> Any:
    return next((value for value in allowed if value in prefer), allowed[0])


def _value(annotation: Any, prefer: tuple[str, ...]) -> Any:
    if get_origin(annotation) is Literal:
        return _preferred(get_args(annotation), prefer)
    if get_origin(annotation) is Annotated:
        return _value(get_args(annotation)[0], prefer)
    if get_origin(annotation) is list:
        return [_value(get_args(annotation)[0], prefer)]
    return _VALUES[annotation]
