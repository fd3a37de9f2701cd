"""A feature dump becomes a bank in the list's order, if it fits the network and the list."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ltrec import artifacts
from ltrec.artifacts import Layout
from ltrec.data.image_lists import read_list
from ltrec.errors import UserError
from ltrec.published import import_checkpoint, import_features
from ltrec.rebalancing.feature_bank import FeatureBank
from tests.published.conftest import CLASSES, DIM, best, states

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltrec.config.params import Params

    Build = Callable[..., Params]
    Write = Callable[..., Path]
    Dump = dict[str, Any]

LAYOUT = Layout()
VAL = 6  # two of each class


@pytest.fixture(autouse=True)
def _imported(prepared: Path, params: Build, write: Write) -> None:  # noqa: ARG001 - the current folder
    import_checkpoint.run(params(), write(best(states())))


@pytest.fixture
def dump() -> Dump:
    """Of val, its rows in another order than the list."""
    random = np.random.default_rng(0)
    idxs = random.permutation(VAL)
    labels = read_list(LAYOUT.split_list("val"), CLASSES).labels[idxs]
    return {"feats": random.normal(size=(VAL, DIM)).astype(np.float32), "labels": labels, "idxs": idxs}


def run(content: object, protocol: int | None = None) -> None:
    file = Path("val.pkl")
    file.write_bytes(pickle.dumps(content, protocol))
    import_features.run(file, "val")


def refused(content: object, words: str) -> None:
    with pytest.raises(UserError, match=words) as told:
        run(content)
    assert str(told.value).startswith("val.pkl: ")
    assert "\n" not in str(told.value)
    assert not LAYOUT.features("val").exists()


@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist, list], ids=["arrays", "lists", "rows"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_every_row_comes_to_its_image(form: Callable[[Any], Any], protocol: int, dump: Dump) -> None:
    run({name: form(array) for name, array in dump.items()}, protocol)
    bank = FeatureBank.open(LAYOUT.features("val"))
    assert bank.labels.tolist() == read_list(LAYOUT.split_list("val"), CLASSES).labels.tolist()
    for row, image in enumerate(dump["idxs"]):
        assert bank.plain[image].tolist() == dump["feats"][row].tolist()
    assert bank.features.shape == (1, VAL, DIM)
    assert bank.header == {
        "representation": artifacts.digest(LAYOUT.model), "images": None, "split": "val", "published": "val.pkl",
    }  # fmt: skip


def test_the_networks_own_classifier_tells_whether_they_are_its_features(
    dump: Dump, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = states()["classifier"]["fc.weight"].numpy()
    apart = weight - weight.mean(axis=0)
    # Far along w_j − mean(w), nothing but class j can win.
    dump["feats"] = 100 * apart[dump["labels"]]
    run(dump)
    said = capsys.readouterr().err
    assert f"features import: 6 val images of {DIM} features, 100.0% balanced accuracy by the network's own" in said
    assert "warning" not in said
    dump["feats"] = 100 * apart[(dump["labels"] + 1) % CLASSES]
    run(dump)
    said = " ".join(capsys.readouterr().err.split())
    assert "warning: val.pkl: the network's own classifier gets only 0.0% balanced accuracy on these features" in said


def test_before_prepare_the_order_is_the_dumps(dump: Dump) -> None:
    labels = read_list(LAYOUT.split_list("val"), CLASSES).labels
    LAYOUT.split_list("val").unlink()
    run(dump)
    assert FeatureBank.open(LAYOUT.features("val")).labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "is no feature dump: holds a list; wanted: feats, labels, idxs$"),
        ({}, "holds nothing; wanted"),
        ({"feats": 1, "labels": 2}, "is no feature dump: holds feats, labels; wanted: feats, labels, idxs$"),
    ],
)
def test_what_is_no_dump(content: object, words: str) -> None:
    refused(content, words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"feats": np.zeros((VAL, DIM, 1))}, r"feats \(6, 64, 1\), labels \(6,\), idxs \(6,\); wanted: \(N, D\)"),
        ({"labels": np.zeros(VAL - 1, int)}, r"labels \(5,\), idxs \(6,\); wanted"),
        (
            {"feats": np.zeros((VAL, 9))},
            r"features of 9 dimensions, the network in artifacts/represent/model\.saf.* 64$",
        ),
        ({"feats": [[1.0] * 1000] * 1000}, "feats has more numbers than the file has bytes$"),
        ({"feats": [np.zeros(1000)] * 1000}, "feats has more numbers than the file has bytes$"),
        ({"feats": [[np.zeros(2)]] * VAL}, "feats has more than two dimensions$"),
        ({"feats": [((1.0,),)] * VAL}, "feats has more than two dimensions$"),
        ({"feats": [[1.0], [1.0, 2.0]]}, "feats is no array of real numbers but one of object$"),
        ({"feats": np.full((VAL, DIM), "a")}, "feats is no array of real numbers but one of <U1$"),
        ({"feats": np.full((VAL, DIM), None)}, "an array of 'O8'; only numbers and text are read"),
        ({"labels": torch.zeros(VAL)}, r"it names torch\._utils\._rebuild_tensor_v2; only NumPy arrays, "),
        ({"labels": np.full(VAL, 0.5)}, "labels are not whole numbers$"),
        ({"labels": np.full(VAL, np.nan)}, "labels are not whole numbers$"),
        ({"idxs": np.array([0, 1, 2, 3, 4, 6])}, r"idxs\[5\] is 6, but with 6 rows images are 0 … 5 \(1 such rows in"),
        ({"idxs": np.array([-1, 1, 2, 3, 4, 5])}, r"idxs\[0\] is -1"),
        ({"idxs": np.array([0, 1, 1, 3, 4, 3])}, r"image 1 has rows 1 and 2; wanted: one row an image \(2 such"),
        ({"labels": np.array([9] * VAL)}, r"has label 9; the network in artifacts/.* knows 3 classes, 0 … 2$"),
    ],
)
def test_misfits(changes: Dump, words: str, dump: Dump) -> None:
    refused(dump | changes, words)


def test_features_that_are_not_finite(dump: Dump) -> None:
    dump["feats"][2, 5] = np.inf
    refused(dump, rf"features that are not finite, of 1 images, such as image {dump['idxs'][2]}$")


def test_labels_other_than_the_lists(dump: Dump) -> None:
    """The list's first image of class 0 and its last of class 2, exchanged."""
    listed = read_list(LAYOUT.split_list("val"), CLASSES)
    assert listed.labels[0] != listed.labels[-1]
    exchanged = {0: listed.labels[-1], VAL - 1: listed.labels[0]}
    dump["labels"] = np.array([exchanged.get(image, listed.labels[image]) for image in dump["idxs"]])
    refused(
        dump,
        rf"image 0 has label {listed.labels[-1]}, but artifacts/prepare/val\.txt:1 says {listed.labels[0]}"
        rf" \({listed.paths[0]}\); 2 of 6 differ$",
    )


def test_more_images_than_listed(dump: Dump) -> None:
    lines = LAYOUT.split_list("val").read_text().splitlines(keepends=True)
    LAYOUT.split_list("val").write_text("".join(lines[:-1]))
    refused(dump, r"has 6 images, artifacts/prepare/val\.txt lists 5$")


def test_a_row_too_few_is_told_by_the_lists_length(dump: Dump) -> None:
    for name, column in dump.items():
        dump[name] = column[1:]
    refused(dump, r"val.pkl: has 5 images, artifacts/prepare/val\.txt lists 6$")


def test_lists_that_claim_more_than_there_is(dump: Dump) -> None:
    rows: Any = [0.0]
    for _ in range(12):
        rows = [rows] * 10
    refused(dump | {"feats": rows}, "feats has more than two dimensions$")


def test_without_a_network(dump: Dump) -> None:
    LAYOUT.model.unlink()
    with pytest.raises(UserError, match=r"^artifacts/represent/model\.safetensors: no such file; features need the"):
        run(dump)


def test_unknown_images_of_val_and_test_keep_their_label(dump: Dump) -> None:
    path = LAYOUT.split_list("val")
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{line}\n" for line in [*lines[:-1], f"{lines[-1].rpartition(' ')[0]} -1"]), "utf-8")
    dump["labels"][dump["idxs"] == VAL - 1] = -1
    run(dump)
    assert FeatureBank.open(LAYOUT.features("val")).labels.tolist()[-1] == -1
    LAYOUT.split_list("train").unlink()
    with pytest.raises(UserError, match=r"label -1; the network in .* knows 3 classes"):
        import_features.run(Path("val.pkl"), "train")
