"""Each variant's head and figures; the network and its features stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ltrec import artifacts, heads, network
from ltrec.artifacts import SPLITS, Layout
from ltrec.errors import UserError
from ltrec.features import FeatureBank
from ltrec.selection import balanced_accuracy
from ltrec.stages import rebalance, represent
from tests.stages.conftest import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltrec.params import Params

    Build = Callable[..., Params]

LAYOUT = Layout()
pytestmark = pytest.mark.usefixtures("featurized")


@pytest.mark.parametrize("variant", METHODS)
def test_a_head_and_its_figures_and_nothing_else_changes(params: Build, variant: str) -> None:
    inputs = [LAYOUT.model, *(LAYOUT.features(split) for split in SPLITS)]
    before = [file.read_bytes() for file in inputs]
    rebalance.run(params(), variant)
    assert [file.read_bytes() for file in inputs] == before, "weights, batch-norm statistics and features"

    head, metrics = heads.load(LAYOUT.head(variant)), artifacts.read_json(LAYOUT.head_metrics(variant))
    assert metrics["method"] == variant
    for split in ("train", "val"):
        bank = FeatureBank.open(LAYOUT.features(split))
        logits = head(bank.plain)
        assert metrics[split]["balanced"] == pytest.approx(balanced_accuracy(logits, bank.labels))
        assert metrics[split]["all"] == pytest.approx(float((logits.argmax(dim=1) == bank.labels).double().mean()))
    whole = network.replace_head(network.load(LAYOUT.model), head, where="head")
    assert whole(torch.zeros(2, 8, 8, 3, dtype=torch.uint8)).shape == (2, 3)


@pytest.mark.parametrize("variant", METHODS)
def test_the_same_bytes_twice(params: Build, variant: str) -> None:
    def written() -> list[bytes]:
        rebalance.run(params(), variant)
        return [LAYOUT.head(variant).read_bytes(), LAYOUT.head_metrics(variant).read_bytes()]

    assert written() == written()


def test_joint_is_the_networks_own_head(params: Build) -> None:
    rebalance.run(params(), "joint")
    images = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    whole = network.load(LAYOUT.model)
    assert torch.equal(heads.load(LAYOUT.head("joint"))(whole.features(images)), whole(images))


def test_a_variant_may_have_any_name(params: Build) -> None:
    rebalance.run(params(rebalance={"mild": {"method": "tau_norm", "taus": [0.25]}}), "mild")
    assert artifacts.read_json(LAYOUT.head_metrics("mild"))["chosen"]["tau"] == 0.25


def test_an_unknown_variant_names_those_that_there_are(params: Build) -> None:
    with pytest.raises(UserError, match=r"rebalance: no such variant: oltr; allowed: joint, ncm, crt"):
        rebalance.run(params(), "oltr")


def test_features_of_another_network_are_refused(params: Build) -> None:
    represent.run(params(represent={"epochs": 1}))
    with pytest.raises(UserError, match=r"train\.safetensors: holds features of another network .*`ltrec featurize`"):
        rebalance.run(params(), "joint")
    assert not LAYOUT.head("joint").exists()


def test_a_loss_that_is_not_finite_names_the_variant_and_keeps_its_earlier_head(params: Build) -> None:
    rebalance.run(params(), "crt")
    before = LAYOUT.head("crt").read_bytes()
    wild = params(rebalance={"crt": {"method": "crt", "lr": 1e38, "epochs": 5, "batch_size": 8}})
    with pytest.raises(
        UserError, match=r"^params\.yaml: rebalance\.crt: the loss is \S+ at epoch \d+, step \d+"
    ) as raised:
        rebalance.run(wild, "crt")
    assert "\n" not in str(raised.value)
    assert LAYOUT.head("crt").read_bytes() == before


def test_more_than_the_gpu_holds_is_one_line(params: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(FeatureBank, "to", full)
    with pytest.raises(UserError, match=r"^params\.yaml: device: the features need more memory than the GPU has; cpu"):
        rebalance.run(params(), "joint")


@pytest.mark.parametrize("variant", ["joint", "ncm", "tau_norm"])
def test_logits_that_are_not_finite_name_the_variant(params: Build, variant: str) -> None:
    for split in ("train", "val"):
        tensors, header = artifacts.load_tensors(LAYOUT.features(split))
        artifacts.save_tensors(LAYOUT.features(split), tensors | {"features": tensors["features"] * 1e38}, header)
    settings = params(rebalance={"ncm": {"method": "ncm", "transforms": ["un"], "distances": ["euclidean"]}})
    with pytest.raises(UserError, match=rf"^params\.yaml: rebalance\.{variant}: the logits on val are not finite"):
        rebalance.run(settings, variant)


def test_without_features_their_stage_is_named(params: Build) -> None:
    LAYOUT.features("val").unlink()
    with pytest.raises(UserError, match=r"val\.safetensors: no such file; `ltrec featurize`"):
        rebalance.run(params(), "joint")
