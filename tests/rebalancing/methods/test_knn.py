"""The vote of the nearest neighbours, against a slow loop, and what a head of them costs."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from ltrec.errors import UserError
from ltrec.models.heads import KnnHead, LinearHead
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.methods import knn
from ltrec.rebalancing.methods.knn import KnnSettings
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    from tests.conftest import Banks


def test_the_vote_as_a_slow_loop(banks: Banks) -> None:
    head = KnnSettings(method="knn", neighbours=[6], sharpness=[0.3]).build(0).fit(*banks).head
    train = list(zip(banks.train.plain.double(), banks.train.labels.tolist(), strict=True))
    unit = torch.nn.functional.normalize(banks.train.plain.double(), dim=1)
    margin = 0.001 * float((unit - unit.mean(dim=0)).square().sum(dim=1).mean()) / 2
    wanted = []
    for x in banks.val.plain.double():
        distances = sorted((1 - float(x @ other / x.norm() / other.norm()), label) for other, label in train)
        edge = distances[6][0]
        votes = [0.0] * 3
        for distance, label in distances[:6]:
            votes[label] += math.exp((edge - distance) / (edge + margin) / 0.3) - 1
        # A class of n of the 42 images weighs 42/(3n).
        wanted.append([math.log(14 / n * vote + 0.2) for n, vote in zip((30, 10, 2), votes, strict=True)])
    assert_close(head.scores(banks.val.plain), torch.tensor(wanted), rtol=1e-4, atol=1e-4)


def test_one_neighbour_decides_alone(banks: Banks) -> None:
    head = KnnSettings(method="knn", neighbours=[1], sharpness=[1.0]).build(0).fit(*banks).head
    x, train = (torch.nn.functional.normalize(bank.plain, dim=1) for bank in (banks.val, banks.train))
    nearest = banks.train.labels[(x @ train.T).argmax(dim=1)]
    assert head(banks.val.plain).argmax(dim=1).tolist() == nearest.tolist()


def test_the_best_on_val_is_taken(banks: Banks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "_IMAGES_AT_ONCE", 9)
    fitted = KnnSettings(method="knn", neighbours=[1, 5, 20], sharpness=[0.1, 1.0]).build(0).fit(*banks)
    pairs = list(itertools.product([1, 5, 20], [0.1, 1.0]))
    assert [(row["neighbours"], row["sharpness"]) for row in fitted.curve] == pairs
    for (k, s), row in zip(pairs, fitted.curve, strict=True):
        alone = KnnSettings(method="knn", neighbours=[k], sharpness=[s]).build(0).fit(*banks).head
        assert balanced_accuracy(alone(banks.val.plain), banks.val.labels) == pytest.approx(row["val"])
    assert isinstance(fitted.head, KnnHead)
    assert fitted.head.options() == {name: fitted.chosen[name] for name in ("neighbours", "sharpness")}


def test_more_neighbours_than_images_are_all_but_one(banks: Banks) -> None:
    fitted = KnnSettings(method="knn", neighbours=[5, 50, 100]).build(0).fit(*banks)
    assert {row["neighbours"] for row in fitted.curve} == {5, 41}


def test_copies_of_one_image_give_finite_logits() -> None:
    bank = FeatureBank(torch.ones(1, 6, 2), torch.tensor([0, 0, 0, 1, 1, 1]), {})
    head = (
        KnnSettings(method="knn", neighbours=[1, 3]).build(0).fit(bank, bank, LinearHead(torch.zeros(2, 2), None)).head
    )
    assert torch.isfinite(head(torch.tensor([[1.0, 1.0], [0.0, 0.0], [-1.0, 2.0]]))).all()


def test_a_head_that_is_too_large_is_refused_in_a_line() -> None:
    bank = FeatureBank(torch.ones(1, 2**15, 2**6), torch.arange(2**15) % 2, {})  # 8 MiB
    joint = LinearHead(torch.zeros(2, 2**6), None)
    message = r"^a head of 32,768 training images with 64 features takes 8 MiB, .*; allowed: max_mib 7 \(a larger one"
    with pytest.raises(UserError, match=message):
        KnnSettings(method="knn", max_mib=7).build(0).fit(bank, bank, joint)


def test_one_image_has_no_neighbours() -> None:
    bank = FeatureBank(torch.ones(1, 1, 2), torch.tensor([0]), {})
    with pytest.raises(UserError, match="needs two training images"):
        KnnSettings(method="knn").build(0).fit(bank, bank, LinearHead(torch.zeros(1, 2), None))


def test_odd_settings_are_refused() -> None:
    for odd in ({"neighbours": [0]}, {"neighbours": []}, {"sharpness": [0.0]}, {"sharpness": []}, {"max_mib": 0}):
        with pytest.raises(ValidationError, match=next(iter(odd))):
            KnnSettings.model_validate({"method": "knn", **odd})
