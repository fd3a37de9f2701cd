"""Training on features: which epoch is kept, what learns, and when it stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError

from ltrec.errors import UserError
from ltrec.models.heads import LinearHead
from ltrec.rebalancing import head_training, selection
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.head_training import HeadTrainer
from ltrec.rebalancing.methods.base import HeadTrainingSettings
from ltrec.rebalancing.methods.lws import LwsSettings
from ltrec.training.losses.cross_entropy import CrossEntropy
from ltrec.training.samplers import InstanceBalanced
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ltrec.rebalancing.methods.base import Row
    from ltrec.training.samplers import Sampler
    from tests.conftest import Banks


def head() -> LinearHead:
    return LinearHead(torch.zeros(3, 5), torch.zeros(3))


def trainer(seed: int = 0, **settings: object) -> HeadTrainer:
    return HeadTrainingSettings.model_validate({"epochs": 12, "batch_size": 10, "lr": 0.5, **settings}).trainer(seed)


def fit(given: LinearHead, banks: Banks, trained: HeadTrainer) -> tuple[Row, list[Row]]:
    return trained.fit(given, banks.train, banks.val)


def test_twice_the_same_bits_and_another_seed_others(banks: Banks) -> None:
    first, again, other = head(), head(), head()
    curves = [fit(given, banks, trainer(seed))[1] for given, seed in ((first, 0), (again, 0), (other, 1))]
    assert torch.equal(first.weight, again.weight)
    assert curves[0] == curves[1] != curves[2]


def test_the_best_epoch_on_val_is_kept(banks: Banks) -> None:
    given = head()
    kept, curve = fit(given, banks, trainer())
    best = max(float(row["val"]) for row in curve)
    assert [row["epoch"] for row in curve] == list(range(1, 13))
    assert curve[int(kept["epoch"]) - 1]["val"] == best
    assert balanced_accuracy(given(banks.val.plain), banks.val.labels) == pytest.approx(best)
    assert float(curve[-1]["val"]) < best, "else the last epoch would do as well"


def test_one_step_by_hand() -> None:
    # One image of each class, zero weights: softmax is ½, the gradient of the logits ∓½ · ½ (the mean of two).
    bank = FeatureBank(torch.tensor([[[2.0], [4.0]]]), torch.tensor([0, 1]), {})
    given = LinearHead(torch.zeros(2, 1), torch.zeros(2))
    settings = HeadTrainingSettings(epochs=1, batch_size=2, lr=0.1, weight_decay=0.0, sampler=InstanceBalanced())
    kept, curve = settings.trainer(0).fit(given, bank, bank)
    # dL/dw_0 = ½(−½·2 + ½·4) = ½, and w_1 the opposite.
    torch.testing.assert_close(given.weight.detach(), torch.tensor([[-0.05], [0.05]]))
    assert kept == {"epoch": 1}
    assert curve == [{"epoch": 1, "loss": pytest.approx(0.693147), "val": 0.5}]


def test_only_what_requires_a_gradient_learns(banks: Banks) -> None:
    given = head()
    given.weight.requires_grad_(requires_grad=False)
    fit(given, banks, trainer())
    assert torch.equal(given.weight, torch.zeros(3, 5))
    assert given.bias is not None
    assert not torch.equal(given.bias, torch.zeros(3))


class Recorder(LinearHead):
    """Which inputs came: each is its own number."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(2, 1), None)
        self.seen: list[float] = []

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        self.seen += features[:, 0].tolist()
        return super().scores(features)


def test_every_view_of_an_image_is_drawn() -> None:
    numbers = torch.arange(300.0).reshape(3, 100, 1)
    recorder = Recorder()
    settings = HeadTrainingSettings(epochs=30, batch_size=100, lr=1e-6, sampler=InstanceBalanced())
    train = FeatureBank(numbers, torch.arange(100) % 2, {})
    settings.trainer(0).fit(recorder, train, FeatureBank(torch.zeros(1, 2, 1), torch.tensor([0, 1]), {}))
    seen = torch.tensor([number for number in recorder.seen if number]).long()
    assert len(torch.unique(seen)) == 299  # all but number 0
    counts = torch.bincount(seen // 100, minlength=3).double()
    # 3,000 draws, a third for each view: 1000 ± 3·26 (and some zeros of val are not counted).
    assert ((counts - 1000).abs() < 100).all()


def test_views_do_not_follow_from_what_the_sampler_drew(monkeypatch: pytest.MonkeyPatch) -> None:
    from ltrec.rebalancing import feature_bank as features

    seeds: list[object] = []
    real = features.np.random.default_rng
    monkeypatch.setattr(features.np.random, "default_rng", lambda seed: seeds.append(seed) or real(seed))
    bank = FeatureBank(torch.zeros(2, 6, 1), torch.tensor([0, 1] * 3), {})
    trainer(epochs=1, sampler=InstanceBalanced()).fit(LinearHead(torch.zeros(2, 1), None), bank, bank)
    assert len(seeds) == 2
    assert seeds[0] != seeds[1]


def test_a_loss_that_is_not_finite_says_where(banks: Banks) -> None:
    features = banks.train.features.clone()
    features[:, 3] = float("inf")
    poisoned = banks._replace(train=FeatureBank(features, banks.train.labels, {}))
    with pytest.raises(UserError, match=r"the loss is nan at epoch 1, step \d; a lower lr than 0.5 may help"):
        fit(head(), poisoned, trainer(sampler=InstanceBalanced()))


def test_a_batch_larger_than_the_split_is_the_whole_split(banks: Banks) -> None:
    _, curve = fit(head(), banks, trainer(batch_size=1000, epochs=2))
    assert len(curve) == 2


def test_the_sampler_is_the_one_asked_for(banks: Banks) -> None:
    asked: list[int] = []

    def spy(labels: NDArray[np.int64]) -> Sampler:
        asked.append(len(labels))
        return InstanceBalanced().build(labels, seed=8, epochs=3)

    options = {"epochs": 3, "batch_size": 10, "seed": 8, "lrs": [0.1], "momentum": 0.9, "weight_decay": 0.0}
    fit(head(), banks, HeadTrainer(spy, CrossEntropy().build, **options))
    assert asked == [len(banks.train.labels)]


def test_several_learning_rates_are_as_many_trainings(banks: Banks) -> None:
    lrs = [0.5, 0.01, 2.0]
    together, alone = head(), [head() for _ in lrs]
    chosen, curve = fit(together, banks, trainer(lr=lrs[0], more_lrs=lrs[1:]))
    curves = [fit(given, banks, trainer(lr=lr))[1] for given, lr in zip(alone, lrs, strict=True)]
    assert curve == [{"lr": lr} | row for rows in zip(*curves, strict=True) for lr, row in zip(lrs, rows, strict=True)]
    best = max(float(row["val"]) for row in curve)
    kept = next(row for row in curve if row["lr"] == chosen["lr"] and row["epoch"] == chosen["epoch"])
    assert kept["val"] == best == pytest.approx(balanced_accuracy(together(banks.val.plain), banks.val.labels))


def test_several_learning_rates_see_each_batch_once(banks: Banks, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = FeatureBank.batches
    monkeypatch.setattr(FeatureBank, "batches", lambda *given, **named: made.append(1) or real(*given, **named))
    fit(head(), banks, trainer(epochs=3, more_lrs=[0.1, 0.2]))
    assert len(made) == 3


def test_the_learning_rate_that_diverges_is_named(banks: Banks) -> None:
    with pytest.raises(UserError, match=r"a lower lr than 1e\+38 may help"):
        fit(head(), banks, trainer(more_lrs=[1e38]))


def test_bf16_products_leave_weights_and_losses_in_float32(banks: Banks) -> None:
    exact, rounded = head(), head()
    _, curve = fit(exact, banks, trainer())
    settings = HeadTrainingSettings(epochs=12, batch_size=10, lr=0.5)
    _, curve_rounded = settings.trainer(0, "bf16").fit(rounded, banks.train, banks.val)
    assert rounded.weight.dtype == torch.float32
    assert not torch.equal(rounded.weight, exact.weight)
    # A bf16 has 8 bits.
    torch.testing.assert_close(rounded.weight, exact.weight, atol=0.05, rtol=0.02)
    assert [row["loss"] for row in curve_rounded] == pytest.approx([row["loss"] for row in curve], abs=2e-3)


def test_a_bank_rounded_at_once_or_batch_by_batch_is_the_same(banks: Banks, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, at_once, by_batch = HeadTrainingSettings(epochs=3, batch_size=10), head(), head()
    settings.trainer(0, "bf16").fit(at_once, banks.train, banks.val)
    monkeypatch.setattr(head_training, "_ROUNDED_BYTES", 0)
    settings.trainer(0, "bf16").fit(by_batch, banks.train, banks.val)
    assert torch.equal(at_once.weight, by_batch.weight)


def test_the_last_update_of_an_epoch_is_seen(banks: Banks) -> None:
    # One update in all: its loss, log 3, is finite; the weights that it leads to are not.
    wild = trainer(epochs=1, batch_size=42, lr=1e38, sampler=InstanceBalanced())
    far = FeatureBank(1000 * banks.train.features, banks.train.labels, {})
    with pytest.raises(
        UserError, match=r"^the largest logit on val is (nan|inf) at epoch 1, step 1; a lower lr than 1e\+38"
    ):
        fit(head(), banks._replace(train=far), wild)


def test_rows_are_no_longer_than_max_norm(banks: Banks) -> None:
    free, bounded, several = head(), head(), head()
    fit(free, banks, trainer())
    assert (free.weight.norm(dim=1) > 0.3).all(), "else there is nothing to bound"
    fit(bounded, banks, trainer(max_norm=0.3))
    # torch leaves a ten-millionth of room below.
    torch.testing.assert_close(bounded.weight.norm(dim=1), torch.full((3,), 0.3), atol=1e-4, rtol=0)
    assert (bounded.weight.norm(dim=1) <= 0.3).all()
    fit(several, banks, trainer(max_norm=0.3, more_lrs=[5.0]))
    assert (several.weight.norm(dim=1) <= 0.3).all()
    wide = head()
    fit(wide, banks, trainer(max_norm=100.0))
    assert torch.equal(wide.weight, free.weight), "what is short enough stays as it is"


def test_one_bounded_step_by_hand() -> None:
    # As above, but the step leads to rows of ∓0.05, in length 0.05: cut to 0.02.
    bank = FeatureBank(torch.tensor([[[2.0], [4.0]]]), torch.tensor([0, 1]), {})
    given = LinearHead(torch.zeros(2, 1), torch.zeros(2))
    trainer(epochs=1, batch_size=2, lr=0.1, weight_decay=0.0, sampler=InstanceBalanced(), max_norm=0.02).fit(
        given, bank, bank
    )
    torch.testing.assert_close(given.weight.detach(), torch.tensor([[-0.02], [0.02]]), atol=1e-6, rtol=0)


def test_rows_that_do_not_train_cannot_be_bounded(banks: Banks) -> None:
    with pytest.raises(ValidationError, match="bounds the rows of W, and lws trains none; allowed here: null"):
        LwsSettings(method="lws", max_norm=1.0)
    given = head()
    given.weight.requires_grad_(False)
    with pytest.raises(UserError, match="max_norm bounds the rows of W, and of this head none train"):
        trainer(max_norm=1.0).fit(given, banks.train, banks.val)


def test_class_weights_count_from_their_start(banks: Banks) -> None:
    def rows(**weights: object) -> list[Row]:
        loss = {"name": "cross_entropy"} | ({"class_weights": weights} if weights else {})
        return fit(head(), banks, trainer(sampler=InstanceBalanced(), epochs=4, loss=loss))[1]

    plain, late, always = rows(), rows(start=0.5), rows(start=0.0)
    assert late[:2] == plain[:2]
    assert late[2] != plain[2]
    assert always[0] != plain[0]


def test_logits_on_val_are_held_in_blocks_or_not_at_all(banks: Banks, monkeypatch: pytest.MonkeyPatch) -> None:
    # Few images and many epochs: accuracies are often equal, and the likelihood has to be fitted.
    options: dict[str, object] = {"more_lrs": [0.1, 0.02]}
    given, again = head(), head()
    expected = fit(given, banks, trainer(**options))
    monkeypatch.setattr(selection, "_KEPT_BYTES", 0)
    monkeypatch.setattr(selection, "_IMAGES_AT_ONCE", 7)
    monkeypatch.setattr("ltrec.models.heads.base._IMAGES_AT_ONCE", 7)
    largest: list[int] = []
    real = LinearHead.forward
    monkeypatch.setattr(LinearHead, "forward", lambda self, x: largest.append(len(x)) or real(self, x))
    assert fit(again, banks, trainer(**options)) == expected
    assert torch.equal(again.weight, given.weight)
    assert max(largest) == 10, "a batch; val's 24 images come in sevens"
