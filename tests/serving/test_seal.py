"""A seal of bytes, against what onnx reads in the file, and what happens to it in the world."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import TensorProto, helper

from ltrec.errors import UserError
from ltrec.serving import seal
from ltrec.serving.predictor import Predictor

if TYPE_CHECKING:
    from pathlib import Path

KEY = "ltrec.sha256"


def content() -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    ])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"classes": '["a", "b"]'})
    return bytes(model.SerializeToString(deterministic=True))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(seal.sealed(content()))
    return path


def test_the_seal_is_an_entry_of_the_metadata(file: Path) -> None:
    model = onnx.load(file)
    onnx.checker.check_model(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata == {"classes": '["a", "b"]', KEY: hashlib.sha256(content()).hexdigest()}
    assert seal.require_intact(file)
    onnx.save(model, file)  # as MLflow does
    assert seal.require_intact(file)


def test_any_altered_byte_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    for place in [*range(0, len(whole), 7), len(whole) - 1]:
        copy = bytearray(whole)
        copy[place] ^= 1
        file.write_bytes(copy)
        if KEY.encode() in copy:
            with pytest.raises(UserError, match=r"model\.onnx: was altered after `ltrec export` wrote it"):
                seal.require_intact(file)
        else:
            assert not seal.require_intact(file)


def test_what_was_added_behind_the_seal_is_noticed(file: Path) -> None:
    model = onnx.load(file)
    model.metadata_props.add(key="mean", value="0" * 100)
    onnx.save(model, file)
    with pytest.raises(UserError, match="was altered"):
        Predictor(file)


@pytest.mark.parametrize("written", [content(), b"", b"short"])
def test_a_file_without_a_seal(tmp_path: Path, written: bytes) -> None:
    path = tmp_path / "older.onnx"
    path.write_bytes(written)
    assert not seal.require_intact(path)
