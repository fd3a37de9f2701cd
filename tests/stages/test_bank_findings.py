"""The tables and pictures that evaluate makes of the feature banks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ltrec import artifacts
from ltrec.artifacts import SPLITS, Layout
from ltrec.data.downloads.digits import write_digits
from ltrec.data.image_lists import ImageList, list_text, read_classes, read_list
from ltrec.errors import UserError
from ltrec.rebalancing import feature_bank
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.stages import bank_findings, evaluate, featurize, prepare, rebalance, represent
from tests.stages.conftest import inside

if TYPE_CHECKING:
    from tests.stages.conftest import Build

LAYOUT = Layout()
NAMES, GROUPS = ("=ant", "bee"), np.array(["many", "few"])
SUSPECTS, DUPLICATES = (LAYOUT.evaluation / name for name in bank_findings.TABLES)
PICTURES = LAYOUT.plots / "images" / "near_duplicates.png"


def write_bank(split: artifacts.Split, images: list[tuple[str, int]], features: np.ndarray) -> None:
    labels = np.array([label for _, label in images])
    artifacts.write_text(LAYOUT.split_list(split), "".join(f"{path} {label}\n" for path, label in images))
    artifacts.write_text(LAYOUT.split_digest(split), f"{split}\n")
    header = {"images": artifacts.digest(LAYOUT.split_digest(split))}
    with feature_bank.writing(LAYOUT.features(split), labels, views=1, dim=4, header=header) as bank:
        bank[0] = features


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classes of 20, 4 and 6 images in train, val and test, around an axis each."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 4), ("test", 6)):
        labels = np.arange(count) % 2
        features = np.eye(2, 4)[labels] + random.normal(scale=0.1, size=(count, 4))
        write_bank(split, [(f"{split}/{n}.png", int(label)) for n, label in enumerate(labels)], features)


def change(split: artifacts.Split, row: int, label: int, features: np.ndarray | None = None) -> None:
    """Give an image of a bank another label, and perhaps other features."""
    bank = feature_bank.FeatureBank.open(LAYOUT.features(split))
    images = read_list(LAYOUT.split_list(split), None, unknown=True)
    labels, plain = images.labels.copy(), bank.plain.numpy().copy()
    labels[row] = label
    if features is not None:
        plain[row] = features
    write_bank(split, list(zip(images.paths, labels.tolist(), strict=True)), plain)


def features_of(split: artifacts.Split, row: int) -> np.ndarray:
    return feature_bank.FeatureBank.open(LAYOUT.features(split)).plain[row].numpy()


def write() -> None:
    bank_findings.write(LAYOUT, Path("data"), NAMES, GROUPS)


def test_a_wrong_label_comes_first_in_words_that_a_spreadsheet_does_not_compute() -> None:
    change("test", 3, 0)
    write()
    assert SUSPECTS.read_text(encoding="utf-8").startswith("rank,path,split,label,guess,confidence,shot\n")
    assert ",'=ant,bee," in SUSPECTS.read_text(encoding="utf-8")
    first = artifacts.read_csv(SUSPECTS)[0]
    assert float(first.pop("confidence")) > 0.9
    assert first == {
        "rank": "1", "path": "test/3.png", "split": "test", "label": "=ant", "guess": "bee", "shot": "many"
    }  # fmt: skip


def test_without_findings_there_are_headers_and_no_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    artifacts.write_text(PICTURES, "of an earlier run")
    write()
    assert artifacts.read_csv(SUSPECTS) == artifacts.read_csv(DUPLICATES) == []
    assert DUPLICATES.read_text("utf-8") == "rank,path,split,label,other_path,other_split,other_label,similarity\n"
    assert not PICTURES.exists()
    assert "warning" not in capsys.readouterr().err


def test_near_duplicates_are_listed_shown_and_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    change("test", 2, 1, features_of("train", 4) + 1e-4)
    Path("data/train").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save("data/train/4.png")  # the other one is missing: an empty square
    write()
    (row,) = artifacts.read_csv(DUPLICATES)
    assert float(row.pop("similarity")) == pytest.approx(1, abs=1e-5)
    assert row == {
        "rank": "1", "path": "train/4.png", "split": "train", "label": "=ant",
        "other_path": "test/2.png", "other_split": "test", "other_label": "bee",
    }  # fmt: skip
    with Image.open(PICTURES) as page:
        assert {(255, 0, 0), (221, 221, 221)} <= {color for _, color in page.getcolors(1 << 20)}
    said = " ".join(capsys.readouterr().err.split())
    assert "near-duplicates across splits" in said
    assert "1 (train/4.png in train ~ test/2.png in test)" in said
    before = PICTURES.read_bytes(), SUSPECTS.read_bytes(), DUPLICATES.read_bytes()
    write()
    assert (PICTURES.read_bytes(), SUSPECTS.read_bytes(), DUPLICATES.read_bytes()) == before


def test_unknown_images_are_left_out() -> None:
    change("test", 2, artifacts.UNKNOWN, features_of("train", 4) + 1e-4)
    write()
    assert artifacts.read_csv(SUSPECTS) == artifacts.read_csv(DUPLICATES) == []


def test_val_that_is_the_test_images_has_no_duplicates() -> None:
    for source in (LAYOUT.split_list, LAYOUT.split_digest, LAYOUT.features):
        shutil.copy(source("test"), source("val"))
    write()
    assert artifacts.read_csv(DUPLICATES) == []


def test_a_bank_of_other_images_is_refused() -> None:
    artifacts.write_text(LAYOUT.split_list("train"), "train/0.png 1\n")
    with pytest.raises(UserError, match=r"train\.safetensors: holds features of other images .*`ltrec featurize`"):
        write()


def test_banks_of_two_networks_are_refused() -> None:
    # An interrupted `ltrec featurize` leaves the old bank of test beside the new one of train.
    for split, network in (("train", "new"), ("val", "old"), ("test", "old")):
        bank = FeatureBank.open(LAYOUT.features(split))
        header = bank.header | {"representation": network}
        with feature_bank.writing(LAYOUT.features(split), bank.labels.numpy(), views=1, dim=4, header=header) as file:
            file[0] = bank.plain.numpy()
    with pytest.raises(UserError, match=r"train\.safetensors: belongs to another network .*`ltrec featurize`"):
        write()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a single core
def test_labels_flipped_in_digits_come_first(tmp_path: Path, params: Build) -> None:
    project = tmp_path / "digits"
    (project / "data").mkdir(parents=True)
    (project / "params.yaml").touch()
    with inside(project):
        write_digits(Path("data"))
        split, image = {"val": 18, "test": 40}, {"size": 16, "resize": 16}
        own = params(prepare={"split": split}, represent={"image": image, "epochs": 6, "batch_size": 32},
                     evaluate={"bootstrap": 0})  # fmt: skip
        prepare.run(own)
        flipped = flip_labels(share=0.05)
        represent.run(own)
        featurize.run(own)
        for variant in own.rebalance:
            rebalance.run(own, variant)
        evaluate.run(own)
        first = {row["path"] for row in artifacts.read_csv(SUSPECTS)[: len(flipped)]}
    assert len(first & flipped) > 0.85 * len(flipped)


def flip_labels(share: float) -> set[str]:
    """Give a share of each split's images another label; return which."""
    classes, random, flipped = len(read_classes(LAYOUT.classes)), np.random.default_rng(0), set[str]()
    for split in SPLITS:
        images = read_list(LAYOUT.split_list(split), classes)
        labels = images.labels.copy()
        drawn = random.permutation(len(labels))[: round(share * len(labels))]
        labels[drawn] = (labels[drawn] + random.integers(1, classes, len(drawn))) % classes
        artifacts.write_text(LAYOUT.split_list(split), list_text(ImageList(images.paths, labels)))
        flipped |= {images.paths[row] for row in drawn}
    return flipped
