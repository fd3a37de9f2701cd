"""CIFAR from folders and from the published archives; no network, and archives of a few images."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from ltrec.artifacts import Layout, read_json
from ltrec.config.prepare import PrepareSettings
from ltrec.data.downloads import cifar_archive, writing
from ltrec.data.downloads.cifar_archive import write_cifar10, write_cifar100
from ltrec.data.shot_groups import ShotSettings
from ltrec.data.sources.cifar import CIFAR10, CIFAR100, Cifar, Cifar10Source, Cifar100Source, scan_cifar
from ltrec.errors import UserError
from ltrec.stages.prepare import prepare
from tests.shared import shared

SMALL = replace(CIFAR10, per_class={"train": 3, "test": 2})


def folders(root: Path, cifar: Cifar = SMALL) -> None:
    for split, count in cifar.per_class.items():
        for name in cifar.classes:
            (root / split / name).mkdir(parents=True)
            for n in range(count):
                (root / split / name / f"{n:04d}.jpg").write_bytes(f"{split}{name}{n}".encode())


def tree(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


# Folders


def test_labels_are_the_official_ones_and_there_is_no_val(tmp_path: Path) -> None:
    folders(tmp_path)
    found = scan_cifar(tmp_path, SMALL)
    assert found.classes[3] == "cat"
    assert {split: len(images) for split, images in found.splits.items()} == {"train": 30, "test": 20}
    assert found.splits["test"].paths[6:8] == ("test/cat/0000.jpg", "test/cat/0001.jpg")
    assert found.splits["test"].labels[6:8].tolist() == [3, 3]
    assert found.skipped == ()


def test_the_hundred_fine_labels() -> None:
    assert len(set(CIFAR100.classes)) == 100
    # The fine labels of CIFAR-100 are in alphabetical order; these places are published.
    assert [CIFAR100.classes.index(name) for name in ("apple", "keyboard", "sweet_pepper", "worm")] == [0, 39, 83, 99]
    assert list(CIFAR100.classes) == sorted(CIFAR100.classes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("test/cat -> ", r"data/test: expected the 10 class folders of CIFAR-10, airplane … truck; missing are 'cat'$"),
        ("test/cat -> test/kitty", "missing are 'cat', unknown are 'kitty'$"),
        ("train/dog/0000.jpg -> train/cat/new.jpg", r"data/train: expected 3 images .* in 'cat' \(4\), 'dog' \(2\)$"),
        ("test -> elsewhere", r"data/test: no such folder; CIFAR-10 is train/<class>/\* and test/<class>/\* below"),
    ],
)
def test_other_folders_than_the_official_ones_are_one_line(tmp_path: Path, change: str, message: str) -> None:
    root = tmp_path / "data"
    folders(root)
    old, _, new = change.partition(" -> ")
    (root / old).rename(root / new if new else tmp_path / "away")
    with pytest.raises(UserError, match=message) as caught:
        scan_cifar(root, SMALL)
    assert "\n" not in str(caught.value)


def test_no_folder_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder; `ltrec data cifar10 --root .*/none` writes CIFAR-10 there"):
        Cifar10Source(kind="cifar10", root=str(tmp_path / "none")).scan()
    with pytest.raises(UserError, match="`ltrec data cifar100 --root"):
        Cifar100Source(kind="cifar100", root=str(tmp_path / "none")).scan()


def test_what_lies_beside_is_listed_but_for_the_published_files(tmp_path: Path) -> None:
    folders(tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").touch()
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "train" / "labels.csv").touch()
    assert {skip.path: skip.reason for skip in scan_cifar(tmp_path, SMALL).skipped} == {
        "notes.txt": "no part of CIFAR-10",
        "train/labels.csv": "not in a class folder",
    }


# Archives


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Archives in the published format of 3 training and 2 test images a class, by name, and their checksums."""
    monkeypatch.setattr(cifar_archive, "CIFAR10", SMALL)
    monkeypatch.setattr(cifar_archive, "CIFAR100", replace(CIFAR100, per_class=SMALL.per_class))
    return {
        "cifar-10-python.tar.gz": archive(monkeypatch, datasets.CIFAR10, CIFAR10.classes, "labels"),
        "cifar-100-python.tar.gz": archive(monkeypatch, datasets.CIFAR100, CIFAR100.classes, "fine_labels"),
    }


def archive(monkeypatch: pytest.MonkeyPatch, dataset: Any, classes: tuple[str, ...], key: str) -> bytes:
    """Images as the archive has them: a row for each, its red, green and blue planes one after the other."""
    files = {}
    batches = [name for name, _ in dataset.train_list]
    for name, labels in {
        # The first batch holds one image a class, from last to first; the last batch the others.
        **{name: [] for name in batches},
        batches[0]: list(range(len(classes)))[::-1],
        batches[-1]: list(range(len(classes))) * (3 if len(batches) == 1 else 2),
        dataset.test_list[0][0]: list(range(len(classes))) * 2,
    }.items():
        data = np.random.default_rng(len(files)).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": data, key: labels})
    files[dataset.meta["filename"]] = pickle.dumps({dataset.meta["key"]: list(classes)})
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, raw in files.items():
            entry = tarfile.TarInfo(f"{dataset.base_folder}/{name}")
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))

    def md5(name: str) -> str:
        return hashlib.md5(files[name], usedforsecurity=False).hexdigest()

    monkeypatch.setattr(dataset, "train_list", [[name, md5(name)] for name, _ in dataset.train_list])
    monkeypatch.setattr(dataset, "test_list", [[name, md5(name)] for name, _ in dataset.test_list])
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"md5": md5(dataset.meta["filename"])})
    monkeypatch.setattr(dataset, "tgz_md5", hashlib.md5(content.getvalue(), usedforsecurity=False).hexdigest())
    return content.getvalue()


@pytest.fixture
def server(published: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands where the published server stands; the addresses that were asked for."""
    asked = []

    def fetch(url: str, filename: str, **_named: Any) -> None:
        asked.append(url)
        Path(filename).write_bytes(published[url.rpartition("/")[2]])

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_named: url)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", fetch)
    return asked


def test_a_download_becomes_lossless_files_in_the_sources_layout(tmp_path: Path, server: list[str]) -> None:
    write_cifar10(tmp_path / "data")
    assert [url.rpartition("/")[2] for url in server] == ["cifar-10-python.tar.gz"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]
    assert {entry.name for entry in (tmp_path / "data").iterdir()} == {"train", "test"}
    assert len(scan_cifar(tmp_path / "data", SMALL).splits["train"]) == 30
    # The first batch's last image is class 0's first one; its planes are 1,024 values each.
    row = np.random.default_rng(0).integers(0, 256, (10, 3072), dtype=np.uint8)[9]
    with Image.open(tmp_path / "data/train/airplane/0000.png") as image:
        assert (image.mode, image.size) == ("RGB", (32, 32))
        assert (np.asarray(image) == row.reshape(3, 32, 32).transpose(1, 2, 0)).all()


def test_the_hundred_classes_come_with_their_fine_labels(tmp_path: Path, server: list[str]) -> None:
    write_cifar100(tmp_path / "data")
    assert len(server) == 1
    found = scan_cifar(tmp_path / "data", replace(CIFAR100, per_class=SMALL.per_class))
    assert (len(found.classes), len(found.splits["train"]), len(found.splits["test"])) == (100, 300, 200)


def test_an_archive_or_its_folder_in_place_is_taken(
    tmp_path: Path, published: dict[str, bytes], server: list[str]
) -> None:
    write_cifar10(tmp_path / "downloaded")
    name = "cifar-10-python.tar.gz"
    packed, unpacked = tmp_path / "packed", tmp_path / "unpacked"
    for root in (packed, unpacked):
        root.mkdir()
    (packed / name).write_bytes(published[name])
    with tarfile.open(packed / name) as tar:
        tar.extractall(unpacked, filter="data")
    for root in (packed, unpacked):
        write_cifar10(root)
        written = {path: content for path, content in tree(root).items() if not path.startswith("cifar-10")}
        assert written == tree(tmp_path / "downloaded")
        write_cifar10(root)
    assert len(server) == 1


def test_complete_data_is_not_downloaded_again(
    tmp_path: Path, server: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path)
    before = tree(tmp_path)
    write_cifar10(tmp_path)
    assert server == []
    assert "holds all images of CIFAR-10 already" in capsys.readouterr().err
    assert tree(tmp_path) == before


@pytest.mark.usefixtures("server")
def test_a_missing_file_comes_back_and_other_data_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_cifar10(root)
    before = tree(root)
    (root / "test/cat/0001.png").unlink()
    write_cifar10(root)
    assert tree(root) == before
    (root / "test/cat/mine.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"holds other data \('test/cat/mine.png'\)"):
        write_cifar10(root)
    assert tree(root) == before | {"test/cat/mine.png": b"mine"}


def test_other_data_is_refused_before_the_download(tmp_path: Path, server: list[str]) -> None:
    (tmp_path / "data" / "7").mkdir(parents=True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data: holds other data \('7'\)"):
        write_cifar10(tmp_path / "data")
    with pytest.raises(UserError, match="file: is a file; the images would be a folder"):
        write_cifar10(tmp_path / "file")
    assert server == []


@pytest.mark.usefixtures("server")
def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = writing._write

    def interrupted(folder: Path, images: dict[str, Any]) -> None:
        write(folder, dict(list(images.items())[:7]))
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_cifar10(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (urllib.error.URLError("no route to host"), r"kriz/cifar-10-python.tar.gz: cannot be downloaded \(.*no route"),
        (TimeoutError("timed out"), "cannot be downloaded .*timed out.*put cifar-10-python.tar.gz into the folder"),
        (None, "came damaged: its checksum is not the published one"),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_nothing(
    tmp_path: Path, server: list[str], monkeypatch: pytest.MonkeyPatch, failure: Exception | None, message: str
) -> None:
    def fetch(url: str, filename: str, **_named: Any) -> None:
        server.append(url)
        if failure:
            raise failure
        Path(filename).write_bytes(b"half of it")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", fetch)
    with pytest.raises(UserError, match=message) as caught:
        write_cifar10(tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert server


def test_a_damaged_archive_in_place_is_named_and_stays(tmp_path: Path, server: list[str]) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"half of it")
    with pytest.raises(UserError, match=r"python.tar.gz: is damaged: its MD5 sum is not the published"):
        write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(UserError, match="cifar-10-batches-py: lacks a file"):
        write_cifar10(tmp_path)
    assert server == []
    assert tree(tmp_path) == {"cifar-10-python.tar.gz": b"half of it"}


# All 60,000 images


@pytest.fixture(scope="module")
def jpeg_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(shared("datasets/cifar10-jpeg.tar.xz")) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "sizes"),
    [
        (100, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),
        (50, [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]),
        (10, [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]),
    ],
)
def test_cifar_10_lt_has_the_fields_counts(jpeg_folder: Path, tmp_path: Path, factor: int, sizes: list[int]) -> None:
    layout = Layout(tmp_path)
    given = {
        "source": {"kind": "cifar10", "root": str(jpeg_folder)},
        "split": {"val": "test"},
        "long_tail": {"profile": "exponential", "imbalance_factor": factor, "n_max": 5000},
        "decode": False,
    }
    prepare(PrepareSettings.model_validate(given), seed=0, shots=ShotSettings(), layout=layout)
    stats = read_json(layout.stats)
    assert [entry["train"] for entry in stats["classes"]] == sizes
    assert [entry["test"] for entry in stats["classes"]] == [1000] * 10
    assert stats["duplicates_across_splits"] == 0
    assert layout.split_list("val").read_bytes() == layout.split_list("test").read_bytes()
