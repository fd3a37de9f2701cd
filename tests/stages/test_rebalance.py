"""Each variant's head and figures; the network and its features stay as they are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from ltrec import artifacts
from ltrec.artifacts import SPLITS, Layout
from ltrec.data.image_lists import read_list
from ltrec.errors import UserError
from ltrec.models import network
from ltrec.models.heads import EnsembleHead
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.stages import rebalance, represent
from tests.scores import balanced_accuracy
from tests.stages.conftest import METHODS, load_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltrec.config.params import Params

    Build = Callable[..., Params]

LAYOUT = Layout()
pytestmark = [
    pytest.mark.usefixtures("featurized"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # on a single core
]


def on_images(method: str, **settings: object) -> dict[str, dict[str, object]]:
    """A section with one variant, `paper`, that trains on images."""
    return {"paper": {"method": method, "epochs": 3, "batch_size": 8, "images": True, **settings}}


@pytest.mark.parametrize("variant", METHODS)
def test_a_head_and_its_figures_and_nothing_else_changes(params: Build, variant: str) -> None:
    inputs = [LAYOUT.model, *(LAYOUT.features(split) for split in SPLITS)]
    before = [file.read_bytes() for file in inputs]
    rebalance.run(params(), variant)
    assert [file.read_bytes() for file in inputs] == before, "weights, batch-norm statistics and features"

    head, metrics = load_head(variant), artifacts.read_json(LAYOUT.head_metrics(variant))
    assert metrics["method"] == variant
    for split in ("train", "val"):
        bank = FeatureBank.open(LAYOUT.features(split))
        logits = head(bank.plain)
        assert metrics[split]["balanced"] == pytest.approx(balanced_accuracy(logits, bank.labels))
        assert metrics[split]["all"] == pytest.approx(float((logits.argmax(dim=1) == bank.labels).double().mean()))
    assert metrics["chosen"]["temperature"] == float(head.temperature) != 1
    whole = network.load(LAYOUT.model, head=LAYOUT.head(variant))
    assert whole(torch.zeros(2, 8, 8, 3, dtype=torch.uint8)).shape == (2, 3)


@pytest.mark.parametrize("variant", METHODS)
def test_the_same_bytes_twice(params: Build, variant: str) -> None:
    def written() -> list[bytes]:
        rebalance.run(params(), variant)
        return [LAYOUT.head(variant).read_bytes(), LAYOUT.head_metrics(variant).read_bytes()]

    assert written() == written()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["crt", "lws"])
def test_images_through_the_frozen_network(params: Build, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = [LAYOUT.model, *(LAYOUT.features(split) for split in SPLITS)]
    before = [file.read_bytes() for file in files]

    def written(**represent: object) -> list[bytes]:
        rebalance.run(
            params(rebalance=on_images(method), represent={**params().represent.model_dump(), **represent}), "paper"
        )
        return [LAYOUT.head("paper").read_bytes(), LAYOUT.head_metrics("paper").read_bytes()]

    first = written()
    assert [file.read_bytes() for file in files] == before, "weights, batch-norm statistics and features"
    assert "in each of 3 epochs 24 images go through the frozen network" in capsys.readouterr().err
    assert written() == written(workers=2) == first
    assert written(augment={"crop": {"name": "none"}, "flip": False}) != first

    rebalance.run(params(), method)
    assert LAYOUT.head(method).read_bytes() != first[0], "those of the bank are other features"
    head, metrics = load_head("paper"), artifacts.read_json(LAYOUT.head_metrics("paper"))
    for split in ("train", "val"):
        bank = FeatureBank.open(LAYOUT.features(split))
        assert metrics[split]["balanced"] == pytest.approx(balanced_accuracy(head(bank.plain), bank.labels))


def test_without_images_the_list_and_the_images_are_not_read(params: Build) -> None:
    shutil.rmtree("data")
    LAYOUT.split_list("train").unlink()
    rebalance.run(params(), "crt")
    assert LAYOUT.head("crt").exists()


def test_images_that_are_gone_are_one_line(params: Build) -> None:
    shutil.rmtree("data")
    with pytest.raises(UserError, match=r"^data/\S+\.png: cannot be read \(No such file or directory\)") as raised:
        rebalance.run(params(rebalance=on_images("crt")), "paper")
    assert "\n" not in str(raised.value)
    assert not LAYOUT.head("paper").exists()


def test_images_that_are_none_any_more_leave_the_earlier_head(params: Build) -> None:
    rebalance.run(params(rebalance=on_images("crt")), "paper")
    before = LAYOUT.head("paper").read_bytes()
    for path in read_list(LAYOUT.split_list("train"), 3).paths:
        Path("data", path).write_bytes(b"no image any more")
    with pytest.raises(UserError, match=r"^data/\S+\.png: not an image"):
        rebalance.run(params(rebalance=on_images("lws")), "paper")
    assert LAYOUT.head("paper").read_bytes() == before


def test_a_list_of_other_images_than_the_banks_is_refused(params: Build) -> None:
    lines = LAYOUT.split_list("train").read_text().splitlines()
    LAYOUT.split_list("train").write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(UserError, match=r"train\.safetensors: holds features of other images than .*train\.txt lists"):
        rebalance.run(params(rebalance=on_images("crt")), "paper")


def test_a_loss_on_images_that_is_not_finite_names_the_variant(params: Build) -> None:
    with pytest.raises(UserError, match=r"^params\.yaml: rebalance\.paper: the l\S+ .* at epoch"):
        rebalance.run(params(rebalance=on_images("crt", lr=1e38)), "paper")


def test_more_images_than_the_gpu_holds_is_one_line(params: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(network, "predict_features", full)
    with pytest.raises(UserError, match=r"^params\.yaml: rebalance\.paper\.batch_size: 8 images at a time need more"):
        rebalance.run(params(rebalance=on_images("crt")), "paper")


def test_joint_is_the_networks_own_head(params: Build) -> None:
    rebalance.run(params(), "joint")
    images = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    whole = network.load(LAYOUT.model)
    head = load_head("joint")
    assert torch.equal(head.scores(whole.features(images)), whole(images)), "but for the temperature"


def test_a_variant_may_have_any_name(params: Build) -> None:
    rebalance.run(params(rebalance={"mild": {"method": "tau_norm", "taus": [0.25]}}), "mild")
    assert artifacts.read_json(LAYOUT.head_metrics("mild"))["chosen"]["tau"] == 0.25


def test_an_unknown_variant_names_those_that_there_are(params: Build) -> None:
    with pytest.raises(UserError, match=r"rebalance: no such variant: oltr; allowed: joint, ncm, crt"):
        rebalance.run(params(), "oltr")


def test_features_of_another_network_are_refused(params: Build) -> None:
    represent.run(params(represent={"epochs": 1}))
    with pytest.raises(UserError, match=r"train\.safetensors: belongs to another network .*`ltrec featurize`"):
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


ENSEMBLE = {"both": {"method": "ensemble", "members": {"ncm": {"method": "ncm"}, "crt": {"method": "crt", "epochs": 3,
            "batch_size": 8, "adjust": True}}}}  # fmt: skip


def test_an_ensemble_needs_no_other_variant_and_gives_the_same_bytes_twice(params: Build) -> None:
    def written() -> list[bytes]:
        rebalance.run(params(rebalance=ENSEMBLE), "both")
        return [LAYOUT.head("both").read_bytes(), LAYOUT.head_metrics("both").read_bytes()]

    assert written() == written()
    head, metrics = load_head("both"), artifacts.read_json(LAYOUT.head_metrics("both"))
    assert metrics["method"] == "ensemble"
    chosen = metrics["chosen"]
    assert chosen["ncm.weight"] + chosen["crt.weight"] == pytest.approx(1)
    assert {"crt.epoch", "crt.prior", "ncm.transform", "temperature"} <= set(chosen)
    bank = FeatureBank.open(LAYOUT.features("val"))
    assert metrics["val"]["balanced"] == pytest.approx(balanced_accuracy(head(bank.plain), bank.labels))
    whole = network.load(LAYOUT.model, head=LAYOUT.head("both"))
    assert whole(torch.zeros(2, 8, 8, 3, dtype=torch.uint8)).shape == (2, 3)


def test_an_ensembles_members_are_the_heads_of_variants_with_their_settings(params: Build) -> None:
    members = ENSEMBLE["both"]["members"]
    variants = params(rebalance={"both": {**ENSEMBLE["both"], "weights": "equal"}, **members})
    for variant in ("both", *members):
        rebalance.run(variants, variant)
    pool = load_head("both")
    assert isinstance(pool, EnsembleHead)
    features = FeatureBank.open(LAYOUT.features("val")).plain
    for member, name in zip(pool.heads, members, strict=True):
        assert torch.equal(member(features), load_head(name)(features))


def test_a_member_that_cannot_be_fitted_is_one_line(params: Build) -> None:
    wild = {"method": "crt", "lr": 1e38, "epochs": 5, "batch_size": 8}
    ensemble = {"method": "ensemble", "members": {"ncm": {"method": "ncm"}, "wild": wild}}
    with pytest.raises(UserError, match=r"^params\.yaml: rebalance\.both: member wild: the loss is \S+ at") as raised:
        rebalance.run(params(rebalance={"both": ensemble}), "both")
    assert "\n" not in str(raised.value)
