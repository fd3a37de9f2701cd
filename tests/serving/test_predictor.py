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
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError
from ltrec.serving.model_card import ModelCard
from ltrec.serving.predictor import Predictor, run_predict

if TYPE_CHECKING:
    from collections.abc import Sequence

CLASSES = ("red", "green", "blue, or so")
CARD = ModelCard(
    classes=CLASSES,
    geometry=Geometry(size=4, resize=4),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    method="crt",
    variant="crt",
)

# A logit is a hundredth of a channel's mean, so one channel at 255 and two at 0 have e^2.55 = 12.8071 against 1 and 1.
BRIGHT = 12.8071 / 14.8071
DARK = 1 / 14.8071


def write_model(
    path: Path,
    *,
    metadata: dict[str, str] | None = None,
    classes: int = 3,
    output: str = "logits",
    scale: float = 0.01,
) -> Path:
    """A model whose logits are the mean of each channel, divided by 100."""
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "hundredth"], [output]),
        helper.make_node("Softmax", [output], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 4, 4, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", classes])
            for name in (output, "probabilities")
        ],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("hundredth", TensorProto.FLOAT, [], [scale]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, CARD.to_metadata() if metadata is None else metadata)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx")


def paint(path: Path, colour: tuple[int, int, int]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), colour).save(path)
    return str(path)


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


def refused(path: Path, metadata: dict[str, str] | None, **shape: Any) -> str:
    write_model(path, metadata=metadata, **shape)
    with pytest.raises(UserError) as caught:
        Predictor(path)
    assert caught.value.where == str(path)
    return caught.value.what


def without(metadata: dict[str, str], *keys: str) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key not in keys}


def test_a_file_from_before_there_was_a_choice_resizes_as_it_did() -> None:
    metadata = CARD.to_metadata()
    preprocessing = json.loads(metadata["preprocessing"])
    del preprocessing["interpolation"]
    card = ModelCard.from_metadata(metadata | {"preprocessing": json.dumps(preprocessing)}, where="old.onnx")
    assert card.geometry.interpolation == "bicubic"


def test_foreign_and_damaged_files_are_refused(tmp_path: Path, model: Path) -> None:
    path, good = tmp_path / "other.onnx", CARD.to_metadata()
    assert "not one that `ltrec export` wrote" in refused(path, {})
    assert "in format 99" in refused(path, good | {"ltrec.format": "99", "ltrec.version": "7.0"})
    assert "its metadata is damaged" in refused(path, without(good, "classes"))
    assert "its metadata is damaged" in refused(path, good | {"classes": "[1,"})
    assert "its metadata is damaged" in refused(path, good | {"preprocessing": '{"size": 0, "resize": 4}'})
    assert "do not fit" in refused(path, good | {"classes": '["red", "green"]'})
    assert "do not fit" in refused(path, None, output="scores")
    assert "do not fit" in refused(path, None, classes=4)
    whole = model.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b"", b"PK\3\4 something else"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"damaged, or not an ONNX model|not one that `ltrec export` wrote"):
            Predictor(path)


def preprocessing(**changed: Any) -> dict[str, str]:
    written = json.loads(CARD.to_metadata()["preprocessing"])
    return {"preprocessing": json.dumps(written | changed)}


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"classes": '"red"'}, "is not a list"),
        ({"classes": "[1, 2, 3]"}, "are not names"),
        ({"classes": "[]"}, "are not names"),
        ({"classes": '["red", "green", "\\ud800"]'}, "surrogates not allowed"),
        ({"classes": DEEP}, "recursion"),
        ({"classes": f"[{'9' * 5000}]"}, "4300 digits"),
        ({"classes": '["' + "a" * 2**24 + '"]'}, "an entry of 16,777,220 characters"),
        ({"preprocessing": "[]"}, "is not a dict"),
        ({"preprocessing": DEEP}, "recursion"),
        (preprocessing(size=10**9, resize=10**9), "from size, 1000000000, to 4096"),
        (preprocessing(resize=10**9), "from size, 4, to 4096, got 1000000000"),
        (preprocessing(resize=10**4000), "got 1000"),
        (preprocessing(resize=3), "from size, 4"),
        (preprocessing(size=True), "size: "),
        (preprocessing(size=4.0), "size: "),
        (preprocessing(mean="abc"), "three numbers"),
        (preprocessing(mean=[0.5]), "three numbers"),
        (preprocessing(std=[float("nan")] * 3), "finite"),
        (preprocessing(std=[10**400] * 3), "too large"),
        ({"precision": "fp8"}, "fp32, fp16, int8"),
        ({"unknown_below": "nan"}, "from 0 to 1"),
        ({"unknown_below": "much"}, "could not convert"),
        ({"ltrec.format": "2\nerror: all is lost" * 10_000}, "in format 2 error: all is lost"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else next(iter(value)),
)
def test_odd_metadata_ends_in_one_short_line(tmp_path: Path, changed: dict[str, str], told: str) -> None:
    what = refused(tmp_path / "odd.onnx", CARD.to_metadata() | changed)
    assert told in what
    assert len(what) < 500
    assert len(what.splitlines()) == 1


@pytest.mark.parametrize("text", [b"green", b"images", b"probabilities"])
def test_a_name_in_the_file_that_is_no_utf8(tmp_path: Path, model: Path, text: bytes) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(model.read_bytes().replace(text, b"\xff" + text[1:]))
    with pytest.raises(UserError, match=r"odd\.onnx: damaged, or not an ONNX model"):
        Predictor(path)


@pytest.mark.parametrize(
    ("operator", "told"),
    [
        # A fourth of three channels.
        (helper.make_node("Gather", ["means", "places"], ["logits"], axis=1), r"cannot be run \(.*out of data bounds"),
        # Two rows, whatever the number of images.
        (
            helper.make_node("Identity", ["rows"], ["logits"]),
            r"gives outputs of shapes \(2, 3\) .* not \(1, 3\)",
        ),
    ],
)
def test_a_file_that_loads_and_fails(
    tmp_path: Path, model: Path, red: str, operator: onnx.NodeProto, told: str
) -> None:
    broken = onnx.load(model)
    broken.graph.node[2].CopyFrom(operator)
    values = [helper.make_tensor("rows", TensorProto.FLOAT, [2, 3], [0.0] * 6)]
    values.append(helper.make_tensor("places", TensorProto.INT64, [3], [0, 1, 3]))
    broken.graph.initializer.extend(values)
    onnx.save(broken, tmp_path / "broken.onnx")
    with pytest.raises(UserError, match=rf"broken\.onnx: {told}") as caught:
        run_predict([red], model=tmp_path / "broken.onnx", output_format="csv")
    assert len(str(caught.value).splitlines()) == 1


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
