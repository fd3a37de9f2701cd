"""A checkpoint for the research code: bit for bit what was imported, and of every linear head the same logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from ltrec import artifacts
from ltrec.artifacts import Layout
from ltrec.errors import UserError
from ltrec.models import heads, network
from ltrec.models.heads import LinearHead, NearestMeanHead, ScaledHead
from ltrec.published import export_checkpoint, import_checkpoint
from tests.published.conftest import CLASSES, DIM, best, states

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ltrec.config.params import Params

    Build = Callable[..., Params]
    Write = Callable[..., Path]

LAYOUT = Layout()
FEATURES = torch.randn(5, DIM, generator=torch.Generator().manual_seed(3))
pytestmark = pytest.mark.usefixtures("prepared")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.pth"


def exported(params: Params, output: Path, **options: Any) -> dict[str, Any]:
    export_checkpoint.run(params, output, **options)
    return dict(torch.load(output, weights_only=True))


def save_head(head: heads.Head, variant: str, **metrics: Any) -> None:
    heads.save(head, LAYOUT.head(variant), representation=artifacts.digest(LAYOUT.model))
    artifacts.write_json(LAYOUT.head_metrics(variant), {"val": {"all": 0.5}, "chosen": {}, **metrics})


def research_logits(classifier: dict[str, torch.Tensor]) -> torch.Tensor:
    """As the research code computes them."""
    logits = FEATURES @ classifier["module.fc.weight"].T + classifier["module.fc.bias"]
    return logits * classifier.get("module.scales", torch.ones(()))


@pytest.mark.parametrize("scales", [False, True])
def test_exported_is_what_was_imported(scales: bool, params: Build, write: Write, output: Path) -> None:
    parts = states(prefix="module.", scales=scales)
    import_checkpoint.run(params(), write(best(parts)))
    content = exported(params(), output)
    got = content.pop("state_dict_best")
    assert content == {"epoch": 90, "best_epoch": 88, "best_acc": 0.44, "centroids": None}
    assert {network: list(of) for network, of in got.items()} == {network: list(of) for network, of in parts.items()}
    assert all(torch.equal(got[network][name], tensor) for network, of in parts.items() for name, tensor in of.items())


@pytest.mark.parametrize("scales", [False, True])
def test_imported_is_what_was_exported(scales: bool, params: Build, write: Write, output: Path) -> None:
    import_checkpoint.run(params(), write(best(states(scales=scales))))
    before = network.load(LAYOUT.model).state_dict()
    export_checkpoint.run(params(), output)
    import_checkpoint.run(params(), output)
    after = network.load(LAYOUT.model).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_representation_of_ours(params: Build, output: Path) -> None:
    own = params().represent
    image = own.preprocessing()
    trained = network.build(own.backbone, image.geometry, image.mean, image.std, CLASSES)
    network.save(trained, LAYOUT.model, backbone=own.backbone, header={"seed": 0})
    assert [exported(params(), output)[name] for name in ("epoch", "best_epoch", "best_acc")] == [None] * 3
    artifacts.write_csv(LAYOUT.history, [{"epoch": 1, "val": 0.25}, {"epoch": 2, "val": 0.5}])
    content = exported(params(), output)
    assert [content[name] for name in ("epoch", "best_epoch", "best_acc")] == [2, 2, 0.5]
    classifier = content["state_dict_best"]["classifier"]
    torch.testing.assert_close(research_logits(classifier), trained.head(FEATURES))
    import_checkpoint.run(params(), output)
    again, before = network.load(LAYOUT.model).state_dict(), trained.state_dict()
    assert all(torch.equal(again[name], before[name]) for name in before)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(
    ("head", "says"),
    {
        "crt": (LinearHead(draw(CLASSES, DIM), draw(CLASSES)), ""),
        "tau_norm": (LinearHead(draw(CLASSES, DIM), None), "the head has no bias: written as zeros\n"),
        "lws": (ScaledHead(draw(CLASSES, DIM), draw(CLASSES), draw(CLASSES)), "the classifier of lws with its scales"),
    }.values(),
    ids=["crt", "tau_norm", "lws"],
)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_variants_logits(
    head: heads.Head, says: str, temperature: float, params: Build, write: Write, output: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import_checkpoint.run(params(), write(best(states(scales=True))))
    head.temperature.fill_(temperature)
    save_head(head, "lws", val={"all": 0.75}, chosen={"epoch": 3})
    content = exported(params(), output, variant="lws")
    classifier = content["state_dict_best"]["classifier"]
    assert ("module.scales" in classifier) == isinstance(head, ScaledHead), "not the published ones"
    torch.testing.assert_close(research_logits(classifier), head(FEATURES).detach())
    assert [content[name] for name in ("epoch", "best_epoch", "best_acc")] == [3, 3, 0.75]
    said = capsys.readouterr().err
    assert says in said
    assert ("its temperature of 4 is divided into the weights\n" in said) == (temperature == 4)


@pytest.mark.parametrize("scale_bias", [True, False])
def test_scales_with_and_without_the_bias(scale_bias: bool) -> None:
    # s·(w·x + b) = 2·(3·5 + 4) = 38; s·(w·x) + b = 2·3·5 + 4 = 34.
    head = ScaledHead(torch.tensor([[3.0]]), torch.tensor([4.0]), torch.tensor([2.0]))
    head.scale_bias = scale_bias
    weight, bias, scales = export_checkpoint._linear(head, where="here")
    logits = torch.tensor([[5.0]]) @ weight.T + bias
    assert (logits if scales is None else logits * scales).tolist() == [[38.0 if scale_bias else 34.0]]
    assert any("spare a part" in remark for remark in export_checkpoint._remarks(head)) == (not scale_bias)


def test_an_offset_goes_into_the_bias() -> None:
    shift = torch.tensor([10.0])
    for head, expected in (
        (LinearHead(torch.tensor([[3.0]]), torch.tensor([4.0])), 3 * 5 + 4 + 10),
        (ScaledHead(torch.tensor([[3.0]]), torch.tensor([4.0]), torch.tensor([2.0])), 2 * (3 * 5 + 4) + 10),
    ):
        weight, bias, scales = export_checkpoint._linear(head.shifted(shift), where="here")
        assert scales is None
        assert (torch.tensor([[5.0]]) @ weight.T + bias).tolist() == [[expected]]


def test_a_head_that_does_not_fit_is_one_line(params: Build, write: Write, output: Path) -> None:
    import_checkpoint.run(params(), write(best(states())))
    save_head(NearestMeanHead(draw(CLASSES, DIM), draw(DIM), "l2n", "cosine"), "ncm")
    with pytest.raises(UserError, match=r"ncm/head\.safetensors: a nearest_mean head does not fit the format, which "):
        export_checkpoint.run(params(), output, variant="ncm")
    assert not output.exists()


def test_mistakes(params: Build, write: Write, output: Path) -> None:
    with pytest.raises(UserError, match=r"represent/model\.safetensors: no such file"):
        export_checkpoint.run(params(), output)
    import_checkpoint.run(params(), write(best(states())))
    with pytest.raises(UserError, match=r"^--variant: no such variant: rct; allowed: joint, ncm, crt"):
        export_checkpoint.run(params(), output, variant="rct")
    with pytest.raises(UserError, match=r"crt/head\.safetensors: no such file; `ltrec rebalance crt`"):
        export_checkpoint.run(params(), output, variant="crt")
    with pytest.raises(UserError, match="is a folder; a file is wanted"):
        export_checkpoint.run(params(), output.parent)
