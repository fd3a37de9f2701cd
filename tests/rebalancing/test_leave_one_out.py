"""Suspected label errors by hand, and against means that are really taken without the image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ltrec.rebalancing.leave_one_out import find_suspects
from ltrec.rebalancing.selection import fit_temperature


def clouds(counts: tuple[int, ...], flipped: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, 6) around an axis a class, and their labels; the first image of class 0 is called `flipped`."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    features = 2 * torch.eye(len(counts), 6)[labels] + torch.randn(len(labels), 6, generator=generator) / 3
    labels[0] = flipped
    return features, labels


def test_by_hand() -> None:
    # Image 2 is called class 0 and points the way of class 1: without it the mean of class 0 is the first axis, at a
    # cosine of 0, and that of class 1 the second, at 1. Images 0 and 1 have the mean of each other and image 2, at
    # 1/√2, and class 1 at 0.
    features = torch.tensor([[1.0, 0], [5, 0], [0, 2], [0, 1], [0, 1]])
    labels = torch.tensor([0, 0, 0, 1, 1])
    found = find_suspects(features, labels)
    # The mean of class 0 is (2, 1)/3 for images 3 and 4: a cosine of 1/√5 there, 1 to their own.
    near, far = 0.5**0.5, 0.2**0.5
    logits = torch.tensor([[near, 0], [near, 0], [0, 1], [far, 1], [far, 1]])
    temperature, _ = fit_temperature(logits, labels)
    assert found.rows.tolist() == [2]
    assert found.guesses.tolist() == [1]
    assert found.confidences.tolist() == pytest.approx([float((logits[2] / temperature).softmax(0)[1])], rel=1e-4)
    assert found.judged == 5


@pytest.mark.parametrize("counts", [(12, 5, 2), (1500, 700, 30, 3)])
def test_the_closed_form_is_a_mean_without_the_image_in_however_many_blocks(counts: tuple[int, ...]) -> None:
    features, labels = clouds(counts, flipped=1)
    z = F.normalize(features.double(), dim=1)
    logits = torch.empty(len(labels), len(counts), dtype=torch.float64)
    for image in range(len(labels)):
        others = torch.arange(len(labels)) != image
        for label in range(len(counts)):
            mean = z[others & (labels == label)].mean(dim=0)
            logits[image, label] = torch.cosine_similarity(z[image], mean, dim=0)
    temperature, _ = fit_temperature(logits, labels)
    doubts = 1 - (logits / temperature).softmax(dim=1).gather(1, labels[:, None])[:, 0]
    found = find_suspects(features, labels)
    wanted = (logits.argmax(dim=1) != labels).nonzero()[:, 0]
    assert sorted(found.rows.tolist()) == wanted.tolist()
    assert found.guesses.tolist() == logits[found.rows].argmax(dim=1).tolist()
    assert found.rows[0] == 0
    torch.testing.assert_close(found.confidences, doubts[found.rows], rtol=1e-3, atol=1e-9)
    assert found.confidences.tolist() == find_suspects(features, labels).confidences.tolist()


def test_an_image_that_is_alone_in_its_class_is_not_judged_and_may_be_a_guess() -> None:
    features, labels = clouds((10, 10, 1))
    features[20] = features[3]  # Nothing tells that its label is right.
    labels[4], features[4] = 1, features[20]
    found = find_suspects(features, labels)
    assert found.judged == 20
    assert 20 not in found.rows.tolist()
    assert found.guesses[found.rows.tolist().index(4)] == 2


def test_classes_without_images_are_never_guessed() -> None:
    features, labels = clouds((6, 6, 6), flipped=1)
    found = find_suspects(-features, labels * 3)  # labels 0, 3 and 6
    assert set(found.guesses.tolist()) <= {0, 3, 6}
    assert found.rows.tolist() == find_suspects(-features, labels).rows.tolist()


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_one_class_or_no_class_of_two_has_no_suspects(labels: list[int]) -> None:
    assert len(find_suspects(torch.randn(3, 4), torch.tensor(labels)).rows) == 0


def test_a_class_without_spread_and_features_of_zero_do_no_harm() -> None:
    found = find_suspects(torch.zeros(6, 3), torch.tensor([0, 0, 0, 1, 1, 1]))
    assert bool(found.confidences.isfinite().all())
