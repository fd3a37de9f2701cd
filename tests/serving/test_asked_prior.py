"""`predict --prior` and what is abstained from, with a file whose figures follow from the pixels."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ltrec.errors import UserError
from ltrec.serving import asked_prior
from ltrec.serving.predictor import Predictor, run_predict
from tests.serving.colours import CARD, CLASSES, paint, write_model

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.serving.model_card import ModelCard

# A logit is a hundredth of a channel's mean.
OWN = (0.5, 0.25, 0.25)
PRIORS = dataclasses.replace(CARD, class_counts=(10, 5, 5), head_prior=OWN)


def write(folder: Path, card: ModelCard, name: str = "model.onnx") -> Path:
    return write_model(folder / name, metadata=card.to_metadata())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path, PRIORS)


@pytest.fixture
def grey(tmp_path: Path) -> str:
    return paint(tmp_path / "grey.png", (100, 100, 100))


def predicted(
    capsys: pytest.CaptureFixture[str], inputs: list[str], model: Path, prior: str | None
) -> list[dict[str, Any]]:
    capsys.readouterr()
    run_predict(inputs, model=model, output_format="json", top=3, prior=prior)
    return list(json.loads(capsys.readouterr().out))


def shares(entry: dict[str, Any]) -> list[float]:
    by_name = {each["class"]: each["probability"] for each in entry["top"]}
    return [by_name[name] for name in CLASSES]


def test_a_given_prior_by_hand(model: Path, grey: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A third each, for the prior (½, ¼, ¼): for uniform classes times (2/3, 4/3, 4/3), (1, 2, 2) of 5.
    [own], [uniform], [train] = (predicted(capsys, [grey], model, prior) for prior in (None, "uniform", "train"))
    assert shares(own) == pytest.approx([1 / 3] * 3, abs=1e-5)
    assert shares(uniform) == pytest.approx([0.2, 0.4, 0.4], abs=1e-5)
    assert shares(train) == pytest.approx(shares(own))  # the head's own is that of train
    file = tmp_path / "prior.csv"
    file.write_text('class,prior\n"blue, or so",2\nred,1\ngreen,1\n')
    [given] = predicted(capsys, [grey], model, str(file))
    # Times (½, 1, 2): of 3½.
    assert shares(given) == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=1e-5)
    assert given["class"] == "blue, or so"


def test_what_the_file_has_applied_already_is_taken_back(
    tmp_path: Path, grey: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Its logits answer for uniform classes; for those of train times (3/2, 3/4, 3/4).
    model = write(tmp_path, dataclasses.replace(PRIORS, prior=(1 / 3, 1 / 3, 1 / 3)))
    [train] = predicted(capsys, [grey], model, "train")
    assert shares(train) == pytest.approx([0.5, 0.25, 0.25], abs=1e-5)


def test_an_estimate_is_of_the_images_and_said(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(60):
        colour = (0, 0, 255) if index % 6 else (0, 255, 0)
        paint(tmp_path / "images" / f"{index:02}.png", colour)
    run_predict([str(tmp_path / "images")], model=model, output_format="csv", top=3, prior="estimate")
    out, err = capsys.readouterr()
    # As likely as p/q for p = (1, 1, e^2.55)/14.8 and the like: EM on all 60 by hand, in a slow loop.
    kinds = {"blue, or so": (50, np.array([1, 1, 12.8071])), "green": (10, np.array([1, 12.8071, 1]))}
    prior = np.array(OWN)
    for _ in range(5000):
        posteriors = [(count, p / OWN * prior) for count, p in kinds.values()]
        prior = sum(count * p / p.sum() for count, p in posteriors) / 60
    assert "predict: the class prior of these 60 images, estimated in " in err
    assert f"blue, or so {prior[2]:.1%}, green {prior[1]:.1%}" in err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 60
    answer = kinds["blue, or so"][1] / OWN * prior
    assert rows[1]["class"] == "blue, or so"
    assert float(rows[1]["probability"]) == pytest.approx(answer[2] / answer.sum(), abs=1e-3)


def test_too_few_or_too_many_images(
    model: Path, tmp_path: Path, grey: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        UserError, match=r"^--prior: estimate needs 50 images of known classes at least, got 2; allowed with fewer: uni"
    ):
        run_predict([grey, grey], model=model, output_format="json", prior="estimate")
    monkeypatch.setattr(asked_prior, "_KEPT_BYTES", 4 * 3 * 10)
    with pytest.raises(UserError, match=r"takes at most 10 images of 3 classes; estimate on some"):
        run_predict([grey] * 11, model=model, output_format="json", prior="estimate")
    assert not capsys.readouterr().out
    # What cannot be read does not count.
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(UserError, match="got 1;"):
        run_predict([grey, str(tmp_path / "broken.png")], model=model, prior="estimate")


@pytest.mark.parametrize("prior", ["uniform", "estimate"])
def test_a_file_that_does_not_say_what_it_answers_for(tmp_path: Path, grey: str, prior: str) -> None:
    model = write(tmp_path, CARD)
    with pytest.raises(UserError, match=r"model\.onnx: does not say which class prior its head answers for"):
        run_predict([grey] * 50, model=model, output_format="json", prior=prior)


def test_train_needs_the_counts(tmp_path: Path, grey: str) -> None:
    model = write(tmp_path, dataclasses.replace(PRIORS, class_counts=None))
    with pytest.raises(UserError, match=r"^--prior train: the model does not say how many training images"):
        run_predict([grey], model=model, prior="train")
    model = write(tmp_path, dataclasses.replace(PRIORS, class_counts=(1, 0, 2)))
    with pytest.raises(UserError, match=r"^--prior train: train has no image of green"):
        run_predict([grey], model=model, prior="train")


def test_doubtful_images_are_abstained_from(
    tmp_path: Path, grey: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    red = paint(tmp_path / "red.png", (255, 0, 0))  # 0.865
    card = dataclasses.replace(PRIORS, abstain_below=0.6)
    model = write(tmp_path, card)
    assert Predictor(model).card == card
    entries = predicted(capsys, [red, grey], model, None)
    assert [(each["class"], each["abstained"], len(each["top"])) for each in entries] == [
        ("red", False, 3), ("red", True, 3),
    ]  # fmt: skip
    assert "unknown" not in entries[0]
    run_predict([red, grey], model=model, output_format="csv", top=1)
    header, first, second = csv.reader(io.StringIO(capsys.readouterr().out))
    assert (header[-1], first[-1], second[-1]) == ("abstained", "0", "1")
    monkeypatch.chdir(tmp_path)
    run_predict(["grey.png"], model=model)
    assert "abstained (red?)" in capsys.readouterr().out
    # Its threshold is for the probabilities that are given: with uniform classes red has 0.76.
    strict = write(tmp_path, dataclasses.replace(card, abstain_below=0.8), "strict.onnx")
    assert not predicted(capsys, [red], strict, None)[0]["abstained"]
    assert predicted(capsys, [red], strict, "uniform")[0]["abstained"]


def test_unknown_is_by_what_the_head_itself_says(tmp_path: Path, grey: str, capsys: pytest.CaptureFixture[str]) -> None:
    # A third each by itself; (0.2, 0.4, 0.4) for uniform classes.
    card = dataclasses.replace(PRIORS, unknown_below=0.35)
    assert predicted(capsys, [grey], write(tmp_path, card), "uniform")[0]["unknown"]
    # The file has uniform classes applied, and a third each is left: by itself the head says (½, ¼, ¼).
    applied = dataclasses.replace(card, prior=(1 / 3, 1 / 3, 1 / 3), abstain_below=0.9)
    [entry] = predicted(capsys, [grey], write(tmp_path, applied), None)
    assert (entry["unknown"], entry["abstained"]) == (False, True)


def test_both_doubts_have_a_column(tmp_path: Path, grey: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = write(tmp_path, dataclasses.replace(PRIORS, unknown_below=0.9, abstain_below=0.9))
    run_predict([grey], model=model, output_format="csv", top=1)
    assert capsys.readouterr().out.splitlines()[0] == "path,class,probability,unknown,abstained"
    run_predict([grey], model=model, top=1)
    assert "unknown (red?)" in capsys.readouterr().out


def test_the_card_survives_the_file(model: Path) -> None:
    assert Predictor(model).card == PRIORS
    assert Predictor(model).prior == pytest.approx(OWN)
