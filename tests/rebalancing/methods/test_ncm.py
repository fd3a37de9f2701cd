"""Nearest class mean against slow loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from ltrec.models.heads import LinearHead, NearestMeanHead
from ltrec.models.heads.nearest_mean import transformed
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.methods import ncm
from ltrec.rebalancing.methods.ncm import NcmSettings, class_means

if TYPE_CHECKING:
    from ltrec.models.heads.nearest_mean import Distance, Transform
    from tests.conftest import Banks


def means_of(features: torch.Tensor, labels: list[int], transform: Transform = "un") -> torch.Tensor:
    bank = FeatureBank(features if features.ndim == 3 else features[None], torch.tensor(labels), {})
    return class_means(bank, 3, [transform])[1][transform]


def test_means_by_hand() -> None:
    features = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 5.0]])
    means = means_of(features, [0, 0, 2])
    assert_close(means, torch.tensor([[2.0, 4.0], [0.0, 0.0], [5.0, 5.0]]))
    assert means.dtype == torch.float32
    # (3, 4)/5 and (0, 2)/2; of the mean feature (1, 3) the two lie at ±(2, 1), whose length is √5.
    pair = torch.tensor([[3.0, 4.0], [-1.0, 2.0]])
    assert_close(means_of(pair, [0, 0], "cl2n")[0], torch.zeros(2), atol=1e-6, rtol=0)
    assert_close(means_of(pair, [0, 1], "cl2n")[1], torch.tensor([-2.0, -1.0]) / 5**0.5)
    assert_close(means_of(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), [1, 1], "l2n")[1], torch.tensor([0.3, 0.9]))


def test_a_feature_of_zeros_stays_one() -> None:
    features = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    assert_close(means_of(features, [0, 0], "l2n")[0], torch.tensor([0.0, 0.5]))


def test_means_keep_their_digits_over_many_images() -> None:
    # Summed in float32, a million tenths come out some 1 % off.
    means = means_of(torch.full((1_000_000, 1), 0.1), [0] * 1_000_000)
    assert_close(means[0], torch.tensor([0.1]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("transform", ["un", "l2n", "cl2n"])
def test_all_views_count_however_images_are_ordered_and_bagged(
    transform: Transform, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(3, 40, 4, generator=generator), torch.randint(0, 3, (40,), generator=generator)
    flat = features.flatten(0, 1)
    changed = transformed(flat, flat.mean(dim=0), transform)
    wanted = torch.stack([changed[labels.repeat(3) == label].mean(dim=0) for label in range(3)])
    assert_close(means_of(features, labels.tolist(), transform), wanted)
    monkeypatch.setattr(ncm, "_IMAGES_A_BAG", 7)
    monkeypatch.setattr(ncm, "_IMAGES_AT_ONCE", 7)
    assert_close(means_of(features, labels.tolist(), transform), wanted)


@pytest.mark.parametrize("transform", ["un", "l2n", "cl2n"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize(("choice", "views"), [({}, 1), ({"views": "all"}, 3)])
def test_each_variant_as_a_slow_loop(
    banks: Banks, transform: Transform, distance: Distance, choice: dict[str, Any], views: int
) -> None:
    fitted = NcmSettings(method="ncm", transforms=[transform], distances=[distance], **choice).build(0).fit(*banks)
    averaged = banks.train.features[:views]
    images = [(view[i].double(), int(banks.train.labels[i])) for view in averaged for i in range(42)]
    center = torch.stack([x for x, _ in images]).mean(dim=0)

    def changed(x: torch.Tensor) -> torch.Tensor:
        moved = x - center if transform == "cl2n" else x
        return moved if transform == "un" else moved / moved.square().sum().sqrt()

    def apart(x: torch.Tensor, mean: torch.Tensor) -> float:
        if distance == "euclidean":
            return float((x - mean).square().sum().sqrt())
        return 1 - float((x * mean).sum() / (x.square().sum() * mean.square().sum()).sqrt())

    means = [torch.stack([changed(x) for x, label in images if label == j]).mean(dim=0) for j in range(3)]
    nearest = [min(range(3), key=lambda j: apart(changed(x.double()), means[j])) for x in banks.val.plain]
    assert fitted.head(banks.val.plain).argmax(dim=1).tolist() == nearest
    assert isinstance(fitted.head, NearestMeanHead)
    assert_close(fitted.head.means, torch.stack(means).float())


def test_the_best_on_val_is_chosen_and_all_are_in_the_curve() -> None:
    # Class 1 points where class 0 points, only farther out: lengths matter, directions say nothing.
    images = torch.tensor([[[1.0, 0.0], [2.0, 0.1], [20.0, 0.0], [22.0, 0.1]]])
    bank = FeatureBank(images, torch.tensor([0, 0, 1, 1]), {})
    joint = LinearHead(torch.zeros(2, 2), None)
    fitted = NcmSettings(method="ncm", transforms=["l2n", "un"]).build(0).fit(bank, bank, joint)
    assert (fitted.chosen["transform"], fitted.chosen["distance"]) == ("un", "euclidean")
    assert [(row["transform"], row["distance"]) for row in fitted.curve] == [
        ("l2n", "euclidean"), ("l2n", "cosine"), ("un", "euclidean"), ("un", "cosine"),
    ]  # fmt: skip
    assert fitted.curve[2]["val"] == 1.0


def test_a_distance_that_overflows_is_not_chosen(banks: Banks) -> None:
    # Squares of 1e30 are inf in float32; normalised features are as ever.
    train, val = (FeatureBank(1e30 * bank.features, bank.labels, {}) for bank in (banks.train, banks.val))
    settings = NcmSettings(method="ncm", transforms=["un", "l2n"], distances=["euclidean"])
    assert settings.build(0).fit(train, val, banks.joint).chosen["transform"] == "l2n"


def test_nothing_to_choose_from_is_refused() -> None:
    with pytest.raises(ValidationError, match="transforms"):
        NcmSettings(method="ncm", transforms=[])
