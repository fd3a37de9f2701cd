"""From a published LWS checkpoint on: featurize, rebalance, evaluate, export, and out again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ltrec import artifacts
from ltrec.artifacts import SPLITS, Layout
from ltrec.data.image_lists import read_list
from ltrec.data.images.decoding import decode_rgb, square
from ltrec.models import network
from ltrec.models.backbones import CifarResNetBackbone
from ltrec.published import import_checkpoint
from ltrec.serving.predictor import Predictor
from ltrec.stages import evaluate, export, featurize, rebalance
from tests.published.conftest import CLASSES, DIM, best

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltrec.config.params import Params

    Build = Callable[..., Params]
    Write = Callable[..., Path]

LAYOUT = Layout()
pytestmark = [
    pytest.mark.usefixtures("prepared"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # on a single core
]
VARIANTS = {
    "joint": {"method": "joint"},
    "lws_published": {"method": "published"},
    "ncm": {"method": "ncm"},
    "crt": {"method": "crt", "epochs": 2},
}


def research_network() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A backbone and an LWS classifier that prefers class 2 by its scales alone."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        backbone = CifarResNetBackbone(name="cifar_resnet8").build(8).eval()
        weight = torch.randn(CLASSES, DIM) * 0.1
    return backbone, {"scales": torch.tensor([1.0, 1.5, 2.0]), "fc.weight": weight, "fc.bias": torch.ones(CLASSES)}


@pytest.mark.slow
def test_the_published_result_comes_out(params: Build, write: Write) -> None:
    backbone, classifier = research_network()
    parts = {"feat_model": backbone.state_dict(), "classifier": classifier}
    own = params(featurize={"views": 0})
    own = own.model_copy(update={"rebalance": type(own).model_validate(
        {"represent": {"backbone": {"name": "resnet18"}}, "rebalance": VARIANTS}).rebalance})  # fmt: skip
    import_checkpoint.run(own, write(best({k: {f"module.{n}": t for n, t in of.items()} for k, of in parts.items()})))
    featurize.run(own)
    for variant in VARIANTS:
        rebalance.run(own, variant)
    evaluate.run(own)

    test = read_list(LAYOUT.split_list("test"), CLASSES)
    image = own.represent.preprocessing()
    pixels = np.stack([square(decode_rgb(Path("data", path)), image.geometry) for path in test.paths])
    mean, std = (torch.tensor(of).reshape(3, 1, 1) for of in (image.mean, image.std))
    with torch.no_grad():
        features = backbone((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
        logits = features @ classifier["fc.weight"].T + classifier["fc.bias"]
    answers = {"joint": logits, "lws_published": logits * classifier["scales"]}
    figures = artifacts.read_json(LAYOUT.evaluation_metrics)
    for variant, of in answers.items():
        assert figures[variant]["all"] == pytest.approx(float((of.argmax(dim=1).numpy() == test.labels).mean()))
    assert not torch.equal(answers["joint"].argmax(dim=1), answers["lws_published"].argmax(dim=1))

    export.run(own, variant="lws_published", output=Path("lws.onnx"))
    temperature = artifacts.read_json(LAYOUT.head_metrics("lws_published"))["chosen"]["temperature"]
    given = temperature * Predictor(Path("lws.onnx")).run(pixels)[0]
    np.testing.assert_allclose(given, answers["lws_published"].numpy(), atol=1e-4)


def test_the_features_are_the_imported_networks(params: Build, write: Write) -> None:
    backbone, classifier = research_network()
    file = write(best({"feat_model": backbone.state_dict(), "classifier": classifier}))
    import_checkpoint.run(params(), file)
    before = artifacts.digest(LAYOUT.model)
    featurize.run(params())
    import_checkpoint.run(params(), file)
    assert artifacts.digest(LAYOUT.model) == before, "imported again, it is the same file: nothing has to be run anew"
    rebalance.run(params(), "joint")
    assert network.load(LAYOUT.model).head.dim == DIM
    assert all(LAYOUT.features(split).is_file() for split in SPLITS)
