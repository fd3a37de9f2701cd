"""The whole stage over a bank of made-up features, four images a class."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ltrec import artifacts
from ltrec.artifacts import Layout
from ltrec.config.params import Params
from ltrec.errors import UserError
from ltrec.models import heads
from ltrec.rebalancing import feature_bank as features
from ltrec.stages import evaluate

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYOUT = Layout()
COUNTS = (150, 60, 5)
# One feature a class: every image lies on its class's axis, but one of class 2, which lies on axis 0.
NETWORK = "digest of a network"
LABELS = np.repeat(np.arange(3), 4)
FEATURES = np.eye(3, dtype=np.float32)[[0] * 4 + [1] * 4 + [2] * 3 + [0]]
WEIGHTS = {"joint": torch.tensor([[3.0, 0, 2], [0, 2, 0], [0, 0, 1]]), "crt": torch.eye(3)}


class Recorder:
    """Stands where a run of the tracking stands."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str | None], list[tuple[str, Any]]] = {}

    @contextlib.contextmanager
    def stage_run(self, _params: object, stage: str, *, variant: str | None = None) -> Iterator[SimpleNamespace]:
        calls = self.calls.setdefault((stage, variant), [])
        yield SimpleNamespace(
            params=lambda content: calls.append(("params", content)),
            metrics=lambda content, step=None: calls.append(("metrics", content)),  # noqa: ARG005
            history=lambda rows, prefix: calls.append(("history", (prefix, len(rows)))),
            tags=lambda content: calls.append(("tags", content)),
            file=lambda path, folder="": calls.append(("file", f"{folder}/{Path(path).name}".strip("/"))),
        )

    def of(self, what: str, stage: str, variant: str | None = None) -> list[Any]:
        return [content for kind, content in self.calls[stage, variant] if kind == what]


@pytest.fixture(autouse=True)
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Recorder:
    """An empty project as the current folder, and nobody to track to."""
    monkeypatch.chdir(tmp_path)
    recorder = Recorder()
    monkeypatch.setattr(evaluate.recording, "stage_run", recorder.stage_run)
    monkeypatch.setattr(evaluate.vega, "provide", lambda folder: None)  # noqa: ARG005
    monkeypatch.setattr(evaluate.bank_findings, "write", lambda *given: None)  # noqa: ARG005 - see test_bank_findings.py
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(evaluate, "_draw", lambda *given: None)  # noqa: ARG005 - it takes a second
    artifacts.write_text(LAYOUT.classes, "ant\nbee\ncat\n")
    lines = [f"{label}/{image}.png {label}\n" for label, count in enumerate(COUNTS) for image in range(count)]
    artifacts.write_text(LAYOUT.split_list("train"), "".join(lines))
    artifacts.write_text(LAYOUT.split_list("val"), "a/own.png 0\n")
    for split in ("val", "test"):
        artifacts.write_text(LAYOUT.split_digest(split), "the images\n")
    artifacts.write_text(
        LAYOUT.split_list("test"), "".join(f"{image}.png {label}\n" for image, label in enumerate(LABELS))
    )
    with features.writing(LAYOUT.features("test"), LABELS, views=1, dim=3, header=made_from()) as bank:
        bank[0] = FEATURES
    with features.writing(LAYOUT.features("val"), LABELS, views=1, dim=3, header=made_from()) as bank:
        bank[0] = FEATURES
    artifacts.write_csv(LAYOUT.history, [{"epoch": 1, "loss": 0.5, "accuracy": 0.8, "val": 0.6, "lr": 0.1}])
    save("joint", heads.LinearHead(WEIGHTS["joint"], None), 0.6)
    save("crt", heads.LinearHead(WEIGHTS["crt"], None), 0.9)
    save("ncm", heads.NearestMeanHead(torch.eye(3), torch.zeros(3), "un", "euclidean"), 0.9)
    return recorder


@pytest.fixture
def drawn() -> None:
    """For tests that look at images; the others do without, since drawing takes a second."""


def made_from() -> dict[str, object]:
    return {"representation": NETWORK, "images": artifacts.digest(LAYOUT.split_digest("test"))}


def save(variant: str, head: heads.Head, val: float, log_likelihood: float = -1.0, **more: object) -> None:
    heads.save(head, LAYOUT.head(variant), representation=NETWORK)
    on_val = {"all": val, "balanced": val, "log_likelihood": log_likelihood}
    content = {"method": variant, "val": on_val, "chosen": {}, "curve": [], **more}
    artifacts.write_json(LAYOUT.head_metrics(variant), content)


def run(*variants: str, **settings: object) -> dict[str, Any]:
    """Run the stage; variants are named as their methods, but for what follows a hyphen."""
    params = {
        "represent": {"backbone": {"name": "cifar_resnet8"}},
        "rebalance": {name: {"method": name.partition("-")[0]} for name in variants},
        "evaluate": {"bootstrap": 25, "plots": {"dpi": 50}, **settings},
    }
    evaluate.run(Params.model_validate_json(json.dumps(params)))
    return dict(json.loads(LAYOUT.evaluation_metrics.read_text(encoding="utf-8")))


def table(name: str) -> list[dict[str, str]]:
    with (LAYOUT.plots / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_figures_by_hand() -> None:
    found = run("joint", "crt")
    # joint takes all of class 2 for class 0: logits (2, 0, 1); crt only the one that lies there.
    assert {name: found["joint"][name] for name in ("many", "medium", "few", "all", "balanced", "top5")} == {
        "many": 1.0, "medium": 1.0, "few": 0.0, "all": pytest.approx(8 / 12), "balanced": pytest.approx(2 / 3),
        "top5": None,
    }  # fmt: skip
    assert found["crt"]["few"] == 0.75
    # F1 of crt: 2·4 / (4 + 5), 1, 2·3 / (4 + 3).
    assert found["crt"]["macro_f1"] == pytest.approx((8 / 9 + 1 + 6 / 7) / 3)
    # crt alone is right on three images: p = 2 / 2³.
    assert found["crt"]["p_value_against_joint"] == pytest.approx(0.25)
    assert found["crt"]["discordant"] == {"better": 3, "worse": 0}
    assert found["joint"]["p_value_against_joint"] is None
    low, high = found["crt"]["interval"]["few"]
    assert low < 0.75 < high


def test_calibration_by_hand() -> None:
    found = run("joint", "crt")["crt"]
    # Each image has the logits 1, 0, 0 with 1 at the axis it lies on: p = e / (e + 2) = .576 for that, .212 for the
    # others. 11 of 12 are right; bin 9 of 15, (.533, .6], holds them all, and no order tells them apart.
    p, rest = math.e / (math.e + 2), 1 / (math.e + 2)
    assert found["nll"] == pytest.approx(-(11 * math.log(p) + math.log(rest)) / 12)
    assert found["ece"] == pytest.approx(11 / 12 - p)
    assert found["aurc"] == pytest.approx(1 / 12)
    # By class, sums over 12 images of p_j − [y = j]: at bin 9, of the images on its axis, and at bin 4, of the others.
    gaps = [
        abs(5 * p - 4) + 7 * rest,  # class 0, on whose axis an image of class 2 lies
        abs(4 * p - 4) + 8 * rest,
        abs(3 * p - 3) + abs(9 * rest - 1),
    ]
    assert found["classwise_ece"] == pytest.approx(sum(gaps) / 12 / 3)
    assert "| crt | " in (LAYOUT.evaluation / "table.md").read_text(encoding="utf-8").split("| variant | NLL |")[1]


def test_the_champion_is_doubted(recorder: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("joint", "crt", "ncm", bootstrap=200)
    # On val crt and ncm are right on the same images, joint on fewer: the two share every resample.
    assert [found[name]["best_on_val"] for name in ("crt", "ncm")] == pytest.approx([0.5, 0.5], abs=0.01)
    assert found["champion_doubt"] == pytest.approx(0.5, abs=0.01)
    assert "(best in 50 % of resamples of val)" in " ".join(capsys.readouterr().out.split())
    assert recorder.of("metrics", "evaluate")[0]["champion_doubt"] == found["champion_doubt"]
    assert recorder.of("metrics", "rebalance", "ncm")[0]["best_on_val"] == found["ncm"]["best_on_val"]
    assert "champion_doubt" not in recorder.of("metrics", "rebalance", "ncm")[0]
    undoubted = run("joint", "crt", bootstrap=0)
    assert undoubted["champion_doubt"] is None
    assert "best_on_val" not in undoubted["crt"]


def test_the_simplest_of_equals_may_be_preferred() -> None:
    assert run("joint", "crt", "ncm")["champion"] == "crt"
    assert run("joint", "crt", "ncm", prefer="simplest")["champion"] == "ncm"
    note = (LAYOUT.evaluation / "table.md").read_text(encoding="utf-8")
    assert "★ champion by balanced accuracy on val, the simplest within one standard error of crt (best in" in note


def test_p_values_of_several_variants_are_adjusted() -> None:
    found = run("joint", "crt", "ncm")
    assert [found[name]["p_value_against_joint"] for name in ("crt", "ncm")] == pytest.approx([0.25, 0.25])
    assert [found[name]["p_value_holm"] for name in ("crt", "ncm")] == pytest.approx([0.5, 0.5])


def test_champion_is_chosen_on_val_by_accuracy_then_likelihood_then_place() -> None:
    assert run("joint", "crt", "ncm")["champion"] == "crt"
    assert run("joint", "ncm", "crt")["champion"] == "ncm"
    save("ncm", heads.NearestMeanHead(torch.eye(3), torch.zeros(3), "un", "euclidean"), 0.9, log_likelihood=-0.5)
    assert run("joint", "crt", "ncm")["champion"] == "ncm"
    # On test joint is the worst, and still it wins if val says so.
    save("joint", heads.LinearHead(WEIGHTS["joint"], None), 0.95)
    assert run("joint", "crt")["champion"] == "joint"


def test_a_val_of_test_images_is_marked_wherever_figures_go(
    recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("joint", "crt")["selected_on"] == "val"
    artifacts.write_text(LAYOUT.split_list("val"), LAYOUT.split_list("test").read_text(encoding="utf-8"))
    assert run("joint", "crt")["selected_on"] == "test"
    assert "selected on test" in (LAYOUT.evaluation / "table.md").read_text(encoding="utf-8")
    assert "selected on test" in " ".join(capsys.readouterr().out.split())
    assert recorder.of("tags", "evaluate")[-1]["selected_on"] == "test"
    for variant in ("joint", "crt"):
        assert recorder.of("tags", "rebalance", variant) == [
            {"selected_on": "val", "test_set": "the images"},
            {"selected_on": "test", "test_set": "the images"},
        ]


def test_without_joint_nothing_is_compared() -> None:
    found = run("crt", "ncm")
    assert found["crt"]["p_value_against_joint"] is None
    assert found["ncm"]["p_value_holm"] is None


def test_one_variant_without_intervals() -> None:
    assert run("joint", bootstrap=0)["joint"]["interval"]["all"] is None


def test_empty_group_is_null() -> None:
    found = run("joint", shots={"many_above": 1000, "few_below": 20})
    assert found["joint"]["many"] is None
    assert found["joint"]["interval"]["many"] is None


@pytest.mark.usefixtures("drawn")
def test_files_and_their_content() -> None:
    save("tau_norm", heads.LinearHead(WEIGHTS["crt"], None), 0.7, chosen={"tau": 1.0},
         curve=[{"tau": 0.0, "val": 0.5}, {"tau": 1.0, "val": 0.7}])  # fmt: skip
    save("lws", heads.ScaledHead(WEIGHTS["joint"], None, torch.tensor([1.0, -2.0, 3.0])), 0.6)
    run("joint", "tau_norm", "lws", "ncm")
    assert {path.name for path in (LAYOUT.plots / "images").iterdir()} == {
        "accuracy_by_rank.png", "groups.png", "confusion.png", "weight_norms.png", "tau_curve.png", "reliability.png",
        "risk_coverage.png",
    }  # fmt: skip
    assert [row["val"] for row in table("tau_curve")] == ["0.5", "0.7"]
    # LWS: |s_j|·‖w_j‖ with norms √13, 2, 1; NCM has no weights.
    norms = [float(row["norm"]) for row in table("weight_norms") if row["variant"] == "lws"]
    assert norms == pytest.approx([13**0.5, 4.0, 3.0])
    assert {row["variant"] for row in table("weight_norms")} == {"joint", "tau_norm", "lws"}
    assert len(table("accuracy_by_rank")) == 4 * 3
    assert "| joint |" in (LAYOUT.evaluation / "table.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("drawn")
def test_plots_without_data_leave_a_header_and_no_image() -> None:
    run("ncm")
    for name in ("tau_curve", "weight_norms"):
        assert (LAYOUT.plots / f"{name}.csv").read_text(encoding="utf-8").startswith("variant,")
        assert table(name) == []
        assert not (LAYOUT.plots / "images" / f"{name}.png").exists()


@pytest.mark.usefixtures("drawn")
def test_the_same_bytes_twice() -> None:
    def written() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in LAYOUT.evaluation.rglob("*") if path.is_file()}

    run("joint", "crt", "ncm")
    first = written()
    shutil.rmtree(LAYOUT.evaluation)
    run("joint", "crt", "ncm")
    assert len(first) == 16
    assert written() == first


def add_unknown(split: artifacts.Split, labels: list[int], rows: list[list[float]]) -> None:
    """A bank of known images on their axes, then what `rows` says, -1 each."""
    known = FEATURES if split == "test" else np.eye(3, dtype=np.float32)[labels]
    given = np.array(labels + [-1] * len(rows))
    with features.writing(LAYOUT.features(split), given, views=1, dim=3, header=made_from()) as bank:
        bank[0] = np.concatenate([known, np.array(rows, dtype=np.float32).reshape(-1, 3)])


# Nothing three times, and once what looks twice as much like class 0 as its own images do.
STRANGERS = [[0.0, 0, 0]] * 3 + [[2.0, 0, 0]]


def test_unknown_images_by_hand(capsys: pytest.CaptureFixture[str], recorder: Recorder) -> None:
    closed = run("joint", "crt")
    del closed["crt"]["best_on_val"]  # val becomes one image a class, which cannot be drawn otherwise
    add_unknown("test", LABELS.tolist(), STRANGERS)
    add_unknown("val", [0, 1, 2], [[0.0, 0, 0]])
    found = run("joint", "crt")
    opened = found["crt"].pop("openset")
    assert found["crt"] == closed["crt"], "what is known of the known images stays"
    # crt: logits e_j give the probability e / (e + 2) and the energy log(e + 2); nothing gives ⅓ and log 3; twice
    # axis 0 gives more than either. 12 known images, 11 of them right, are ahead of 3 of 4 strangers. On val the
    # threshold of the known images is best; on test it accepts one stranger: F = 2·11 / (12 + 11 + 1).
    share = math.e / (math.e + 2)
    figures = {"auroc": 0.75, "fpr95": 0.25, "f_measure": pytest.approx(22 / 24)}
    assert opened["msp"] == figures | {"threshold": pytest.approx(share)}
    assert opened["energy"] == figures | {"threshold": pytest.approx(math.log(math.e + 2))}
    # No softmax of three falls below .1: all four are accepted.
    assert opened["f_measure_at_0.1"] == pytest.approx(22 / 27)
    assert "| crt | msp | 75.0 | 25.0 | 91.7 | 0.5761 | 81.5 |" in (LAYOUT.evaluation / "table.md").read_text("utf-8")
    assert "12 known and 4 unknown test images" in " ".join(capsys.readouterr().out.split())
    for stage, variant in (("rebalance", "crt"), ("evaluate", None)):
        told = recorder.of("metrics", stage, variant)[-1]
        assert told["openset/energy/auroc"] == 0.75
        assert told["all"] == closed["crt"]["all"]


def test_without_unknown_images_on_val_no_threshold_is_chosen(recorder: Recorder) -> None:
    add_unknown("test", LABELS.tolist(), STRANGERS)
    add_unknown("val", [0, 1, 2], [])
    found = run("crt")
    assert found["crt"]["openset"]["msp"] == {"auroc": 0.75, "fpr95": 0.25, "f_measure": None, "threshold": None}
    assert "openset/msp/threshold" not in recorder.of("metrics", "rebalance", "crt")[0]


def test_the_choice_needs_the_bank_of_val() -> None:
    LAYOUT.features("val").unlink()
    with pytest.raises(UserError, match=r"val\.safetensors: no such file"):
        run("crt")


@pytest.mark.usefixtures("drawn")
def test_tracking_gets_every_variant_and_the_parent(recorder: Recorder) -> None:
    found = run("joint", "crt")
    assert recorder.of("metrics", "rebalance", "crt")[0]["few"] == found["crt"]["few"]
    assert "top5" not in recorder.of("metrics", "rebalance", "crt")[0]
    assert recorder.of("file", "rebalance", "joint") == ["per_class.csv"]
    assert recorder.of("history", "represent") == [("represent", 1)]
    assert {"champion": "crt", "selected_on": "val", "test_set": "the images"} in recorder.of("tags", "evaluate")
    wanted = {"metrics.json", "per_class.csv", "table.md", "plots/groups.png", "suspects.csv", "near_duplicates.csv"}
    assert wanted <= set(recorder.of("file", "evaluate"))


def test_folders_of_variants_that_are_named_no_more_go_under_dvc(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = LAYOUT.root / "rebalance" / "notes"
    kept.mkdir()
    (kept / "mine.txt").write_text("not an artifact", encoding="utf-8")
    run("joint")
    assert LAYOUT.head("crt").is_file()  # by hand, with other parameters, nothing is deleted
    monkeypatch.setenv("DVC_STAGE", "evaluate")
    run("joint")
    assert {path.name for path in (LAYOUT.root / "rebalance").iterdir()} == {"joint", "notes"}
    assert "removed artifacts/rebalance/crt" in capsys.readouterr().err


def test_table_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    run("joint", "crt")
    assert "crt ★" in capsys.readouterr().out


def test_a_head_for_another_network_is_refused() -> None:
    heads.save(heads.LinearHead(torch.eye(3), None), LAYOUT.head("crt"), representation="another")
    with pytest.raises(UserError, match=r"crt/head\.safetensors: belongs to another network .*`ltrec rebalance crt`"):
        run("joint", "crt")


def test_features_of_other_images_are_refused() -> None:
    artifacts.write_text(LAYOUT.split_digest("test"), "other images\n")
    with pytest.raises(UserError, match=r"test\.safetensors: belongs to another list of images .*`ltrec featurize`"):
        run("joint", "crt")


def test_figures_on_another_test_set_are_said_not_to_compare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def on(test_set: str) -> str:
        artifacts.write_text(LAYOUT.split_digest("test"), f"{test_set}\n")
        with features.writing(LAYOUT.features("test"), LABELS, views=1, dim=3, header=made_from()) as bank:
            bank[0] = FEATURES
        assert run("joint", "crt")["test_set"] == test_set
        return " ".join(capsys.readouterr().err.split())

    assert "comparable" not in on("first")
    assert "comparable" not in on("first")
    assert on("second").count("the last evaluation stands on other test images") == 1
    committed = json.dumps({"test_set": "first"})
    monkeypatch.setattr(evaluate.project, "committed", lambda file: committed if file.name == "metrics.json" else None)
    assert "comparable" not in on("first")
    assert "the last commit's artifacts/evaluate/metrics.json stands on other test images" in on("second")
    for odd in ("[]", "no JSON", "{}"):
        monkeypatch.setattr(evaluate.project, "committed", lambda file, odd=odd: odd)  # noqa: ARG005
        assert "comparable" not in on("third")


def test_a_renamed_class_is_shown_under_its_new_name() -> None:
    artifacts.write_text(LAYOUT.classes, "ant\nbee\nelk\n")
    run("joint", "crt")
    rows = artifacts.read_csv(LAYOUT.evaluation / "per_class.csv")
    assert [row["class"] for row in rows] == ["ant", "bee", "elk"]


def test_a_head_of_other_classes_is_refused() -> None:
    save("crt", heads.LinearHead(torch.ones(2, 3), None), 0.9)
    with pytest.raises(UserError, match=r"knows 2 classes, classes\.txt has 3"):
        run("joint", "crt")


def test_a_damaged_head_is_refused_and_nothing_is_lost() -> None:
    run("joint", "crt")
    before = LAYOUT.evaluation_metrics.read_bytes()
    save("crt", heads.LinearHead(torch.full((3, 3), torch.nan), None), 0.9)
    with pytest.raises(UserError, match="not a finite number"):
        run("joint", "crt")
    assert LAYOUT.evaluation_metrics.read_bytes() == before


def test_metrics_without_a_figure_on_val_are_refused() -> None:
    artifacts.write_json(LAYOUT.head_metrics("crt"), {"method": "crt"})
    with pytest.raises(UserError, match=r"crt/metrics.json: has no numbers val\.balanced"):
        run("joint", "crt")


def test_other_negative_labels_and_unknown_images_alone_are_refused() -> None:
    for label, message in ((-2, "has labels -2 … -2, but there are 3 classes"), (-1, "has no images")):
        with features.writing(LAYOUT.features("test"), np.full(12, label), views=1, dim=3, header=made_from()) as bank:
            bank[0] = FEATURES
        with pytest.raises(UserError, match=message):
            run("crt")


def test_labels_beyond_the_classes_are_refused() -> None:
    artifacts.write_text(LAYOUT.classes, "ant\nbee\n")
    artifacts.write_text(LAYOUT.split_list("train"), "a.png 0\nb.png 1\n")
    imported = made_from() | {"images": None}
    with features.writing(LAYOUT.features("test"), LABELS, views=1, dim=3, header=imported) as bank:
        bank[0] = FEATURES
    with pytest.raises(UserError, match="has labels 0 … 2, but there are 2 classes"):
        run("joint")
