"""The members of a union of settings, and an example of each."""

from __future__ import annotations

import io
import json
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import TypeAdapter
from ruamel.yaml import YAML

from ltrec.settings import Settings

_VALUES = {float: 0.5, int: 2, bool: True, str: "text"}


def examples(union: Any, *, prefer: tuple[str, ...] = ()) -> list[Settings]:
    """One of each member: its defaults, and something for each field that has none.

    Args:
        union: `Annotated[A | B, Field(discriminator=…)]`, or the only class of its family.
        prefer: Values to take, where a field allows them, in place of the first.
    """
    members = (union,) if isinstance(union, type) else get_args(get_args(union)[0])
    return [_example(member, prefer) for member in members]


def through_yaml(settings: Settings, union: Any) -> Settings:
    """Written to a params file, read back, and told apart from its siblings."""
    text = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.dump(settings.model_dump(mode="json"), text)
    return TypeAdapter[Settings](union).validate_json(json.dumps(yaml.load(text.getvalue())))


def _example(member: type[Settings], prefer: tuple[str, ...]) -> Settings:
    required = {name: field.annotation for name, field in member.model_fields.items() if field.is_required()}
    return member.model_validate({name: _value(annotation, prefer) for name, annotation in required.items()})


def _value(annotation: Any, prefer: tuple[str, ...]) -> Any:
    if get_origin(annotation) is Literal:
        allowed = get_args(annotation)
        return next((value for value in allowed if value in prefer), allowed[0])
    if get_origin(annotation) is Annotated:
        return _value(get_args(annotation)[0], prefer)
    if get_origin(annotation) is list:
        return [_value(get_args(annotation)[0], prefer)]
    return _VALUES[annotation]
