"""A representation that was learnt with a cosine head, from LDAM-DRW to the exported file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ltrec import artifacts
from ltrec.artifacts import Layout
from ltrec.errors import UserError
from ltrec.models import network
from ltrec.models.heads import CosineHead
from ltrec.serving.predictor import Predictor
from ltrec.stages import evaluate, export, featurize, rebalance, represent
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
COSINE = {"name": "cosine", "scale": 16.0}
LDAM_DRW: dict[str, Any] = {"head": COSINE, "loss": {"name": "ldam", "class_weights": {"start": 0.5}}}
TRAINED = {"method": "crt", "epochs": 2, "batch_size": 8}
# In place of those that work on the weights of a linear head alone.
INSTEAD = {key: {"method": "joint"} for key in METHODS}
VARIANTS = {
    "joint": {"method": "joint"},
    "ncm": {"method": "ncm"},
    "linear": TRAINED,
    "cosine": TRAINED | {"head": COSINE, "init": "joint"},
    "ldam": TRAINED | {"head": COSINE, "loss": {"name": "ldam"}, "sampler": {"name": "instance_balanced"}},
}


@pytest.mark.slow
def test_all_stages_take_it(params: Build, tmp_path: Path) -> None:
    every = params(represent=params().represent.model_dump() | LDAM_DRW, rebalance=INSTEAD | VARIANTS)
    settings = every.model_copy(update={"rebalance": {name: every.rebalance[name] for name in VARIANTS}})
    represent.run(settings)
    featurize.run(settings)
    for variant in VARIANTS:
        rebalance.run(settings, variant)
    for variant in ("joint", "cosine", "ldam"):
        head = load_head(variant)
        assert isinstance(head, CosineHead)
        assert head.cosine_scale == 16
    evaluate.run(settings)
    assert set(VARIANTS) <= set(artifacts.read_json(LAYOUT.evaluation_metrics))

    export.run(settings, variant="cosine", output=tmp_path / "cosine.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = network.load(LAYOUT.model, head=LAYOUT.head("cosine"))(torch.from_numpy(images))
    logits = Predictor(tmp_path / "cosine.onnx").run(images)[0]
    torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-4, rtol=1e-4)


def test_a_probe_fits_it_by_ldam(params: Build) -> None:
    frozen = params().represent.model_dump() | LDAM_DRW | {"epochs": 0}
    settings = params(represent=frozen, rebalance=INSTEAD, featurize={"probe": {"loss": {"name": "ldam"}, "epochs": 2}})
    represent.run(settings)
    featurize.run(settings)
    rebalance.run(settings, "joint")
    assert isinstance(load_head("joint"), CosineHead)


def test_methods_of_linear_weights_are_refused_before_anything_is_trained(params: Build) -> None:
    trained = params().represent.model_dump() | LDAM_DRW
    for method in ("tau_norm", "learnable_tau", "lws", "disalign"):
        with pytest.raises(ValidationError, match=f"{method} works on the weights of a linear joint head, and"):
            params(represent=trained, rebalance=INSTEAD | {"crt": {"method": method}})
    with pytest.raises(ValidationError, match="joint goes on with the joint classifier, and head is another"):
        params(represent=trained, rebalance=INSTEAD | {"crt": {"method": "crt", "init": "joint"}})
    frozen = trained | {"epochs": 0, "head": {"name": "linear"}, "loss": {"name": "cross_entropy"}}
    with pytest.raises(ValidationError, match=r"ldam takes its margins from cosines; allowed: represent\.head: "):
        params(represent=frozen, rebalance=INSTEAD, featurize={"probe": {"loss": {"name": "ldam"}}})


def test_a_class_without_images_names_the_loss(params: Build) -> None:
    LAYOUT.classes.write_text(LAYOUT.classes.read_text(encoding="utf-8") + "grey\n", encoding="utf-8")
    settings = params(represent=params().represent.model_dump() | {"loss": {"name": "balanced_softmax"}})
    with pytest.raises(UserError, match=r"^params.yaml: represent.loss: class 3 has no training image, and the loss"):
        represent.run(settings)
