"""From a network, heads and lists to a checked ONNX file."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from ltrec import artifacts
from ltrec.artifacts import Layout
from ltrec.config.export import ExportSettings
from ltrec.data.image_lists import read_list
from ltrec.data.images import decoding
from ltrec.data.images.decoding import Geometry
from ltrec.errors import UserError
from ltrec.models import heads, network
from ltrec.models.backbones import CifarResNetBackbone
from ltrec.rebalancing import feature_bank
from ltrec.serving import onnx_export, parity
from ltrec.serving.abstaining import AbstainSettings
from ltrec.serving.parity import OverflowedError, Parity
from ltrec.serving.predictor import Predictor
from ltrec.serving.seal import sealed
from ltrec.stages import export as stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltrec.compute.precision import Precision
    from ltrec.config.params import Params

CLASSES = ("cat", "dog", "eel")
VAL, TRAIN = 4, 6
GOOD = Parity(100, 1.0, 1e-6, 1e-7, 1.0, {"pytorch": 0.9, "onnx": 0.9})


class FakeRun:
    """Remembers what the stage tells MLflow."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}

    def params(self, mapping: dict[str, Any]) -> None:
        self.told["params"] = mapping

    def metrics(self, mapping: dict[str, float]) -> None:
        self.told["metrics"] = mapping

    def file(self, path: Path) -> None:
        self.told["file"] = path

    def model(self, path: Path) -> None:
        self.told["model"] = path


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    run = FakeRun()

    @contextlib.contextmanager
    def stage_run(_params: Params, name: str) -> Iterator[FakeRun]:
        run.told["stage"] = name
        yield run

    monkeypatch.setattr(stage.recording, "stage_run", stage_run)
    return run


def write_split(split: str, per_class: int) -> None:
    """Colourful noise; the split is part of the path."""
    draw = np.random.default_rng(per_class)
    lines = []
    for label, name in enumerate(CLASSES):
        for n in range(per_class):
            path = Path("data", split, name, f"{n}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(path)
            lines.append(f"{split}/{name}/{n}.png {label}\n")
    artifacts.write_text(Layout().root / "prepare" / f"{split}.txt", "".join(lines))
    artifacts.write_text(Layout().root / "prepare" / f"{split}.digest.txt", artifacts.digest(lines) + "\n")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: FakeRun) -> Layout:  # noqa: ARG001
    """A project after `evaluate`, without any test split: the export has no business there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    layout = Layout()
    write_split("train", TRAIN)
    write_split("val", VAL)
    artifacts.write_text(layout.classes, "".join(f"{name}\n" for name in CLASSES))
    torch.manual_seed(0)
    backbone = CifarResNetBackbone(name="cifar_resnet8")
    built = network.build(backbone, Geometry(size=16, resize=18), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), len(CLASSES))
    built.weights_license = "cc-by-nc-4.0"
    network.save(
        built,
        layout.model,
        backbone=backbone,
        header={
            "classes": artifacts.digest(layout.classes),
            "images": artifacts.digest(layout.split_digest("train")),
        },
    )
    heads.save(built.head, layout.head("joint"), representation=artifacts.digest(layout.model))
    heads.save(
        heads.NearestMeanHead(torch.randn(3, 64), torch.zeros(64), "l2n", "cosine"),
        layout.head("ncm"),
        representation=artifacts.digest(layout.model),
    )
    artifacts.write_json(layout.evaluation_metrics, {"champion": "ncm"})
    write_val_bank(layout)
    return layout


def write_val_bank(layout: Layout, precision: Precision = "fp32") -> None:
    """As `featurize` does."""
    listed, built = read_list(layout.split_list("val"), len(CLASSES)), network.load(layout.model)
    squares = [decoding.square(decoding.decode_rgb(Path("data", path)), built.geometry) for path in listed.paths]
    features = network.predict_features(built, torch.from_numpy(np.stack(squares)), precision)
    header = {
        "representation": artifacts.digest(layout.model),
        "images": artifacts.digest(layout.split_digest("val")),
    }
    with feature_bank.writing(layout.features("val"), listed.labels, views=1, dim=64, header=header) as bank:
        bank[0] = features.numpy()


def make_params(**settings: Any) -> Params:
    variants = {name: SimpleNamespace(method=name) for name in ("joint", "ncm")}
    return SimpleNamespace(  # type: ignore[return-value]
        rebalance=variants,
        export=ExportSettings(**settings),
        prepare=SimpleNamespace(source=SimpleNamespace(root="data")),
    )


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray[Any, Any] | None]:
    """The exporter and the comparison replaced: for what is around them; holds the calibration images given."""
    given: list[np.ndarray[Any, Any] | None] = []

    class Model:
        def SerializeToString(self, **_options: Any) -> bytes:  # noqa: N802 - protobuf's name
            return b"a model"

    def export(*_: Any, calibration: Any, **__: Any) -> Model:
        given.append(calibration)
        return Model()

    monkeypatch.setattr(onnx_export, "export", export)
    monkeypatch.setattr(parity, "compare", lambda *_, **__: GOOD)
    monkeypatch.setattr("ltrec.serving.predictor.Predictor", lambda _: SimpleNamespace(run=None))
    return given


def left_over(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.slow
def test_the_stage_writes_the_champion_and_its_figures(project: Layout, record: FakeRun) -> None:
    stage.run(make_params())
    predictor = Predictor(project.onnx)
    assert predictor.card.classes == CLASSES
    assert predictor.card.geometry == Geometry(size=16, resize=18)
    assert predictor.card.mean == (0.5, 0.4, 0.3)
    assert predictor.card.weights_license == "cc-by-nc-4.0"
    assert (predictor.card.variant, predictor.card.method, predictor.card.precision) == ("ncm", "ncm", "fp32")
    figures = artifacts.read_json(project.onnx_check)
    assert figures["variant"] == "ncm"
    assert figures["images"] == VAL * len(CLASSES)
    assert figures["bytes"] == project.onnx.stat().st_size
    assert figures["agreement"] == 1
    assert 0 <= figures["logit_difference"] <= 1e-4
    assert 0 <= figures["evaluated_difference"] <= 1e-4
    assert (figures["precision"], figures["opset"]) == ("fp32", 20)
    assert set(figures["accuracy"]) == {"pytorch", "onnx"}
    assert left_over(project.onnx.parent) == ["check.json", "model.onnx"]
    onnx.save(onnx.load(project.onnx), "logged.onnx")  # as MLflow does
    assert Predictor(Path("logged.onnx")).card == predictor.card
    altered = Path("altered.onnx")
    altered.write_bytes(project.onnx.read_bytes().replace(b'"eel"', b'"fox"'))
    with pytest.raises(UserError, match=r"altered\.onnx: was altered after `ltrec export` wrote it"):
        Predictor(altered)
    assert (record.told["stage"], record.told["model"]) == ("export", project.onnx)
    assert record.told["metrics"]["export/accuracy/onnx"] == figures["accuracy"]["onnx"]

    # What is served is what PyTorch says of the same file.
    whole = network.load(project.model, head=project.head("ncm"))
    file = Path("data/val/dog/1.png")
    pixels = decoding.square(decoding.decode_rgb(file), whole.geometry)
    with torch.inference_mode():
        wanted = torch.softmax(whole(torch.from_numpy(pixels.copy())[None]), dim=1)[0].numpy()
    [prediction] = predictor.predict([file])
    assert prediction.probabilities == pytest.approx(wanted, abs=1e-5)


@pytest.mark.slow
def test_the_file_is_compared_with_what_was_evaluated(project: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    write_val_bank(project, "bf16")
    stage.run(make_params())
    figures = artifacts.read_json(project.onnx_check)
    assert figures["logit_difference"] <= 1e-4 < figures["evaluated_difference"]
    assert "from those that were evaluated" in (said := capsys.readouterr().err)
    assert "params.yaml: featurize.precision" in said


@pytest.mark.slow
def test_another_variant_and_precision_go_elsewhere(project: Layout, record: FakeRun) -> None:
    stage.run(make_params(min_agreement=0), variant="joint", precision="int8")
    stage.run(make_params(min_agreement=0), precision="fp16", output=Path("new/mine.onnx"))
    assert Predictor(Path("joint-int8.onnx")).card.variant == "joint"
    assert Predictor(Path("new/mine.onnx")).card.precision == "fp16"
    assert not project.onnx.parent.exists()
    assert not record.told, "only the stage is tracked"


@pytest.mark.slow
def test_another_prior_and_abstaining_through_the_file(project: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    artifacts.write_json(project.head_metrics("ncm"), {"chosen": {"temperature": 1.0}})
    stage.run(make_params(), variant="ncm", output=Path("own.onnx"))
    asked = {"prior": {"cat": 7.0, "dog": 2.0, "eel": 1.0}, "abstain": AbstainSettings(coverage=0.5)}
    stage.run(make_params(), variant="ncm", output=Path("other.onnx"), **asked)
    own, other = Predictor(Path("own.onnx")), Predictor(Path("other.onnx"))
    assert own.card.class_counts == other.card.class_counts == (TRAIN, TRAIN, TRAIN)
    assert own.card.head_prior == other.card.head_prior == pytest.approx([1 / 3] * 3)
    assert (own.card.prior, other.card.prior) == (None, pytest.approx([0.7, 0.2, 0.1]))
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    shift = np.log([2.1, 0.6, 0.3])
    assert other.run(images)[0] == pytest.approx(own.run(images)[0] + shift, abs=1e-4)
    assert "the priors sum to 10, and are divided by it" in (said := capsys.readouterr().err)
    assert "for the class prior given; no answer below" in said

    # Half of val, which counts by the prior, is answered; and the user's own `--prior uniform` takes the shift back.
    files = read_list(project.split_list("val"), len(CLASSES))
    answers = list(other.predict([Path("data", path) for path in files.paths]))
    weights = np.array([0.7, 0.2, 0.1])[files.labels] / VAL
    answered = weights[[not each.abstained for each in answers]].sum()
    assert answered == pytest.approx(coverage_said(said), abs=1e-3)
    assert answered >= 0.5
    [wanted], [back] = (
        list(predictor.predict([Path("data/val/dog/1.png")], prior))
        for predictor, prior in ((own, None), (other, np.full(3, 1 / 3)))
    )
    assert back.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)


def coverage_said(said: str) -> float:
    found = re.search(r"leaves ([\d.]+)% answered", said)
    assert found is not None
    return float(found[1]) / 100


def test_what_check_says_of_the_deployment(project: Layout, untraced: list[Any]) -> None:
    assert not untraced
    artifacts.write_json(project.head_metrics("ncm"), {"chosen": {"temperature": 1.0}})
    stage.run(make_params(prior="train", abstain=AbstainSettings(coverage=0.5)))
    figures = artifacts.read_json(project.onnx_check)
    assert figures["prior"] == "train"
    assert figures["abstain_coverage"] >= 0.5 - 1e-9
    assert {"abstain_below", "abstain_error"} <= set(figures)


def test_without_a_temperature_there_is_no_abstaining(project: Layout) -> None:
    artifacts.write_json(project.head_metrics("ncm"), {"chosen": {}})
    mistake = refusal(make_params(), abstain=AbstainSettings(coverage=0.9))
    assert str(mistake).startswith("--abstain: abstaining needs calibrated probabilities")
    assert not project.onnx.exists()


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"variant": "joint"}, "joint.onnx"),
        ({"precision": "fp16"}, "ncm-fp16.onnx"),
        ({"variant": "champion"}, "ncm.onnx"),
        ({"prior": "uniform"}, "ncm.onnx"),
        ({"output": Path("deep/er/x.onnx")}, "deep/er/x.onnx"),
    ],
)
def test_where_a_requested_export_goes(project: Layout, asked: dict[str, Any], name: str) -> None:
    stage.run(make_params(), **asked)
    assert Path(name).read_bytes() == sealed(b"a model")
    assert not project.onnx.exists()


@pytest.mark.usefixtures("untraced")
def test_only_the_champion_is_registered(project: Layout, record: FakeRun) -> None:
    stage.run(make_params(variant="joint"))
    assert project.onnx.exists()
    assert "model" not in record.told


def test_calibration_sees_train_and_only_int8_does(
    project: Layout,  # noqa: ARG001
    untraced: list[np.ndarray[Any, Any] | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []
    decode = decoding.decode_square

    def remember(file: Path, *given: Any, **named: Any) -> np.ndarray[Any, Any]:
        read.append(file.as_posix())
        return decode(file, *given, **named)

    monkeypatch.setattr(decoding, "decode_square", remember)
    stage.run(make_params(precision="int8", calibration_images=3, check_images=2))
    # Spread over the list: first, middle and last of train, first and last of val.
    assert sorted(read) == [
        "data/train/cat/0.png",
        "data/train/dog/2.png",
        "data/train/eel/5.png",
        "data/val/cat/0.png",
        "data/val/eel/3.png",
    ]
    stage.run(make_params())
    assert [None if each is None else each.shape for each in untraced] == [(3, 16, 16, 3), None]


@pytest.mark.usefixtures("untraced")
def test_unknown_images_of_val_are_not_asked(project: Layout) -> None:
    known = project.split_list("val").read_text(encoding="utf-8")
    artifacts.write_text(project.split_list("val"), known + "nowhere/unknown.png -1\n")
    stage.run(make_params())
    artifacts.write_text(project.split_list("train"), known + "nowhere/unknown.png -1\n")
    assert "label -1 is out of range" in refusal(make_params(precision="int8")).what


@pytest.mark.slow
def test_an_earlier_good_file_stays_when_the_check_fails(project: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.run(make_params())
    project.onnx.write_bytes(b"good")
    before = project.onnx_check.read_bytes()
    monkeypatch.setattr(
        parity, "compare", lambda *_, **__: Parity(100, 2.0, 0.5, 0.1, 0.97, {"pytorch": 0.9, "onnx": 0.8})
    )
    with pytest.raises(UserError, match=r"97\.0% of 100 val images, largest logit difference 5\.00e-01"):
        stage.run(make_params())
    assert project.onnx.read_bytes() == b"good"
    assert project.onnx_check.read_bytes() == before
    assert left_over(project.onnx.parent) == ["check.json", "model.onnx"]


@pytest.mark.usefixtures("untraced", "project")
@pytest.mark.parametrize(("precision", "error"), [("fp16", UserError), ("fp32", OverflowedError)])
def test_numbers_that_are_not_finite(precision: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(*_: Any, **__: Any) -> Parity:
        raise OverflowedError("a batch of 1 gives logits that are not finite")

    monkeypatch.setattr(parity, "compare", compare)
    with pytest.raises(error, match="not finite"):
        stage.run(make_params(precision=precision))


def refusal(params: Params, **asked: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        stage.run(params, **asked)
    return caught.value


def test_mistakes(project: Layout) -> None:
    params = make_params()
    unknown = refusal(params, variant="lws")
    assert str(unknown) == "--variant: no such variant: lws; allowed: champion, joint, ncm"
    assert refusal(make_params(variant="lws")).where == "params.yaml: export.variant"
    assert "is a folder" in refusal(params, variant="ncm", output=Path("data")).what
    assert "belongs to the pipeline" in refusal(params, variant="ncm", output=project.onnx).what

    heads.save(heads.LinearHead(torch.zeros(3, 64), None), project.head("ncm"), representation="another")
    assert "belongs to another network" in refusal(params).what
    names = project.classes.read_text()
    project.classes.write_text(names + "emu\n")
    assert "knows 3 classes" in refusal(params).what
    artifacts.write_text(project.split_digest("train"), "other images\n")
    assert "belongs to another list of classes" in refusal(params).what
    project.classes.write_text(names)
    project.head("ncm").write_bytes(b"rubbish")
    assert "damaged" in refusal(params).what

    artifacts.write_json(project.evaluation_metrics, {"champion": "gone"})
    assert "its champion is 'gone'" in refusal(params).what
    artifacts.write_json(project.evaluation_metrics, {"ncm": {}})
    assert "names no champion" in refusal(params).what
    assert not project.onnx.parent.exists()


def test_an_image_that_changed_since_prepare(project: Layout) -> None:
    Path("data/val/cat/0.png").write_bytes(b"")
    mistake = refusal(make_params())
    assert mistake.where == "data/val/cat/0.png"
    assert "an empty file; has the data changed since `prepare`?" in mistake.what
    assert not project.onnx.exists()
