"""A published checkpoint becomes the representation, exactly or not at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ltrec import artifacts
from ltrec.artifacts import Layout
from ltrec.errors import UserError
from ltrec.models import heads, network
from ltrec.models.backbones import TorchvisionBackbone
from ltrec.published import import_checkpoint
from tests.published.conftest import CLASSES, DIM, best, states

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ltrec.config.params import Params

    Build = Callable[..., Params]
    Write = Callable[..., Path]

LAYOUT = Layout()
pytestmark = pytest.mark.usefixtures("prepared")


def loaded() -> dict[str, torch.Tensor]:
    return network.load(LAYOUT.model).state_dict()


def expected(parts: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors under ltrec's names."""
    plain = {key: {name.replace("module.", ""): tensor for name, tensor in of.items()} for key, of in parts.items()}
    classifier = plain["classifier"]
    named = {f"backbone.{name}": tensor for name, tensor in plain["feat_model"].items()}
    named |= {"head.weight": classifier["fc.weight"], "head.bias": classifier["fc.bias"]}
    named |= {"head.published_scale": classifier["scales"]} if "scales" in classifier else {}
    return named | {"head.temperature": torch.ones(())}


def assert_taken_over(parts: dict[str, dict[str, torch.Tensor]]) -> None:
    wanted, got = expected(parts), loaded()
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_final_form(prefix: str, scales: bool, zipped: bool, params: Build, write: Write) -> None:
    parts = states(prefix=prefix, scales=scales)
    import_checkpoint.run(params(), write(best(parts), _use_new_zipfile_serialization=zipped))
    assert_taken_over(parts)


def test_the_latest_form(params: Build, write: Write) -> None:
    parts = states(prefix="module.")
    import_checkpoint.run(params(), write({"epoch": 12, "state_dict": parts}))
    assert_taken_over(parts)
    assert artifacts.load_tensors(LAYOUT.model)[1]["published"]["epoch"] == 12


def test_a_torchvision_network_as_published(params: Build, write: Write) -> None:
    parts = states(backbone=TorchvisionBackbone(name="resnet18").build(32), dim=512, prefix="module.")
    assert "module.layer2.0.downsample.1.running_var" in parts["feat_model"]
    own = {"backbone": {"name": "resnet18"}, "image": {"size": 32, "resize": 36}}
    import_checkpoint.run(params(represent=own), write(best(parts)))
    assert_taken_over(parts)


def test_the_logits_are_the_research_codes(params: Build, write: Write) -> None:
    """Its classifier is fc on the features; LWS multiplies by the scales, and joint is what it scales."""
    parts = states(scales=True)
    import_checkpoint.run(params(), write(best(parts)))
    taken = network.load(LAYOUT.model)
    images = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    features = taken.features(images)
    of = parts["classifier"]
    torch.testing.assert_close(taken(images), features @ of["fc.weight"].T + of["fc.bias"])


def test_the_header_says_how_to_rebuild_it_and_where_it_is_from(params: Build, write: Write) -> None:
    image = {"mean": (0.466, 0.471, 0.380), "std": (0.195, 0.194, 0.192)}
    file = write(best(states(), best_acc=np.float64(0.4375), epoch=torch.tensor(90)))
    import_checkpoint.run(params(represent={"image": {"size": 8, "resize": 9} | image}), file)
    taken, (_, header) = network.load(LAYOUT.model), artifacts.load_tensors(LAYOUT.model)
    assert (taken.geometry.size, taken.geometry.resize) == (8, 9)
    assert (taken.mean, taken.std) == (image["mean"], image["std"])
    assert header["published"] == {
        "file": "published.pth", "digest": artifacts.digest(file), "epoch": 90, "best_epoch": 88, "best_acc": 0.4375,
    }  # fmt: skip


def test_the_history_is_a_table_without_epochs(params: Build, write: Write) -> None:
    import_checkpoint.run(params(), write(best(states())))
    assert artifacts.read_csv(LAYOUT.history) == []
    assert LAYOUT.history.read_text() == "epoch,loss,accuracy,val,lr\n"


def test_what_descendants_add_is_left_out_and_named(
    params: Build, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"centroids": {"mean": np.zeros((3, 4))}, "embed": np.ones((3, 2), np.float32), "note": "a text"}
    import_checkpoint.run(params(), write(best(states(), **more)))
    assert_taken_over(states())
    assert "left out: centroids, embed, note\n" in capsys.readouterr().err


def test_old_checkpoints_lack_batch_norms_counters(
    params: Build, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = states()
    counters = [name for name in parts["feat_model"] if name.endswith("num_batches_tracked")]
    for name in counters:
        del parts["feat_model"][name]
    import_checkpoint.run(params(), write(best(parts)))
    assert f"{len(counters)} of {len(counters)} num_batches_tracked were missing and are 0" in capsys.readouterr().err
    for name in counters:
        parts["feat_model"][name] = torch.tensor(0)
    assert_taken_over(parts)


def test_half_precision_becomes_float32(params: Build, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {
        key: {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in of.items()}
        for key, of in states().items()
    }
    import_checkpoint.run(params(), write(best(parts)))
    assert "torch.float16 became float32" in capsys.readouterr().err
    assert_taken_over({key: {name: t.float() if t.is_floating_point() else t for name, t in of.items()}
                       for key, of in parts.items()})  # fmt: skip


def test_another_backbone_than_in_the_params(params: Build, write: Write) -> None:
    parts = states(backbone=TorchvisionBackbone(name="resnet18").build(8), dim=512)
    import_checkpoint.run(params(), write(best(parts)), backbone="resnet18")
    assert_taken_over(parts)
    with pytest.raises(UserError, match=r"^--backbone: no such backbone: resnet19; allowed: resnet18, "):
        import_checkpoint.run(params(), write(best(parts)), backbone="resnet19")


def test_another_architecture_is_one_line_that_names_the_right_one(params: Build, write: Write) -> None:
    parts = states(backbone=TorchvisionBackbone(name="resnet34").build(8), dim=512)
    file = write(best(parts))
    with pytest.raises(UserError, match=rf"^{re.escape(str(file))}: does not fit: ") as told:
        import_checkpoint.run(params(represent={"backbone": {"name": "resnet18"}}), file)
    # What resnet34 has and resnet18 lacks: block 2 of layer1, 2 and 3 of layer2, 2 to 5 of layer3, 2 of layer4,
    # each with two convolutions and two batch norms of five tensors.
    assert told.value.what == (
        "does not fit: represent.backbone is resnet18, the tensors are those of resnet34; 96 unexpected: "
        + ", ".join(
            f"feat_model.{block}.{rest}"
            for block in ("{layer1,layer4}.2", "layer2.{2-3}", "layer3.{2-5}")
            for rest in (
                "{conv1,conv2}.weight", "{bn1,bn2}.{weight,bias,running_mean,running_var,num_batches_tracked}",
            )
        )
    )  # fmt: skip


def test_every_misfit_is_named_at_once(params: Build, write: Write) -> None:
    parts = states()
    del parts["feat_model"]["bn1.weight"]
    del parts["classifier"]["fc.bias"]
    parts["feat_model"]["fc_add.weight"] = torch.zeros(2)
    parts["classifier"]["fc.weight"] = torch.zeros(CLASSES, DIM + 1)
    with pytest.raises(UserError) as told:
        import_checkpoint.run(params(), write(best(parts)))
    assert told.value.what == (
        "does not fit: represent.backbone is cifar_resnet8; 2 missing: feat_model.bn1.weight, classifier.fc.bias;"
        " 1 unexpected: feat_model.fc_add.weight; 1 of another shape: classifier.fc.weight (3, 65) instead of (3, 64)"
    )
    assert not LAYOUT.model.exists()
    assert not LAYOUT.history.exists()


def test_other_classes_than_the_lists(params: Build, write: Write) -> None:
    LAYOUT.classes.write_text("a\nb\nc\nd\n")
    with pytest.raises(UserError, match=r"knows 3 classes, but artifacts/prepare/classes\.txt names 4"):
        import_checkpoint.run(params(), write(best(states())))
    assert not LAYOUT.model.exists()
    LAYOUT.classes.unlink()  # before `prepare` there is nothing to agree with
    import_checkpoint.run(params(), write(best(states())))
    assert_taken_over(states())


_PLAIN = states()
_ODD: dict[str, Any] = {
    "a list": ([1, 2], "holds a list, not a dict with state_dict_best"),
    "a plain state dict": (_PLAIN["feat_model"], r"has conv1.weight, bn1.weight, .* and \d+ more; wanted: a dict"),
    "nothing": ({}, "has nothing; wanted"),
    "best is None": ({"state_dict_best": None, "epoch": 1}, "has state_dict_best, epoch; wanted"),
    "no classifier": (best({"feat_model": _PLAIN["feat_model"]}), "its state_dict_best has feat_model; wanted"),
    "a third network": (best({**_PLAIN, "memory": {}}), "has feat_model, classifier, memory; wanted"),
    "no state dict": (best({**_PLAIN, "classifier": [1]}), "state_dict_best.classifier is no state dict but a list"),
    "a number among tensors": (
        best({**_PLAIN, "classifier": {**_PLAIN["classifier"], "tau": 0.5}}),
        "state_dict_best.classifier has something else than tensors in it: tau$",
    ),
    "complex numbers": (
        best({**_PLAIN, "classifier": {"fc.weight": torch.zeros(3, 64, dtype=torch.complex64)}}),
        "classifier has tensors that are not dense real numbers: fc.weight$",
    ),
    "not finite": (
        best({**_PLAIN, "classifier": {**_PLAIN["classifier"], "fc.bias": torch.tensor([0.0, float("nan"), 0])}}),
        "state_dict_best.classifier has numbers that are not finite: fc.bias$",
    ),
    "a weight without dimensions": (
        best({**_PLAIN, "classifier": {**_PLAIN["classifier"], "fc.weight": torch.tensor(1.0)}}),
        r"classifier.fc.weight \(\) instead of \(1, 64\)",
    ),
}


@pytest.mark.parametrize("kind", _ODD)
def test_what_is_no_published_checkpoint(kind: str, params: Build, write: Write) -> None:
    content, words = _ODD[kind]
    with pytest.raises(UserError, match=words) as told:
        import_checkpoint.run(params(), write(content))
    assert "\n" not in str(told.value)
    assert not LAYOUT.model.exists()


def test_the_joint_head_is_without_the_scales_and_keeps_them(params: Build, write: Write) -> None:
    import_checkpoint.run(params(), write(best(states(scales=True))))
    head = network.load(LAYOUT.model).head
    assert isinstance(head, heads.PublishedLwsHead)
    features = torch.ones(1, DIM)
    torch.testing.assert_close(head(features), features @ head.weight.T + head.bias)
