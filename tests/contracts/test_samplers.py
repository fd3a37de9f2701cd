"""What every sampler does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ltrec.training.samplers import Sampler, SamplerSettings
from tests.contracts.members import examples, through_yaml

if TYPE_CHECKING:
    from numpy.typing import NDArray

EPOCHS = 6
# Classes 1 and 4 have no image; images of a class do not lie together.
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 2, 3, 5], [40, 12, 3, 1]))

each = pytest.mark.parametrize("settings", examples(SamplerSettings), ids=lambda settings: settings.name)


def build(settings: Any, seed: int = 0) -> Sampler:
    sampler = settings.build(LABELS, seed=seed, epochs=EPOCHS)
    assert isinstance(sampler, Sampler)
    return sampler


def drawn(sampler: Sampler) -> list[NDArray[np.int64]]:
    return [sampler.epoch(epoch) for epoch in range(EPOCHS)]


@each
def test_yaml_round_trip(settings: Any) -> None:
    assert through_yaml(settings, SamplerSettings) == settings


@each
def test_an_epoch_draws_as_many_as_there_are_images(settings: Any) -> None:
    for indices in drawn(build(settings)):
        assert indices.shape == LABELS.shape
        assert indices.dtype == np.int64
        assert ((indices >= 0) & (indices < len(LABELS))).all()


@each
def test_every_class_with_images_comes_and_no_other(settings: Any) -> None:
    assert set(LABELS[np.concatenate(drawn(build(settings)))].tolist()) == {0, 2, 3, 5}


@each
def test_no_image_comes_twice_before_all_of_its_class_came_once(settings: Any) -> None:
    draws = np.concatenate(drawn(build(settings)))
    for label in (0, 2, 3, 5):
        of_class, size = draws[LABELS[draws] == label], int((label == LABELS).sum())
        for start in range(0, len(of_class), size):
            turn = of_class[start : start + size]
            assert len(np.unique(turn)) == len(turn)


@each
def test_the_seed_decides(settings: Any) -> None:
    first, again, other = (np.concatenate(drawn(build(settings, seed))) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@each
@pytest.mark.parametrize("done", [0, 1, 4])
def test_a_resume_draws_what_would_have_come(settings: Any, done: int) -> None:
    expected = drawn(build(settings))
    interrupted, resumed = build(settings), build(settings)
    for epoch in range(done):
        interrupted.epoch(epoch)
    resumed.load_state_dict(json.loads(json.dumps(interrupted.state_dict())))
    for epoch in range(done, EPOCHS):
        assert np.array_equal(resumed.epoch(epoch), expected[epoch])


@each
def test_the_callers_generator_is_left_alone(settings: Any) -> None:
    def state() -> str:
        return str(np.random.get_state())  # noqa: NPY002 - the global one is what is looked at

    before = state()
    drawn(build(settings))
    assert state() == before


@each
def test_the_last_epoch_draws_by_the_power_that_it_says(settings: Any) -> None:
    counts, draws = np.array([40, 12, 3, 1]), np.zeros(4)
    for seed in range(40):
        sampler = build(settings, seed)
        last = [sampler.epoch(epoch) for epoch in range(EPOCHS)][-1]
        draws += np.bincount(LABELS[last], minlength=6)[[0, 2, 3, 5]]
    wanted = counts**settings.prior_power / (counts**settings.prior_power).sum()
    # Of 2,240 draws a share's standard error is 0.011 at most.
    assert draws / draws.sum() == pytest.approx(wanted, abs=0.035)
