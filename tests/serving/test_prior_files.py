"""Priors in files: CSV and JSON, and each mistake in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ltrec.errors import UserError
from ltrec.serving import prior_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[[str | bytes], Path]

CLASSES = ("cat", "dog", "eel, smoked")
CSV = 'class,prior\ndog,0.3\n"eel, smoked",0.1\ncat,0.6\n'


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(content: str | bytes) -> Path:
        path = tmp_path / "prior.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


@pytest.mark.parametrize(
    "content",
    [
        CSV,
        CSV.replace("\n", "\r\n"),
        "\ufeff" + CSV,
        CSV.replace("class,prior", " class , prior ") + "\n\n",
        '{"eel, smoked": 0.1, "cat": 0.6, "dog": 0.3}',
    ],
)
def test_the_order_is_that_of_the_classes(write: Write, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert prior_files.read_prior(write(content), CLASSES) == pytest.approx([0.6, 0.3, 0.1])
    assert not capsys.readouterr().err


def test_what_does_not_sum_to_1_is_divided_and_said(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write('{"cat": 60, "dog": 30, "eel, smoked": 10}')
    assert prior_files.read_prior(file, CLASSES) == pytest.approx([0.6, 0.3, 0.1])
    assert f"{file}: the priors sum to 100, and are divided by it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (CSV + "fox,0.1\n", "names what is no class of the model: fox"),
        ("class,prior\ncat,1\n", "has no prior for dog, eel, smoked; each class of the model needs one"),
        (CSV + "dog,0.3\n", "names the class 'dog' twice"),
        ('{"cat": 1, "cat": 2}', "names the class 'cat' twice"),
        (CSV.replace("0.3", "0"), "the prior of 'dog' is '0'; allowed: a number above 0"),
        (CSV.replace("0.3", "-0.3"), "the prior of 'dog' is '-0.3'"),
        (CSV.replace("0.3", "nan"), "the prior of 'dog' is 'nan'"),
        (CSV.replace("0.3", "1e999"), "the prior of 'dog' is '1e999'"),
        (CSV.replace("0.3", "much"), "the prior of 'dog' is 'much'"),
        ('{"cat": 1, "dog": true, "eel, smoked": 1}', "the prior of 'dog' is True"),
        ('{"cat": 1, "dog": null, "eel, smoked": 1}', "the prior of 'dog' is None"),
        ('{"cat": 1, "dog": {"a": 1}, "eel, smoked": 1}', "the prior of 'dog' is "),
        ('{"cat": 1,', "is no JSON object ("),
        ('{"a":' * 100_000, "is no JSON object ("),
        ("", "has the header ''; wanted: class,prior, or a JSON object"),
        ("name,share\ncat,1\n", "has the header 'name,share'; wanted: class,prior"),
        ("class,prior\ncat,1,2\n", "has the row 'cat,1,2'; wanted: a class and its prior"),
        ('class,prior\n"cat,1\n', "is no CSV table ("),
        (b"class,prior\ncaf\xe9,1\n", "is not UTF-8 text"),
        ('{"cat": 1e-31, "dog": 1, "eel, smoked": 1}', "the prior of 'cat' is less than 1e-30 of the sum"),
        ('{"cat": 1e308, "dog": 1e308, "eel, smoked": 1e308}', "its numbers sum to infinity"),
    ],
)
def test_mistakes_are_one_line(write: Write, content: str | bytes, told: str) -> None:
    file = write(content)
    with pytest.raises(UserError) as caught:
        prior_files.read_prior(file, CLASSES)
    assert caught.value.where == str(file)
    assert told in caught.value.what
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_no_file_names_the_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"uniforn: no such file; allowed: uniform, train, or a CSV or JSON file"):
        prior_files.asked("uniforn", CLASSES, here=tmp_path)
    with pytest.raises(UserError, match="is a folder, not a file"):
        prior_files.read_prior(tmp_path, CLASSES)


def test_a_word_or_a_file_relative_to_a_folder(write: Write) -> None:
    file = write(CSV)
    assert prior_files.asked("train", CLASSES, here=file.parent) == "train"
    assert prior_files.asked(file.name, CLASSES, here=file.parent) == pytest.approx(
        {"cat": 0.6, "dog": 0.3, "eel, smoked": 0.1}
    )


def test_words_stand_for_priors() -> None:
    assert prior_files.prior_of_word("uniform", [5, 0, 5], CLASSES, where="--prior") == pytest.approx([1 / 3] * 3)
    assert prior_files.prior_of_word("train", [5, 3, 2], CLASSES, where="--prior") == pytest.approx([0.5, 0.3, 0.2])
    with pytest.raises(UserError, match=r"^--prior: train has no image of dog, whose prior would be 0; allowed: uni"):
        prior_files.prior_of_word("train", [5, 0, 5], CLASSES, where="--prior")
