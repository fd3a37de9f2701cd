"""The joint classifier of a frozen backbone, fitted on its features whatever their size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from ltrec.models.heads import LinearHead
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.probe import ProbeSettings

if TYPE_CHECKING:
    from tests.conftest import Banks

PRECISE = ProbeSettings(precision="fp32")


def zeros() -> LinearHead:
    return LinearHead(torch.zeros(3, 5), torch.zeros(3))


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_features_of_any_size_give_the_same_logits(size: float, banks: Banks) -> None:
    plain, scaled = zeros(), zeros()
    chosen = PRECISE.fit(plain, banks.train, banks.val, seed=0)
    train, val = (replace(bank, features=bank.features * size) for bank in (banks.train, banks.val))
    assert PRECISE.fit(scaled, train, val, seed=0) == chosen
    torch.testing.assert_close(scaled(val.plain), plain(banks.val.plain), atol=1e-3, rtol=1e-3)


def test_one_step_by_hand() -> None:
    # Features 1 and 7 have a mean square of 25: scaled to 0.2 and 1.4. With zero weights softmax is ½, and
    # dL/dw_0 = ½(−½·0.2 + ½·1.4) = 0.3; after a step of 0.1 w_0 is −0.03, of the features themselves −0.03/5.
    bank = FeatureBank(torch.tensor([[[1.0], [7.0]]]), torch.tensor([0, 1]), {})
    head = LinearHead(torch.zeros(2, 1), torch.zeros(2))
    settings = ProbeSettings(lr=0.1, more_lrs=[], epochs=1, batch_size=2, weight_decay=0.0, precision="fp32")
    assert settings.fit(head, bank, bank, seed=0) == {"epoch": 1}
    torch.testing.assert_close(head.weight.detach(), torch.tensor([[-0.006], [0.006]]))


def test_images_are_drawn_as_they_come() -> None:
    assert ProbeSettings().sampler.name == "instance_balanced"


def test_it_answers_for_the_prior_of_train(banks: Banks) -> None:
    head = zeros()
    ProbeSettings(precision="fp32", epochs=1).fit(head, banks.train, banks.val, seed=0)
    assert head.prior_power == 1.0


def test_features_that_are_all_zero_leave_the_bias_to_learn() -> None:
    bank = FeatureBank(torch.zeros(1, 4, 5), torch.tensor([0, 0, 1, 2]), {})
    head = zeros()
    PRECISE.fit(head, bank, bank, seed=0)
    assert head(bank.plain).isfinite().all()
