"""A backbone that takes no training: kept as it is, its joint classifier fitted on the features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from ltrec import artifacts
from ltrec.artifacts import SPLITS, Layout
from ltrec.errors import UserError
from ltrec.models import heads, network
from ltrec.models.backbones import CifarResNetBackbone
from ltrec.published import export_checkpoint
from ltrec.published.import_features import run as import_features
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.serving.predictor import Predictor
from ltrec.stages import evaluate, export, featurize, rebalance, represent
from ltrec.training import loop
from tests.scores import balanced_accuracy
from tests.stages.conftest import METHODS, load_head

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ltrec.config.params import Params

    Build = Callable[..., Params]

LAYOUT = Layout()
pytestmark = [
    pytest.mark.usefixtures("prepared"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # on a single core
]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights for the backbone."""
    torch.manual_seed(7)
    file = tmp_path / "weights.pth"
    torch.save(CifarResNetBackbone(name="cifar_resnet8").build(8).state_dict(), file)
    return file


def frozen(params: Build, weights: Path | None = None, **more: Any) -> Params:
    backbone = {"name": "cifar_resnet8"} | ({} if weights is None else {"weights": str(weights)})
    return params(represent={"epochs": 0, "backbone": backbone, **more})


def joint_head() -> heads.LinearHead:
    head = heads.load(LAYOUT.joint, representation=artifacts.digest(LAYOUT.model))
    assert isinstance(head, heads.LinearHead)
    return head


def test_the_backbone_is_kept_as_it_is_and_nothing_trains(
    params: Build, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "train", None)
    monkeypatch.setattr(loop, "validate", None)
    represent.run(frozen(params, weights))
    kept, expected = network.load(LAYOUT.model).backbone.state_dict(), torch.load(weights)
    assert all(torch.equal(kept[name], tensor) for name, tensor in expected.items())
    assert LAYOUT.history.read_text() == "epoch,loss,accuracy,val,lr\n"
    said = capsys.readouterr().err
    assert "kept as it is (epochs: 0)" in said
    assert "warning" not in said


def test_a_random_backbone_is_warned_of_and_follows_the_seed(params: Build, capsys: pytest.CaptureFixture[str]) -> None:
    represent.run(frozen(params))
    warning = capsys.readouterr().err
    assert "represent.backbone.weights: null with epochs: 0" in warning
    first = LAYOUT.model.read_bytes()
    represent.run(frozen(params))
    assert LAYOUT.model.read_bytes() == first
    represent.run(frozen(params).model_copy(update={"seed": 1}))
    assert LAYOUT.model.read_bytes() != first


def test_what_only_a_training_reads_is_left_unread(params: Build, weights: Path) -> None:
    represent.run(frozen(params, weights))
    plain = network.load(LAYOUT.model).state_dict()
    training = {
        "ema": {"decay": 0.9}, "mix": {"name": "cmo"}, "freeze": {"by": "name", "modules": ["nothing like it"]},
        "schedule": {"name": "cosine", "warmup_epochs": 3}, "batch_size": 4000,
    }  # fmt: skip
    represent.run(frozen(params, weights, **training))
    assert all(torch.equal(tensor, plain[name]) for name, tensor in network.load(LAYOUT.model).state_dict().items())


def test_the_networks_file_holds_no_head_that_pretends_to_be_trained(params: Build, weights: Path) -> None:
    represent.run(frozen(params, weights))
    tensors, header = artifacts.load_tensors(LAYOUT.model)
    assert not [name for name in tensors if name.startswith("head.") and name != "head.temperature"]
    assert header["head"] == "unfitted"
    with pytest.raises(UserError, match=r"was not trained \(represent\.epochs: 0\).*`ltrec featurize` fits one$"):
        network.load(LAYOUT.model)(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))


def test_the_joint_classifier_is_a_trained_networks_own_to_the_bit(params: Build) -> None:
    represent.run(params())
    featurize.run(params())
    own = network.load(LAYOUT.model).head
    assert isinstance(own, heads.LinearHead)
    assert torch.equal(joint_head().weight, own.weight)
    rebalance.run(params(), "joint")
    fitted = load_head("joint")
    assert isinstance(fitted, heads.LinearHead)
    assert torch.equal(fitted.weight, own.weight)


def test_every_method_stands_on_the_fitted_classifier(params: Build, weights: Path) -> None:
    own = frozen(params, weights)
    own = own.model_copy(update={"rebalance": own.rebalance | params(rebalance={
        "from_joint": {"method": "crt", "init": "joint", "epochs": 1, "lr": 1e-30, "weight_decay": 0.0,
                       "precision": "fp32"},
        "on_images": {"method": "lws", "epochs": 1, "batch_size": 8, "images": True},
    }).rebalance})  # fmt: skip
    represent.run(own)
    featurize.run(own)
    for variant in own.rebalance:
        rebalance.run(own, variant)
    joint = joint_head()
    assert torch.equal(load_head("from_joint").weight, joint.weight)  # type: ignore[arg-type]
    assert torch.equal(load_head("lws").weight, joint.weight)  # type: ignore[arg-type]
    val = FeatureBank.open(LAYOUT.features("val"))
    assert balanced_accuracy(joint(val.plain), val.labels) > 1 / 3
    evaluate.run(own)
    assert {*METHODS, "from_joint", "on_images"} <= set(artifacts.read_json(LAYOUT.evaluation_metrics))


def test_what_is_exported_has_the_fitted_classifier(params: Build, weights: Path, tmp_path: Path) -> None:
    own = frozen(params, weights)
    represent.run(own)
    output = tmp_path / "out.pth"
    with pytest.raises(UserError, match=r"joint\.safetensors: no such file; `ltrec featurize`"):
        export_checkpoint.run(own, output)
    featurize.run(own)
    export_checkpoint.run(own, output)
    written = torch.load(output)["state_dict_best"]["classifier"]
    assert torch.equal(next(tensor for name, tensor in written.items() if "weight" in name), joint_head().weight)

    rebalance.run(own, "joint")
    export.run(own, variant="joint", output=tmp_path / "joint.onnx")
    images = torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.load(LAYOUT.model, head=LAYOUT.head("joint"))(images)
    logits = Predictor(tmp_path / "joint.onnx").run(images.numpy())[0]
    torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-4, rtol=1e-4)


def test_a_dump_of_features_is_held_against_no_classifier_that_is_not_there(
    params: Build, weights: Path, tmp_path: Path
) -> None:
    represent.run(frozen(params, weights))
    import pickle

    bank = {"feats": torch.zeros(15, 64).numpy(), "labels": [0] * 15, "idxs": [*range(15)]}
    (tmp_path / "dump.pkl").write_bytes(pickle.dumps(bank))
    with pytest.raises(UserError, match=r"model\.safetensors: has no classifier .*`ltrec featurize`"):
        import_features(tmp_path / "dump.pkl", "val")
    assert not LAYOUT.features("val").exists()


def test_another_fit_leaves_the_features_and_changes_the_classifier(params: Build, weights: Path) -> None:
    own = frozen(params, weights)
    represent.run(own)
    featurize.run(own)
    features, first = [LAYOUT.features(split).read_bytes() for split in SPLITS], LAYOUT.joint.read_bytes()
    featurize.run(own)
    assert LAYOUT.joint.read_bytes() == first, "the same bytes twice"
    probe = {"epochs": 1, "lr": 0.5, "more_lrs": []}
    featurize.run(params(represent=own.represent.model_dump(), featurize={"probe": probe}))
    assert [LAYOUT.features(split).read_bytes() for split in SPLITS] == features
    assert LAYOUT.joint.read_bytes() != first


@pytest.mark.slow
def test_the_same_classifier_with_workers_or_without(params: Build, weights: Path) -> None:
    own = frozen(params, weights)
    represent.run(own)
    featurize.run(own)
    first = LAYOUT.joint.read_bytes()
    featurize.run(params(represent=own.represent.model_dump(), featurize={"workers": 2}))
    assert LAYOUT.joint.read_bytes() == first


def test_a_fit_that_diverges_names_its_settings(params: Build, weights: Path) -> None:
    own = frozen(params, weights)
    represent.run(own)
    with pytest.raises(UserError, match=r"^params\.yaml: featurize\.probe: .* a lower lr than 1e\+30 may help"):
        featurize.run(params(represent=own.represent.model_dump(), featurize={"probe": {"lr": 1e30}}))


def test_a_backbone_of_batch_norms_keeps_its_statistics(params: Build, weights: Path) -> None:
    represent.run(frozen(params, weights))
    kept = network.load(LAYOUT.model)
    assert not any(module.training for module in kept.modules())
    statistics = [module.running_var for module in kept.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(torch.equal(variance, torch.ones_like(variance)) for variance in statistics if variance is not None)
