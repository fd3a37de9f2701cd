"""A head made ready for where it will work: another class prior, and when it gives no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ltrec import artifacts
from ltrec.artifacts import Layout
from ltrec.config.export import ExportSettings
from ltrec.data.image_lists import ImageList
from ltrec.errors import UserError
from ltrec.models.heads import LinearHead
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.stages import deployment

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.stages.deployment import Deployment

CLASSES = ("cat", "dog", "eel")
# The features are the logits.
VAL = FeatureBank(
    torch.tensor([[[4.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]]), torch.tensor([0, 1, 2, 2]), {}
)


@pytest.fixture(autouse=True)
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.chdir(tmp_path)
    artifacts.write_text(Layout().classes, "".join(f"{name}\n" for name in CLASSES))
    artifacts.write_json(Layout().head_metrics("crt"), {"chosen": {"temperature": 1.5}})
    return Layout()


def identity(power: float) -> LinearHead:
    head = LinearHead(torch.eye(3), None)
    head.prior_power = power
    return head


def train(*counts: int) -> ImageList:
    labels = np.repeat(np.arange(3), counts)
    return ImageList(tuple(f"{n}.png" for n in range(len(labels))), labels)


def prepare(
    *, power: float = 0.0, counts: tuple[int, int, int] = (4, 2, 2), asked: tuple[str, ...] = (), **settings: Any
) -> Deployment:
    given = ExportSettings.model_validate(settings)
    return deployment.prepare(Layout(), "crt", identity(power), train(*counts), VAL, given, asked)


def refusal(**given: Any) -> str:
    with pytest.raises(UserError) as caught:
        prepare(**given)
    return str(caught.value)


def logits(deployed: Deployment) -> torch.Tensor:
    with torch.inference_mode():
        shifted: torch.Tensor = deployed.head(VAL.plain)
    return shifted


def test_by_itself_a_head_stays_as_it_is() -> None:
    balanced, joint = prepare(), prepare(power=1.0)
    assert balanced.head_prior == pytest.approx([1 / 3] * 3)
    assert joint.head_prior == (0.5, 0.25, 0.25)
    assert balanced.class_counts == joint.class_counts == (4, 2, 2)
    assert torch.equal(logits(joint), VAL.plain)
    assert (joint.prior, joint.abstention, joint.said, joint.figures) == (None, None, "", {"prior": "own"})


def test_another_prior_is_added_to_the_logits() -> None:
    # log π′ − log q: from (½, ¼, ¼) to thirds, from thirds to (½, ¼, ¼), and to (0.2, 0.2, 0.6).
    for deployed, shift in (
        (prepare(power=1.0, prior="uniform"), [2 / 3, 4 / 3, 4 / 3]),
        (prepare(power=0.0, prior="train"), [1.5, 0.75, 0.75]),
        (prepare(power=0.0, prior={"eel": 6.0, "cat": 2.0, "dog": 2.0}), [0.6, 0.6, 1.8]),
    ):
        torch.testing.assert_close(logits(deployed), VAL.plain + torch.tensor(shift).log())
    assert deployed.prior == pytest.approx((0.2, 0.2, 0.6))
    assert (deployed.prior_name, deployed.said) == ("given", "; for the class prior given")


def test_the_shift_comes_after_the_temperature() -> None:
    head = identity(0.0)
    head.temperature.fill_(2.0)
    given = ExportSettings(prior="train")
    shifted = deployment.prepare(Layout(), "crt", head, train(4, 2, 2), VAL, given, ()).head(VAL.plain)
    torch.testing.assert_close(shifted.detach(), VAL.plain / 2 + torch.tensor([1.5, 0.75, 0.75]).log())


def test_a_class_that_train_has_none_of() -> None:
    assert prepare(power=1.0, counts=(4, 0, 2)).head_prior is None
    assert prepare(power=0.0, counts=(4, 0, 2), prior="uniform").prior == pytest.approx([1 / 3] * 3)
    told = "the head expects no image of dog, which train has none of"
    assert refusal(power=1.0, counts=(4, 0, 2), prior="uniform") == f"params.yaml: export.prior: {told}"
    assert refusal(counts=(4, 0, 2), prior="train", asked=("prior",)).startswith("--prior: train has no image of dog")


def test_a_prior_of_other_classes() -> None:
    assert refusal(prior={"cat": 1.0, "fox": 1.0}) == (
        "params.yaml: export.prior: names what is no class of the model: fox"
    )


def test_the_threshold_is_chosen_on_val() -> None:
    # Confidences e^z/(e^z + 2): 0.965, 0.909, 0.787, 0.576; the last two are wrong.
    deployed = prepare(abstain={"coverage": 0.5})
    assert deployed.abstention is not None
    assert deployed.abstention.below == pytest.approx((0.9094 + 0.7870) / 2, abs=1e-3)
    assert (deployed.abstention.coverage, deployed.abstention.error) == (0.5, 0.0)
    assert deployed.figures == {
        "prior": "own", "abstain_below": deployed.abstention.below, "abstain_coverage": 0.5, "abstain_error": 0.0,
    }  # fmt: skip
    assert "no answer below 0.848, which on val leaves 50.0% answered, 0.0% of them wrongly" in deployed.said
    by_error = prepare(abstain={"error": 0.34}).abstention
    assert by_error is not None
    assert (by_error.coverage, by_error.error) == pytest.approx((0.75, 1 / 3))


def test_with_another_prior_val_counts_by_it() -> None:
    # Of the class eel are two images: with a prior of 0.8 each counts 0.4, the others 0.1. Times (0.3, 0.3, 2.4) the
    # images have 0.3e⁴ of cat, 0.858; 0.3e³ of dog, 0.691; 2.4 of eel, 0.488 and 0.683: all are right then.
    found = prepare(abstain={"coverage": 0.5}, prior={"cat": 0.1, "dog": 0.1, "eel": 0.8}).abstention
    assert found is not None
    assert (found.coverage, found.error) == pytest.approx((0.1 + 0.1 + 0.4, 0.0))
    assert found.below == pytest.approx((0.683 + 0.488) / 2, abs=1e-3)


def test_without_calibration_nothing_is_abstained_from(layout: Layout) -> None:
    artifacts.write_json(layout.head_metrics("crt"), {"chosen": {"epoch": 3}})
    line = refusal(abstain={"coverage": 0.9})
    assert line.startswith("params.yaml: export.abstain: abstaining needs calibrated probabilities, and ")
    assert "crt/metrics.json has no temperature" in line
    assert refusal(abstain={"coverage": 0.9}, asked=("abstain",)).startswith("--abstain: ")


def test_an_error_that_val_cannot_show() -> None:
    bank = FeatureBank(torch.tensor([[[3.0, 0.0, 0.0]]]), torch.tensor([1]), {})
    settings = ExportSettings.model_validate({"abstain": {"error": 0.1}})
    with pytest.raises(UserError, match=r"^params\.yaml: export\.abstain: error 0\.1 is not reached on val"):
        deployment.prepare(Layout(), "crt", identity(0.0), train(4, 2, 2), bank, settings, ())
