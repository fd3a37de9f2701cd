"""One line means one."""

from __future__ import annotations

import pickle

import pytest
from pydantic import BaseModel, ValidationError

from ltrec.errors import UserError, one_line, some


class Settings(BaseModel):
    size: int
    resize: int


def test_what_others_say_over_many_lines_is_one_without_their_links() -> None:
    with pytest.raises(ValidationError) as raised:
        Settings.model_validate({"size": "x\x85y\u2028z"})
    assert "errors.pydantic.dev" in str(raised.value)
    text = one_line(raised.value)
    assert "further information" not in text
    assert "errors.pydantic.dev" not in text
    assert len(text.splitlines()) == 1
    assert "size" in text
    assert "resize" in text


def test_an_error_is_one_line_whatever_is_in_it_unless_it_is_of_several() -> None:
    assert UserError("is no image", where="a\nerror: b.jpg").lines == ("a\nerror: b.jpg: is no image",)
    several = UserError.of_lines(["a.yaml:1:1: x", "a.yaml:2:1: y"])
    assert several.lines == ("a.yaml:1:1: x", "a.yaml:2:1: y")
    assert str(several) == "a.yaml:1:1: x\na.yaml:2:1: y"
    assert pickle.loads(pickle.dumps(several)).lines == several.lines  # noqa: S301 - as worker processes hand it over


def test_of_many_items_the_first_few_are_named_and_long_ones_cut() -> None:
    assert some(["a", "b", "c", "d"]) == "a, b, c and 1 more"
    assert some(["a", "b"]) == "a, b"
    assert some(["x" * 1000]) == f"{'x' * 200} …"
