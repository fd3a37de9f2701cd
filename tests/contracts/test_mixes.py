"""What every mix of images does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ltrec.config.represent import RepresentSettings
from ltrec.training.mix_settings import MixSettings
from ltrec.training.mixing import MixedTargets, split_targets
from ltrec.training.samplers import InstanceBalanced
from tests.contracts.members import examples, through_yaml

if TYPE_CHECKING:
    from ltrec.training.mixing import Targets
    from ltrec.training.samplers import Sampler

EPOCHS, BATCH = 8, 5
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [15, 5, 2]))
IMAGES = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (22, 8, 8, 3)).astype(np.uint8))

each = pytest.mark.parametrize("settings", examples(MixSettings), ids=lambda settings: settings.name)


def sampler(settings: Any) -> Sampler:
    plain = InstanceBalanced().build(LABELS, seed=0, epochs=EPOCHS)
    drawing: Sampler = settings.draws(plain, LABELS, batch_size=BATCH, seed=0, epochs=EPOCHS)
    return drawing


def shown(settings: Any, indices: np.ndarray, epoch: int) -> list[tuple[torch.Tensor, Targets]]:
    parts = [indices[start : start + BATCH] for start in range(0, len(indices) // BATCH * BATCH, BATCH)]
    batches = [(IMAGES[part], torch.from_numpy(LABELS[part])) for part in parts]
    return list(settings.build(EPOCHS).batches(batches, epoch, (0, epoch, 0)))


@each
def test_yaml_round_trip(settings: Any) -> None:
    assert through_yaml(settings, MixSettings) == settings


@each
def test_an_epoch_has_as_many_updates_as_without_it(settings: Any) -> None:
    found = shown(settings, sampler(settings).epoch(4), 4)
    assert len(found) == len(LABELS) // BATCH
    for images, targets in found:
        assert images.shape == (BATCH, 8, 8, 3)
        assert isinstance(targets, MixedTargets)
        assert all(part.shape == (BATCH,) for part in targets)
        assert ((targets.shares >= 0) & (targets.shares <= 1)).all()
        assert [len(part.labels) for part in split_targets(targets, 2)] == [3, 2]  # type: ignore[union-attr]


@each
def test_the_images_that_are_mixed_are_those_of_the_sampler(settings: Any) -> None:
    plain = InstanceBalanced().build(LABELS, seed=0, epochs=EPOCHS).epoch(4)
    labels = [targets.labels for _, targets in shown(settings, sampler(settings).epoch(4), 4)]  # type: ignore[union-attr]
    assert torch.cat(labels).tolist() == LABELS[plain][:20].tolist()


@each
@pytest.mark.parametrize("done", [1, 4])
def test_a_resume_mixes_as_it_would_have(settings: Any, done: int) -> None:
    whole = sampler(settings)
    expected = [shown(settings, whole.epoch(epoch), epoch) for epoch in range(EPOCHS)]
    interrupted, resumed = sampler(settings), sampler(settings)
    for epoch in range(done):
        interrupted.epoch(epoch)
    resumed.load_state_dict(json.loads(json.dumps(interrupted.state_dict())))
    for epoch in range(done, EPOCHS):
        found = shown(settings, resumed.epoch(epoch), epoch)
        for (images, targets), (others, other_targets) in zip(found, expected[epoch], strict=True):
            assert torch.equal(images, others)
            assert len(targets) == len(other_targets), "mixed both, or neither"
            assert all(torch.equal(one, other) for one, other in zip(targets, other_targets, strict=True))


def test_the_foreground_is_a_draw_of_its_own_and_class_balanced() -> None:
    settings = next(member for member in examples(MixSettings) if member.name == "cmo")  # type: ignore[attr-defined]
    drawing = sampler(settings)
    turns = np.stack([drawing.epoch(epoch).reshape(-1, 2, BATCH) for epoch in range(30)])
    assert np.array_equal(turns[0, :, 0].ravel(), InstanceBalanced().build(LABELS, seed=0, epochs=EPOCHS).epoch(0)[:20])
    # 600 images in a cycle of three classes; each epoch's 22 draws end with two that no full batch has.
    shares = np.bincount(LABELS[turns[:, :, 1].ravel()], minlength=3) / 600
    assert shares == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize(
    ("mix", "epochs", "what"),
    [
        ({"name": "mixup", "alpha": 0.001}, 9, "alpha"),
        ({"name": "cutmix", "probability": 0.0}, 9, "probability"),
        ({"name": "cmo"}, 6, "3 epochs at the beginning and at the end leave none of 6 to mix in"),
        ({"name": "cmo", "plain_epochs": -1}, 6, "plain_epochs"),
        ({"name": "puzzle"}, 6, "cutmix"),
    ],
)
def test_what_no_mix_has_is_refused(mix: dict[str, Any], epochs: int, what: str) -> None:
    given = {"backbone": {"name": "cifar_resnet32"}, "epochs": epochs, "mix": mix}
    with pytest.raises(ValidationError, match=what):
        RepresentSettings.model_validate(given)
    if mix == {"name": "cmo"}:
        for enough in (0, 7):
            RepresentSettings.model_validate(given | {"epochs": enough})
