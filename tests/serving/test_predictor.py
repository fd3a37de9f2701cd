"""Prediction from an ONNX file alone; the files here are made by hand, so that every figure follows from the pixels."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ltrec.errors import UserError
from ltrec.serving.predictor import Predictor, run_predict
from tests.serving.colours import CARD, CLASSES, paint, write_model

if TYPE_CHECKING:
    from collections.abc import Sequence

# A logit is a hundredth of a channel's mean, so one channel at 255 and two at 0 have e^2.55 = 12.8071 against 1 and 1.
BRIGHT = 12.8071 / 14.8071
DARK = 1 / 14.8071


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture
def red(tmp_path: Path) -> str:
    return paint(tmp_path / "red.png", (255, 0, 0))


@pytest.fixture
def blue(tmp_path: Path) -> str:
    return paint(tmp_path / "blue.png", (0, 0, 255))


def as_json(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return list(json.loads(capsys.readouterr().out))


def test_card_survives_the_file(model: Path) -> None:
    assert Predictor(model).card == CARD


@pytest.mark.parametrize("count", [1, 2, 33])
def test_run_takes_any_batch(model: Path, count: int) -> None:
    images = np.zeros((count, 4, 4, 3), np.uint8)
    images[..., 0] = 200
    logits, probabilities = Predictor(model).run(images)
    assert logits == pytest.approx(np.tile([2, 0, 0], (count, 1)))
    share = math.exp(2) / (math.exp(2) + 2)
    assert probabilities == pytest.approx(np.tile([share, (1 - share) / 2, (1 - share) / 2], (count, 1)))


def test_predict_keeps_the_order_over_many_batches(model: Path, tmp_path: Path, red: str, blue: str) -> None:
    missing = tmp_path / "missing.png"
    files = [Path(red), Path(blue), missing] * 25
    predictions = list(Predictor(model, threads=3).predict(files))
    assert [prediction.file for prediction in predictions] == files
    best = [None if each.probabilities is None else int(each.probabilities.argmax()) for each in predictions]
    assert best == [0, 2, None] * 25
    assert predictions[2].problem == "cannot be read (No such file or directory)"


def test_json(model: Path, red: str, blue: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_predict([red, blue], model=model, output_format="json", top=2)
    first, second = as_json(capsys)
    assert first == {
        "path": red,
        "class": "red",
        "probability": pytest.approx(BRIGHT, abs=1e-5),
        "top": [
            {"class": "red", "probability": pytest.approx(BRIGHT, abs=1e-5)},
            {"class": "green", "probability": pytest.approx(DARK, abs=1e-5)},
        ],
    }
    assert (second["path"], second["class"]) == (blue, "blue, or so")


def test_csv_has_a_pair_of_columns_for_each_place(
    model: Path, red: str, blue: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_predict([red, blue], model=model, output_format="csv", top=2)
    header, first, second = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["path", "class", "probability", "class_2", "probability_2"]
    assert (first[0], first[1], first[3]) == (red, "red", "green")
    assert [float(first[2]), float(first[4])] == pytest.approx([BRIGHT, DARK], abs=1e-5)
    assert second[:2] == [blue, "blue, or so"]


def test_table_names_image_class_and_probability(
    model: Path, blue: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run_predict([Path(blue).name], model=model, top=2)
    out = capsys.readouterr().out
    assert "blue.png" in out
    assert "blue, or so" in out
    assert "86.5%" in out
    assert "red 6.8%" in out


def test_what_the_threshold_rejects_is_called_unknown(
    tmp_path: Path, red: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = paint(tmp_path / "dark.png", (0, 0, 0))  # a third for each class
    card = dataclasses.replace(CARD, unknown_below=0.5)
    model = write_model(tmp_path / "open.onnx", metadata=card.to_metadata())
    assert Predictor(model).card == card
    run_predict([red, dark], model=model, output_format="json")
    assert [(each["class"], each["unknown"]) for each in as_json(capsys)] == [("red", False), ("red", True)]
    run_predict([red, dark], model=model, output_format="csv", top=1)
    header, first, second = csv.reader(io.StringIO(capsys.readouterr().out))
    assert (header[-1], first[-1], second[-1]) == ("unknown", "0", "1")
    monkeypatch.chdir(tmp_path)
    run_predict(["dark.png"], model=model)
    assert "unknown (red?)" in capsys.readouterr().out


def test_the_card_says_what_a_user_must_know_of_the_backbone(tmp_path: Path) -> None:
    geometry = CARD.geometry.model_copy(update={"crop": "squash"})
    card = dataclasses.replace(CARD, geometry=geometry, weights_license="cc-by-nc-4.0")
    metadata = card.to_metadata()
    assert json.loads(metadata["preprocessing"])["crop"] == "squash"
    assert metadata["weights_license"] == "cc-by-nc-4.0"
    assert Predictor(write_model(tmp_path / "model.onnx", metadata=metadata)).card == card
    assert "weights_license" not in CARD.to_metadata()


def test_top_is_at_most_every_class(model: Path, red: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_predict([red], model=model, output_format="json", top=99)
    assert [entry["class"] for entry in as_json(capsys)[0]["top"]] == list(CLASSES)


def test_folders_are_taken_with_all_below_them_in_order(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    for name in ("b/1.png", "a.png", "b/0.png", ".hidden.png", ".git/2.png"):
        paint(folder / name, (0, 255, 0))
    (folder / "notes.txt").write_text("no image")
    (folder / "loop").symlink_to(folder)
    run_predict([str(folder)], model=model, output_format="json")
    out, err = capsys.readouterr()
    assert [entry["path"] for entry in json.loads(out)] == [
        f"{folder}/{name}" for name in ("a.png", "b/0.png", "b/1.png")
    ]
    assert f"{folder}/notes.txt: not an image" in err


def loader(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_list_on_stdin(
    model: Path,
    red: str,
    blue: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loader(monkeypatch, f"{red}\r\n\n  \r\n{blue}".encode())
    run_predict(["-"], model=model, output_format="json")
    assert [entry["path"] for entry in as_json(capsys)] == [red, blue]


def test_an_unreadable_named_image_fails_at_the_end(
    model: Path, tmp_path: Path, red: str, blue: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(red).read_bytes()[:40])
    with pytest.raises(UserError, match=r"^predict: 1 of 3 files could not be read$"):
        run_predict([red, str(broken), blue], model=model, output_format="json")
    out, err = capsys.readouterr()
    assert [entry["class"] for entry in json.loads(out)] == ["red", "blue, or so"]
    assert str(broken) in err


@pytest.mark.parametrize(("output_format", "printed"), [("json", []), ("csv", None), ("table", None)])
def test_a_folder_without_images_fails(
    model: Path, tmp_path: Path, output_format: Any, printed: list[Any] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="1 of 1 files could not be read"):
        run_predict([str(tmp_path)], model=model, output_format=output_format)
    out = capsys.readouterr().out
    if printed is not None:
        assert json.loads(out) == printed
    else:
        assert len(out.splitlines()) == (output_format == "csv")


def test_a_list_separated_by_nul(
    model: Path, tmp_path: Path, blue: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = paint(tmp_path / "two\nlines \r\n.png", (255, 0, 0))
    loader(monkeypatch, f"{odd}\0\0{blue}".encode())
    run_predict(["-"], model=model, output_format="json", null=True)
    assert [(entry["path"], entry["class"]) for entry in as_json(capsys)] == [(odd, "red"), (blue, "blue, or so")]
    with pytest.raises(UserError, match="give - to read one"):
        run_predict([blue], model=model, null=True)
    loader(monkeypatch, b"a.png\n" * 20_000)
    with pytest.raises(UserError, match="not separated by NUL bytes"):
        run_predict(["-"], model=model, null=True)


def test_numbers_that_are_not_finite_are_an_error_that_names_the_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 3e38 · 255 is infinite, and 0 is not: softmax(∞, 0, 0) is no number.
    model = write_model(tmp_path / "model.onnx", scale=3e38)
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 0, 0)), ("c", (0, 255, 0))):
        paint(tmp_path / "images" / f"{name}.png", colour)
    with pytest.raises(UserError, match=r"gives numbers that are not finite for 2 of 3 files: .*/a\.png, .*/c\.png$"):
        run_predict([str(tmp_path / "images")], model=model, output_format="json")
    out, err = capsys.readouterr()
    assert [Path(entry["path"]).name for entry in json.loads(out)] == ["b.png"]
    assert "a.png: the model gives numbers that are not finite" in err


def test_an_image_that_is_no_regular_file_is_one_that_cannot_be_read(
    model: Path, red: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="1 of 2 files could not be read"):
        run_predict([os.devnull, red], model=model, output_format="json")
    out, err = capsys.readouterr()
    assert [entry["path"] for entry in json.loads(out)] == [red]
    assert f"{os.devnull}: " in err


def test_nothing_given_fails(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader(monkeypatch, b"")
    with pytest.raises(UserError, match="no images given"):
        run_predict([str(tmp_path), "-"], model=model)


def test_missing_model_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.onnx: no such model file; `ltrec export --onnx` writes it"):
        Predictor(tmp_path / "none.onnx")


def in_a_process(arguments: Sequence[str], **environment: str) -> subprocess.CompletedProcess[bytes]:
    code = (
        "import sys; from pathlib import Path; from ltrec.serving.predictor import run_predict\n"
        "run_predict(sys.argv[2:], model=Path(sys.argv[1]), output_format='csv', top=1)\n"
        "print([name for name in ('torch', 'torchvision', 'onnx', 'mlflow', 'sklearn') if name in sys.modules])"
    )
    env = os.environ | environment
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=True, env=env)


@pytest.mark.slow
def test_needs_no_torch(model: Path, red: str) -> None:
    lines = in_a_process([str(model), red]).stdout.decode().splitlines()
    assert lines[1].startswith(f"{red},red,0.8649")
    assert lines[2] == "[]"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks where onnxruntime keeps its reports on Linux")
def test_nobody_is_told(model: Path, red: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where reports may go out, onnxruntime keeps an identifier of the machine.
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI"):
        monkeypatch.delenv(name, raising=False)
    in_a_process([str(model), red], HOME=str(tmp_path))
    assert not list(tmp_path.rglob("deviceid"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow only UTF-8 names")
def test_a_name_that_is_no_utf8_leaves_as_it_came(model: Path, tmp_path: Path, red: str) -> None:
    name = bytes(tmp_path) + b"/caf\xe9.png"
    Path(red).rename(name.decode(errors="surrogateescape"))
    assert name + b",red," in in_a_process([str(model), str(tmp_path)]).stdout
