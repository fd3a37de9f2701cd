"""Made-up ONNX files given to `predict`: each ends in a result or in one line, soon and in little memory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError
from ltrec.serving import seal
from ltrec.serving.model_card import ModelCard
from ltrec.serving.predictor import run_predict
from tests.campaign.conftest import SEED

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from tests.campaign.conftest import Tally

EXAMPLES = int(os.environ.get("LTREC_CAMPAIGN_EXAMPLES") or 1250)
MOST_KIB = 2**21
CARD = ModelCard(
    ("red", "green", "blue"), Geometry(size=4, resize=4), (0.5,) * 3, (0.25,) * 3, "crt", "crt"
).to_metadata()

pytestmark = pytest.mark.campaign

campaign = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=timedelta(seconds=20),
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def usually(good: Any, odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what is right, so that what is odd elsewhere is reached."""
    return st.integers(0, 7).flatmap(lambda drawn: st.just(good) if drawn else odd)


# Text with lone surrogates and control characters; JSON in all its forms, numbers of 5,000 digits and deep nesting.
numbers = st.one_of(st.sampled_from([0, 3, 4, 4096, 10**9, 10**400, -1, True]), st.integers(), st.floats())
text = st.text(st.characters(), max_size=8)
values = st.recursive(
    st.one_of(st.none(), numbers, text),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=8,
)
vast = st.sampled_from(["[" * 100_000, '{"a":' * 50_000 + "0" + "}" * 50_000, "9" * 5000, "[" + "1" * 10**6 + "]"])
documents = st.one_of(values.map(json.dumps), vast, text)
sides = st.one_of(st.sampled_from([1, 4, 5, 64, 4096, 4097, 10**9, 10**30]), values)
preprocessing = st.one_of(
    st.dictionaries(st.sampled_from(["size", "resize"]), sides),
    st.dictionaries(st.sampled_from(["mean", "std", "colour"]), st.lists(numbers, min_size=2, max_size=4) | values),
).map(lambda changed: json.dumps(json.loads(CARD["preprocessing"]) | changed))
classes = st.lists(text, min_size=3, max_size=3).map(json.dumps)
entries = st.one_of(
    st.tuples(st.sampled_from([*CARD, seal.KEY]), documents),
    st.tuples(st.just("preprocessing"), preprocessing),
    st.tuples(st.just("classes"), classes),
    st.tuples(st.just("unknown_below"), numbers.map(repr)),
)
metadata = st.lists(entries, max_size=2).map(dict)

operators = st.sampled_from(
    [
        helper.make_node("Identity", ["rows"], ["logits"]),
        helper.make_node("Gather", ["means", "places"], ["logits"], axis=1),
        helper.make_node("Expand", ["means", "vast"], ["logits"]),
        helper.make_node("Log", ["rows"], ["logits"]),
        helper.make_node("Cast", ["means"], ["logits"], to=TensorProto.DOUBLE),
        helper.make_node("SequenceConstruct", ["means"], ["logits"]),
        helper.make_node("NoSuchOperator", ["means"], ["logits"]),
    ]
)
dims = st.sampled_from([0, 1, 64, 4096, 10**9, "side"])


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """A model that gives each channel's mean, or something else in its place, under odd names of its shapes."""
    side, count, batch = draw(usually(4, dims)), draw(usually(3, dims)), draw(usually("batch", dims))
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        draw(usually(helper.make_node("Identity", ["means"], ["logits"]), operators)),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    kind = draw(usually(TensorProto.FLOAT, st.sampled_from([TensorProto.DOUBLE, TensorProto.STRING])))
    graph = helper.make_graph(
        nodes, "colours",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, side, side, 3])],
        [helper.make_tensor_value_info(name, kind, [batch, count]) for name in ("logits", "probabilities")],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("places", TensorProto.INT64, [3], [0, 1, 7]),
            helper.make_tensor("vast", TensorProto.INT64, [2], [10**6, 3 * 10**6]),
            helper.make_tensor("rows", TensorProto.FLOAT, [1, 3], [-1.0, 0.0, 1.0]),
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for key, value in (CARD | draw(metadata)).items():
        model.metadata_props.add(key=key, value=value.encode("utf-8", "backslashreplace").decode())
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("campaign")
    Image.new("RGB", (6, 5), (255, 0, 0)).save(made / "red.png")
    return made


@pytest.fixture
def counted(tally: Tally) -> Tally:
    tally.seeds.append(str(SEED))
    return tally


def ends_well(folder: Path, content: bytes, output_format: Any, counted: Tally) -> None:
    model = folder / "model.onnx"
    model.write_bytes(content)
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(said):
            run_predict([str(folder / "red.png")], model=model, output_format=output_format)
    except UserError as error:
        line = str(error)
        assert len(line.splitlines()) == 1
        assert len(line) < 1000
        line.encode()
        counted.add("refused")
    else:
        counted.add("done")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MOST_KIB


formats = st.sampled_from(["table", "json", "csv"])


@hypothesis.seed(SEED)
@campaign
@hypothesis.given(model=models(), output_format=formats)
def test_metadata_and_graphs(folder: Path, counted: Tally, model: onnx.ModelProto, output_format: Any) -> None:
    ends_well(folder, model.SerializeToString(), output_format, counted)


@hypothesis.seed(SEED)
@campaign
@hypothesis.given(model=models(), change=st.binary(max_size=8), where=st.floats(0, 1), output_format=formats)
def test_bytes(
    folder: Path, counted: Tally, model: onnx.ModelProto, change: bytes, where: float, output_format: Any
) -> None:
    content = model.SerializeToString()
    start = round(where * len(content))
    ends_well(folder, seal.sealed(content[:start] + change + content[start + len(change) :]), output_format, counted)
