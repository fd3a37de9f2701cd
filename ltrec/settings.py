"""The base of every settings class: strict, closed, finite, immutable."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError


class Settings(BaseModel):
    """A section of `params.yaml`.

    Unknown keys, other types and non-finite numbers are refused; the docstring under a
    field becomes its description in the JSON Schema.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )


def conflict(path: tuple[str, ...], what: str) -> PydanticCustomError:
    """Return the error that a validator of several parameters raises; `path` leads to the one to point at."""
    # As a value, since braces in what the user wrote are no placeholders.
    return PydanticCustomError("several_settings", "{what}", {"path": path, "what": what})


Text = Annotated[str, Field(min_length=1)]
PositiveInt = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
