"""ONNX files that are foreign, damaged or made to confuse: each is refused in one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import TensorProto, helper

from ltrec.errors import UserError
from ltrec.serving.model_card import ModelCard
from ltrec.serving.predictor import Predictor, run_predict
from tests.serving.colours import CARD, paint, write_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx")


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
    assert (card.geometry.interpolation, card.geometry.crop) == ("bicubic", "centre")


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
        (preprocessing(crop="border"), "crop: "),
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
def test_a_file_that_loads_and_fails(tmp_path: Path, model: Path, operator: onnx.NodeProto, told: str) -> None:
    broken = onnx.load(model)
    broken.graph.node[2].CopyFrom(operator)
    values = [helper.make_tensor("rows", TensorProto.FLOAT, [2, 3], [0.0] * 6)]
    values.append(helper.make_tensor("places", TensorProto.INT64, [3], [0, 1, 3]))
    broken.graph.initializer.extend(values)
    onnx.save(broken, tmp_path / "broken.onnx")
    with pytest.raises(UserError, match=rf"broken\.onnx: {told}") as caught:
        run_predict([paint(tmp_path / "red.png", (255, 0, 0))], model=tmp_path / "broken.onnx", output_format="csv")
    assert len(str(caught.value).splitlines()) == 1
