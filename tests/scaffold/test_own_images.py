"""What `ltrec init folder` chooses for a folder of images, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ltrec.config import params
from ltrec.data.shot_groups import shot_groups
from ltrec.errors import UserError
from ltrec.scaffold.own_images import Wishes, carved, chosen, params_text
from ltrec.scaffold.survey import Survey, survey
from tests.commands import ltrec

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.config.params import Params

NOTHING = Wishes()


def found(*counts: int, short_side: int = 480, given: frozenset[str] = frozenset({"train"})) -> Survey:
    names = tuple(f"class {label}" for label in range(len(counts)))
    return Survey("my photos", names, counts, given, short_side)  # type: ignore[arg-type]


def parsed(survey: Survey, wishes: Wishes = NOTHING) -> Params:
    return params.parse(params_text(survey, wishes))


def write(root: Path, name: str, count: int, size: tuple[int, int] = (40, 30)) -> None:
    (root / name).mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", size, (number, 0, 0)).save(root / name / f"{number}.png")


def test_photographs_stand_on_a_network_that_has_seen_many() -> None:
    settings = parsed(found(400, 90, 30, 16))
    assert settings.prepare.source.root == "my photos"
    assert settings.represent.backbone.name == "timm/vit_small_patch14_dinov2.lvd142m"
    assert settings.represent.backbone.weights == "pretrained"
    assert settings.represent.epochs == 0
    assert settings.represent.image.size == 224


def test_small_images_train_a_small_network() -> None:
    for short_side, size in ((8, 16), (28, 32), (64, 64)):
        represent = parsed(found(120, 40, 9, short_side=short_side)).represent
        assert represent.backbone.name.startswith("cifar_resnet")
        assert represent.image.size == size
        assert represent.epochs > 0
    few, many = (parsed(found(count, count, short_side=8)).represent for count in (100, 20_000))
    assert few.epochs > many.epochs
    assert few.batch_size < many.batch_size


@pytest.mark.parametrize(
    ("backbone", "weights", "expected"),
    [
        ("resnet50", None, "DEFAULT"),
        ("resnet101", None, "DEFAULT"),
        ("resnext101_32x4d", None, None),
        ("cifar_resnet32", None, None),
        ("resnet10", None, None),
        ("timm/convnext_tiny.fb_in1k", None, "pretrained"),
        ("resnet18", "w/net: 1.pth", "w/net: 1.pth"),
    ],
)
def test_the_users_network_comes_with_its_weights(backbone: str, weights: str | None, expected: str | None) -> None:
    represent = parsed(found(50, 20, short_side=20), Wishes(backbone, weights)).represent
    assert represent.backbone.name == backbone
    assert represent.backbone.weights == expected
    assert represent.epochs == 0
    tuned = parsed(found(50, 20), Wishes(backbone, weights, epochs=7)).represent
    assert tuned.epochs == 7
    assert tuned.optimizer.lr < 1e-3, "small steps: it has learnt"


def test_the_shot_groups_have_classes_each() -> None:
    usual = parsed(found(400, 90, 12)).evaluate.shots
    assert (usual.many_above, usual.few_below) == (100, 20)
    for counts in ((60, 50, 40, 30), (900, 800, 700, 600, 500), (19, 12, 8, 5)):
        seen = found(*counts)
        shots = parsed(seen).evaluate.shots
        trained = np.array([count - carved(count, seen) for count in counts])
        assert set(shot_groups(trained, shots.many_above, shots.few_below)) == {"many", "medium", "few"}
    assert parsed(found(30, 20)).evaluate.shots.many_above == 100, "two classes make no three groups"


def test_small_classes_keep_most_of_what_they_have() -> None:
    for counts in ((400, 90, 30, 16), (60, 20, 8), (40, 5, 4, 3)):
        seen = found(*counts)
        assert all(carved(count, seen) <= count / 2 for count in counts if count > 3)
    assert carved(400, found(400, 90, 30, 20)) == 80 + 40
    assert carved(16, found(400, 90, 30, 16)) == 4 + 4


def test_folders_for_the_splits_are_taken_as_they_are() -> None:
    given = found(40, 20, given=frozenset({"train", "val", "test"}))
    assert "split:" not in params_text(given, NOTHING)
    assert carved(40, given) == 0
    only_test = params_text(found(40, 20, given=frozenset({"train", "test"})), NOTHING)
    assert "    val:" in only_test
    assert "    test:" not in only_test


def test_every_choice_stands_with_its_reason() -> None:
    text = params_text(found(400, 90, 30, 16), NOTHING)
    assert "4 classes, 536 images of 16 to 400 a class (imbalance factor 25)" in text
    for key in ("val:", "test:", "small_classes:", "image:", "epochs:", "views:", "shots:"):
        (line,) = (line for line in text.splitlines() if line.strip().startswith(key))
        assert " # " in line, key
    assert "# DINOv2" in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_survey_reads_sizes_and_decodes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "heron", 3, (640, 480))
    write(tmp_path, "owl", 2, (300, 400))
    (tmp_path / "heron/notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    seen = survey(str(tmp_path))
    assert (seen.classes, seen.counts, seen.short_side) == (("heron", "owl"), (4, 2), 480)
    assert seen.given == {"train"}


def test_there_must_be_images_of_two_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        survey(str(tmp_path / "absent"))
    write(tmp_path, "heron", 2)
    with pytest.raises(UserError, match=r"1 class folder\(s\) with images; a classifier needs two"):
        survey(str(tmp_path))
    (tmp_path / "heron/0.png").write_bytes(b"")
    (tmp_path / "heron/1.png").write_bytes(b"")
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl/a.jpg").write_text("no image")
    with pytest.raises(UserError, match="none of 3 files looked at is an image"):
        survey(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"sampler": "square_root"}, "--sampler: your own images have no such option; allowed: --data, --backbone"),
        ({"epochs": "many"}, "--epochs: must be a whole number of epochs from 0 on, got many"),
    ],
)
def test_a_wrong_option_is_one_line(options: dict[str, str], line: str) -> None:
    with pytest.raises(UserError) as caught:
        chosen(options)
    assert line in str(caught.value)


def test_an_unknown_backbone_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "data", "heron", 2)
    write(tmp_path / "data", "owl", 2)
    done = ltrec("init", "folder", "--backbone", "resnet5O", cwd=tmp_path)
    assert done.returncode == 2
    assert "represent.backbone" in done.stderr.splitlines()[-1]
    assert "resnet50" in done.stderr.splitlines()[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["data"]


def test_the_project_does_not_lie_among_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "photos", "heron", 2)
    write(tmp_path / "photos", "owl", 2)
    monkeypatch.chdir(tmp_path / "photos")
    for data in (".", "..", str(tmp_path / "photos")):
        with pytest.raises(UserError, match="--data: the project would lie among its own images"):
            chosen({"data": data})
    monkeypatch.chdir(tmp_path)
    assert "root: photos}" in chosen({"data": str(tmp_path / "photos")}), "relative, where it lies inside"


def test_what_the_user_says_is_taken_literally() -> None:
    small = found(50, 20, short_side=20)
    assert parsed(small, Wishes(epochs=0)).represent.epochs == 0
    assert parsed(found(50, 20), Wishes("timm/resnet18.a1_in1k", "null")).represent.backbone.weights is None
    for name in ("True", "null", "007", "a: b"):
        named = Survey(name, ("a", "b"), (9, 9), frozenset({"train"}), 480)
        assert parsed(named).prepare.source.root == name


def test_classes_too_small_to_give_count_whole() -> None:
    assert carved(1, found(500, 1, 1)) == 0
    shots = parsed(found(*[500], *[1] * 30)).evaluate.shots
    assert (shots.many_above, shots.few_below) == (100, 20)
    even = params_text(found(*[30] * 10), NOTHING)
    assert "too few or too even for three groups" in even


def test_an_experiment_finds_the_learning_rates_to_set() -> None:
    # `dvc exp run -S rebalance.crt.lr=…` overrides what is there, and refuses what is not.
    text = params_text(found(400, 90, 30, 16), NOTHING)
    rebalance = parsed(found(400, 90, 30, 16)).rebalance
    for name in ("crt", "lws"):
        assert f"  {name}: {{method: {name}, epochs: {rebalance[name].epochs}, lr: 0.1" in text  # type: ignore[union-attr]
