"""timm's names: what is listed, what is refused, and which names are near."""

from __future__ import annotations

import importlib.metadata
from importlib import resources

import pytest

from ltrec.models import timm_names


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if another timm were installed than the one whose names are listed."""
    monkeypatch.setattr(timm_names, "_is_listed_version", lambda: False)
    monkeypatch.setattr(timm_names, "_installed", lambda: {"vit_of_tomorrow": ("v1",), "vit_bare": (), "resnet50": ()})


@pytest.mark.parametrize(
    "name",
    [
        "timm/vit_small_patch14_dinov2",
        "timm/vit_small_patch14_dinov2.lvd142m",
        "timm/resnet50",
        "timm/resnet50.ra_in1k",
    ],
)
def test_an_architecture_and_one_with_a_tag_are_known(name: str) -> None:
    assert timm_names.exists(name)
    assert timm_names.known_name(name) == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm/resnet5O", ("no network", "got timm/resnet5O", "did you mean timm/resnet50?", "near: timm/")),
        ("timm/resnett50.ra_in1k", ("did you mean timm/resnet50.ra_in1k?",)),
        (
            "timm/resnet50.ra_in2k",
            ("no weights of this tag", "did you mean timm/resnet50.ra_in1k?", "allowed: ", "more"),
        ),
        ("timm/resnet50.", ("no weights of this tag", "allowed: timm/resnet50, timm/resnet50.a1_in1k")),
        ("timm/resnet50.ra_in1k.more", ("no weights of this tag",)),
        ("timm/", ("no network", "timm.list_models()")),
        ("resnet50.ra_in1k", ("begin with timm/", "did you mean timm/resnet50.ra_in1k?")),
        ("nothing.like_it", ("no network", "got timm/nothing.like_it")),
        (f"timm/{'x' * 1000}", ("xxx …",)),
    ],
)
def test_a_name_that_does_not_exist_is_one_line_with_near_names(name: str, words: tuple[str, ...]) -> None:
    assert not timm_names.exists(name)
    with pytest.raises(ValueError, match="timm") as raised:
        timm_names.known_name(name)
    line = str(raised.value)
    assert [word for word in words if word not in line] == []
    assert "\n" not in line
    assert len(line) < 900


@pytest.mark.usefixtures("newer")
def test_a_newer_timm_is_asked_before_a_name_is_refused() -> None:
    assert timm_names.known_name("timm/vit_of_tomorrow.v1") == "timm/vit_of_tomorrow.v1"
    assert timm_names.has_weights("timm/vit_of_tomorrow")
    assert not timm_names.has_weights("timm/vit_bare")
    with pytest.raises(ValueError, match=r"did you mean timm/vit_of_tomorrow\?"):
        timm_names.known_name("timm/vit_of_tomorow")


def test_what_is_listed_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked in ("_is_listed_version", "_installed"):
        monkeypatch.setattr(timm_names, asked, lambda: pytest.fail("asked timm"))
    assert timm_names.known_name("timm/resnet50.ra_in1k")
    assert timm_names.has_weights("timm/resnet50.ra_in1k")


def test_architectures_without_weights_are_told_apart() -> None:
    assert timm_names.has_weights("timm/resnet50")
    assert not timm_names.has_weights("timm/convnext_atto_rms")


@pytest.mark.slow
def test_the_list_is_timms() -> None:
    listed = resources.files("ltrec.models").joinpath("timm_names.txt").read_text(encoding="utf-8")
    if not listed.startswith(f"timm {importlib.metadata.version('timm')}\n"):
        pytest.skip("another timm is installed than the one that is listed")
    assert listed == timm_names.text(), "`python -m ltrec.models.timm_names` writes it anew"
