"""What every rebalancing method does: a head from features, chosen on val, repeatable, nothing else changed."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
from pydantic import TypeAdapter

from ltrec.models import heads
from ltrec.rebalancing.complexity import Complexity
from ltrec.rebalancing.feature_bank import FeatureBank
from ltrec.rebalancing.methods import RebalancerSettings
from ltrec.training.samplers import SamplerSettings
from tests.contracts.members import examples, through_yaml
from tests.scores import balanced_accuracy

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.rebalancing.methods.base import FitResult
    from tests.conftest import Banks

each = pytest.mark.parametrize("settings", examples(RebalancerSettings), ids=lambda settings: settings.method)


trains = pytest.mark.parametrize(
    "settings",
    [settings for settings in examples(RebalancerSettings) if "sampler" in type(settings).model_fields],
    ids=lambda settings: settings.method,
)  # fmt: skip
any_sampler = pytest.mark.parametrize("sampler", examples(SamplerSettings), ids=lambda sampler: sampler.name)


def fit(settings: Any, banks: Banks, seed: int = 0) -> FitResult:
    fitted: FitResult = settings.build(seed).fit(*banks)
    return fitted


def same(first: heads.Head, second: heads.Head) -> bool:
    tensors, others = first.state_dict(), second.state_dict()
    return tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)


@each
def test_yaml_round_trip(settings: Any) -> None:
    assert through_yaml(settings, RebalancerSettings) == settings


@each
def test_it_says_how_complex_it_is(settings: Any) -> None:
    assert isinstance(settings.complexity, Complexity)
    assert "complexity" not in settings.model_dump()


@each
def test_a_head_for_the_features(settings: Any, banks: Banks) -> None:
    head = fit(settings, banks).head
    assert isinstance(head, heads.Head)
    assert head.dim == 5
    logits = head(banks.val.plain)
    assert logits.shape == (24, 3)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@each
def test_better_than_chance(settings: Any, banks: Banks) -> None:
    head = fit(settings, banks).head
    assert balanced_accuracy(head(banks.val.plain), banks.val.labels) > 0.5


@each
def test_twice_the_same_bits(settings: Any, banks: Banks) -> None:
    first, second = fit(settings, banks), fit(settings, copy.deepcopy(banks))
    assert same(first.head, second.head)
    assert (first.chosen, first.curve) == (second.chosen, second.curve)


@trains
@any_sampler
def test_any_sampler_will_do(settings: Any, sampler: Any, banks: Banks) -> None:
    content = settings.model_dump(mode="json") | {"sampler": sampler.model_dump(mode="json")}
    chosen: Any = TypeAdapter[Any](RebalancerSettings).validate_json(json.dumps(content))
    assert chosen.sampler == sampler
    first, again = fit(chosen, banks), fit(chosen, banks)
    assert same(first.head, again.head)
    # What it learnt depends on it.
    assert same(first.head, fit(settings, banks).head) is (sampler == settings.sampler)


@each
def test_neither_the_joint_head_nor_the_features_change(settings: Any, banks: Banks) -> None:
    given, before = copy.deepcopy(banks), banks
    head = fit(settings, given).head
    with torch.no_grad():
        for tensor in head.state_dict().values():
            tensor.fill_(9.0)  # nor through the new head
    assert same(given.joint, before.joint)
    for bank, earlier in ((given.train, before.train), (given.val, before.val)):
        assert torch.equal(bank.features, earlier.features)
        assert torch.equal(bank.labels, earlier.labels)


@each
def test_the_callers_generator_is_left_alone(settings: Any, banks: Banks) -> None:
    before = torch.random.get_rng_state()
    fit(settings, banks)
    assert torch.equal(torch.random.get_rng_state(), before)


@each
def test_what_was_chosen_can_be_written(settings: Any, banks: Banks) -> None:
    fitted = fit(settings, banks)
    assert json.loads(json.dumps(fitted.chosen, allow_nan=False)) == fitted.chosen
    assert json.loads(json.dumps(fitted.curve, allow_nan=False)) == fitted.curve
    assert all(0 <= float(row["val"]) <= 1 for row in fitted.curve)


@each
def test_the_head_is_the_best_of_the_curve(settings: Any, banks: Banks) -> None:
    fitted = fit(settings, banks)
    reached = balanced_accuracy(fitted.head(banks.val.plain), banks.val.labels)
    assert all(float(row["val"]) <= reached + 1e-9 for row in fitted.curve)


@each
def test_only_the_plain_view_of_val_counts(settings: Any, banks: Banks) -> None:
    noise = torch.randn(2, 24, 5, generator=torch.Generator().manual_seed(0))
    val = FeatureBank(torch.cat([banks.val.features, noise]), banks.val.labels, {})
    assert same(fit(settings, banks).head, fit(settings, banks._replace(val=val)).head)


@each
def test_a_saved_head_comes_back(settings: Any, banks: Banks, tmp_path: Path) -> None:
    head = fit(settings, banks).head
    heads.save(head, tmp_path / "head.safetensors", representation="digest")
    loaded = heads.load(tmp_path / "head.safetensors", representation="digest")
    assert same(loaded, head)
    assert loaded.prior_power == head.prior_power
    assert torch.equal(loaded(banks.val.plain), head(banks.val.plain))


class OnHost(torch.Tensor):
    """Features that a GPU had no room for: they can be cut and sent, and not computed with."""

    sent_to: ClassVar[list[torch.device]] = []
    _CUTS = frozenset({"__get__", "__getitem__", "__len__", "split", "size", "unbind", "__iter__", "dim"})

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is torch.Tensor.to:
            cls.sent_to.append(args[1])
            return args[0].as_subclass(torch.Tensor)
        if func.__name__ not in cls._CUTS | {"as_subclass"}:
            pytest.fail(f"{func.__name__} of the host's features with what is on the GPU")
        return super().__torch_function__(func, types, args, kwargs or {})


@each
def test_a_val_bank_that_stays_on_the_host_is_sent_some_images_at_a_time(settings: Any, banks: Banks) -> None:
    OnHost.sent_to.clear()
    val = FeatureBank(banks.val.features.as_subclass(OnHost), banks.val.labels, {})
    fitted = settings.build(0).fit(banks.train, val, banks.joint)
    assert same(fitted.head, fit(settings, banks).head)
    assert set(OnHost.sent_to) <= {banks.val.labels.device}
    assert OnHost.sent_to or fitted.curve == []


@each
def test_only_what_is_not_rebalanced_answers_for_the_prior_of_train(settings: Any, banks: Banks) -> None:
    joint = banks.joint.duplicate()
    joint.prior_power = 1.0
    head = settings.build(0).fit(banks.train, banks.val, joint).head
    # DisAlign weighs images by π^(−1.2).
    expected = {"joint": 1.0, "published": 1.0, "disalign": -0.2}.get(settings.method, 0.0)
    assert head.prior_power == pytest.approx(expected)


@trains
def test_a_trained_head_answers_for_what_it_drew(settings: Any, banks: Banks) -> None:
    content = settings.model_dump(mode="json") | {"sampler": {"name": "square_root"}}
    chosen: Any = TypeAdapter[Any](RebalancerSettings).validate_json(json.dumps(content))
    assert fit(chosen, banks).head.prior_power == 0.5
