"""Each head by hand, and what files of heads may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.testing import assert_close

from ltrec import artifacts
from ltrec.errors import UserError
from ltrec.models import heads
from ltrec.models.heads import (
    CosineHead,
    DisAlignHead,
    EnsembleHead,
    Head,
    KnnHead,
    LinearHead,
    NearestMeanHead,
    PublishedLwsHead,
    ScaledHead,
    base,
)
from ltrec.models.heads.linear import ScaledLogits, tau_normalised
from ltrec.models.heads.nearest_mean import Distance, Transform, transformed

if TYPE_CHECKING:
    from pathlib import Path

FEATURES = torch.tensor([[1.0, 2.0], [-3.0, 0.5], [0.0, 0.0]])
WEIGHT = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
NETWORK = "digest of a network"
BIAS = torch.tensor([0.5, -1.0, 0.0])
CENTER = torch.tensor([0.5, -0.5])
TRANSFORMS: tuple[Transform, ...] = ("un", "l2n", "cl2n")
DISTANCES: tuple[Distance, ...] = ("euclidean", "cosine")


def of_every_kind() -> list[Head]:
    return [
        LinearHead(WEIGHT, BIAS),
        LinearHead(WEIGHT, None),
        ScaledHead(WEIGHT, BIAS, torch.tensor([1.0, 0.5, -2.0])),
        ScaledHead(WEIGHT, None, torch.ones(3)),
        PublishedLwsHead(WEIGHT, BIAS, torch.tensor([1.0, 0.5, -2.0])),
        ScaledHead(WEIGHT, BIAS, torch.tensor([1.0, 0.5, -2.0]), scale_bias=False),
        CosineHead(WEIGHT, 16.0),
        NearestMeanHead(WEIGHT, CENTER, "cl2n", "cosine").shifted(BIAS),
        KnnHead(WEIGHT, CENTER, torch.tensor([0, 2, 1]), torch.ones(3), neighbours=2, sharpness=0.5),
        DisAlignHead(WEIGHT, BIAS, BIAS + 1, 2 * BIAS, CENTER, torch.tensor(0.5)),
        EnsembleHead(
            [
                LinearHead(2 * WEIGHT, None),
                CosineHead(WEIGHT, 16.0).shifted(BIAS),
                EnsembleHead([NearestMeanHead(WEIGHT.clone(), CENTER, "l2n", "cosine")], torch.ones(1)),
            ],
            torch.tensor([0.5, 0.2, 0.3]),
        ),
        *(NearestMeanHead(WEIGHT, CENTER, transform, distance) for transform in TRANSFORMS for distance in DISTANCES),
    ]


def test_linear_by_hand() -> None:
    assert_close(LinearHead(WEIGHT, BIAS)(FEATURES[:2]), torch.tensor([[1.5, 3.0, 11.0], [-2.5, 0.0, -7.0]]))
    assert_close(LinearHead(WEIGHT, None)(FEATURES[:1]), torch.tensor([[1.0, 4.0, 11.0]]))


def test_scales_cover_the_bias() -> None:
    head = ScaledHead(WEIGHT, BIAS, torch.tensor([2.0, 0.5, -1.0]))
    assert_close(head(FEATURES[:1]), torch.tensor([[3.0, 1.5, -11.0]]))


def test_scales_without_the_bias() -> None:
    # w_j·x = 1, 4, 11 for x = (1, 2): 2·1 + ½, ½·4 − 1, −11 + 0.
    head = ScaledHead(WEIGHT, BIAS, torch.tensor([2.0, 0.5, -1.0]), scale_bias=False)
    assert_close(head(FEATURES[:1]), torch.tensor([[2.5, 1.0, -11.0]]))


def test_without_a_bias_it_does_not_matter_whether_it_is_scaled() -> None:
    scale = torch.tensor([2.0, 0.5, -1.0])
    both = [ScaledHead(WEIGHT, None, scale, scale_bias=scale_bias)(FEATURES) for scale_bias in (True, False)]
    assert torch.equal(*both)


def test_scales_of_one_are_the_joint_classifier() -> None:
    features = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    joint = LinearHead(WEIGHT, BIAS)(features)
    assert torch.equal(ScaledHead(WEIGHT, BIAS, torch.ones(3))(features), joint)
    assert_close(ScaledHead(WEIGHT, BIAS, torch.ones(3), scale_bias=False)(features), joint)


def test_only_the_scales_of_a_scaled_head_learn() -> None:
    learnt = [name for name, parameter in ScaledHead(WEIGHT, BIAS, torch.ones(3)).named_parameters()
              if parameter.requires_grad]  # fmt: skip
    assert learnt == ["scale"]


def test_scaled_cosines_by_hand() -> None:
    # x = (1, 2) and w = (1, 0), (0, 2), (3, 4): 1/√5, 2/√5, (3 + 8)/(5√5), each times 10.
    cosines = torch.tensor([[4.472136, 8.944272, 9.838699]])
    assert_close(CosineHead(WEIGHT, 10.0)(FEATURES[:1]), cosines, atol=1e-5, rtol=0)
    assert torch.equal(CosineHead(WEIGHT, 10.0)(FEATURES[2:]), torch.zeros(1, 3)), "no features, no angle"


def test_lengths_make_no_difference_to_cosines() -> None:
    assert_close(CosineHead(3 * WEIGHT, 10.0)(7 * FEATURES), CosineHead(WEIGHT, 10.0)(FEATURES))


def test_cosine_heads_begin_with_rows_of_length_1() -> None:
    head = CosineHead.drawn(50, 8, 30.0)
    assert_close(head.weight.norm(dim=1), torch.ones(50))
    # Directions come from everywhere: with 50 of them the mean is short, 1/√50 on average.
    assert float(head.weight.detach().mean(dim=0).norm()) < 0.5


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_euclidean_ncm_chooses_the_nearest_mean(transform: Transform) -> None:
    generator = torch.Generator().manual_seed(0)
    features, means = torch.randn(200, 4, generator=generator), torch.randn(7, 4, generator=generator)
    center = torch.randn(4, generator=generator)
    z = transformed(features, center, transform)
    distances = (z[:, None, :] - means[None]).square().sum(dim=2)
    scores = NearestMeanHead(means, center, transform, "euclidean")(features)
    assert torch.equal(scores.argmax(dim=1), distances.argmin(dim=1))
    # Only ‖z‖², the same for all classes, is left out.
    assert_close(z.square().sum(dim=1, keepdim=True) - scores, distances, atol=1e-5, rtol=1e-5)


def test_cosine_ncm_by_hand() -> None:
    head = NearestMeanHead(WEIGHT, CENTER, "un", "cosine")
    # x = (1, 2): 1/√5, 2/√5, (3 + 8)/(5√5).
    assert_close(head(FEATURES[:1]), torch.tensor([[0.447214, 0.894427, 0.983870]]), atol=1e-6, rtol=0)


def test_transforms_as_a_slow_loop() -> None:
    for x, raw, l2n, cl2n in zip(
        FEATURES, *(transformed(FEATURES, CENTER, transform) for transform in TRANSFORMS), strict=True
    ):
        assert torch.equal(raw, x)
        length = sum(float(part) ** 2 for part in x) ** 0.5
        assert_close(l2n, torch.tensor([float(part) / length if length else 0.0 for part in x]))
        centred = [float(part - mid) for part, mid in zip(x, CENTER, strict=True)]
        length = sum(part**2 for part in centred) ** 0.5
        assert_close(cl2n, torch.tensor([part / length for part in centred]))


def test_temperature_divides_and_never_changes_which_class_wins() -> None:
    features = torch.randn(100, 2, generator=torch.Generator().manual_seed(1))
    for head in of_every_kind():
        before = head(features)
        head.temperature.fill_(4.0)
        assert torch.equal(head(features), before / 4)
        assert torch.equal(head(features).argmax(dim=1), before.argmax(dim=1))


def test_drawn_as_torch_draws() -> None:
    torch.manual_seed(5)
    expected = torch.nn.Linear(4, 3)
    torch.manual_seed(5)
    head = LinearHead.drawn(3, 4)
    assert torch.equal(head.weight, expected.weight)
    assert head.bias is not None
    assert torch.equal(head.bias, expected.bias)


def test_tau_normalised_by_hand() -> None:
    # Norms 1, 2 and 5: at τ = 2 divided by 1, 4 and 25, at τ = ½ by 1, √2 and √5.
    assert_close(tau_normalised(WEIGHT, 2.0), torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.12, 0.16]]))
    assert_close(tau_normalised(WEIGHT, 0.5), torch.tensor([[1.0, 0.0], [0.0, 1.414214], [1.341641, 1.788854]]))
    assert torch.equal(tau_normalised(WEIGHT, 0.0), WEIGHT)


@pytest.mark.parametrize("index", range(len(of_every_kind())))
def test_a_saved_head_comes_back(tmp_path: Path, index: int) -> None:
    head = of_every_kind()[index]
    head.temperature.fill_(0.7)
    heads.save(head, tmp_path / "head.safetensors", representation=NETWORK)
    loaded = heads.load(tmp_path / "head.safetensors", representation=NETWORK)
    assert type(loaded) is type(head)
    assert loaded.options() == head.options()
    assert (loaded.dim, loaded.classes) == (2, 3)
    assert not loaded.training
    assert torch.equal(loaded(FEATURES), head(FEATURES))


def test_truncated_and_missing_heads_are_the_users_to_mend(tmp_path: Path) -> None:
    file = tmp_path / "head.safetensors"
    with pytest.raises(UserError, match="no such file"):
        heads.load(file, representation=NETWORK)
    heads.save(LinearHead(WEIGHT, BIAS), file, representation=NETWORK)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match="damaged"):
        heads.load(file, representation=NETWORK)


@pytest.mark.parametrize(
    ("tensors", "header", "message"),
    [
        ({"weight": WEIGHT}, {"head": "quadratic", "options": {}}, "no head of a known kind"),
        ({"features": WEIGHT}, {"split": "train"}, "no head of a known kind"),
        ({"head.weight": WEIGHT, "backbone.w": BIAS}, {"head": "linear", "options": {}, "backbone": {}}, "no linear"),
        ({"weight": WEIGHT}, {"head": "linear", "options": {}}, "no linear head"),
        ({"weight": WEIGHT, "temperature": torch.ones(()), "more": BIAS}, {"head": "linear", "options": {}}, "more"),
        ({"weight": WEIGHT, "temperature": torch.ones(())}, {"head": "scaled", "options": {}}, "no scaled head"),
        ({"means": WEIGHT, "center": CENTER, "temperature": BIAS[0]}, {"head": "nearest_mean", "options": {}},
         "no nearest_mean head"),
        ({"weight": BIAS, "temperature": torch.ones(())}, {"head": "linear", "options": {}}, r"weight must be \(C,"),
        ({"weight": WEIGHT, "bias": BIAS[:2], "temperature": torch.ones(())}, {"head": "linear", "options": {}},
         "no linear head"),
        ({"weight": WEIGHT, "temperature": torch.ones(())}, {"head": "cosine", "options": {}}, "no cosine head"),
        ({"weight": WEIGHT, "temperature": torch.ones(())}, {"head": "cosine", "options": {"scale": "30"}},
         "no cosine head"),
        ({"weight": WEIGHT}, {"head": ["linear"], "options": {}}, "no head of a known kind"),
        ({"weight": WEIGHT, "temperature": torch.ones(())}, {"head": "scaled", "options": []}, "no scaled head"),
        ({"weights": BIAS[:1], "temperature": torch.ones(())}, {"head": "ensemble", "options": {}}, "no ensemble head"),
        ({"weights": BIAS[:1], "temperature": torch.ones(())}, {"head": "ensemble", "options": {"members": []}},
         "no ensemble head"),
        ({"weights": BIAS[:1], "temperature": torch.ones(())},
         {"head": "ensemble", "options": {"members": [{"head": "linear", "options": {}}]}}, "no linear head"),
        ({"means": WEIGHT[None], "center": CENTER, "temperature": torch.ones(())},
         {"head": "nearest_mean", "options": {"transform": "un", "distance": "cosine"}}, r"got \(1, 3, 2\)"),
    ],
)  # fmt: skip
def test_what_is_no_head_is_refused_in_one_line(
    tmp_path: Path, tensors: dict[str, torch.Tensor], header: dict[str, object], message: str
) -> None:
    file = tmp_path / "other.safetensors"
    artifacts.save_tensors(file, tensors, header | {"representation": NETWORK})
    with pytest.raises(UserError, match=f"other.safetensors: .*{message}") as raised:
        heads.load(file, representation=NETWORK)
    assert "\n" not in str(raised.value)


def test_a_head_for_another_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "head.safetensors"
    heads.save(LinearHead(WEIGHT, BIAS), file, representation=NETWORK)
    with pytest.raises(UserError, match=r"head\.safetensors: belongs to another network than is there now"):
        heads.load(file, representation="another")


def test_a_shift_is_added_to_the_logits_of_any_head_whatever_its_temperature() -> None:
    shift = torch.tensor([1.0, 0.0, -2.0])
    for head in (LinearHead(WEIGHT, BIAS), LinearHead(WEIGHT, None), NearestMeanHead(WEIGHT, CENTER, "un", "cosine")):
        head.temperature.fill_(2.0)
        shifted = head.shifted(shift)
        assert_close(shifted(FEATURES), head(FEATURES) + shift)
        assert_close(shifted.shifted(shift)(FEATURES), head(FEATURES) + 2 * shift)
        assert head.offset is None


def test_neighbours_by_hand() -> None:
    # Cosines of (1, 0) to the exemplars: 1, 0.8, 0; with k = 2 the edge is at distance 1. Whatever the center.
    exemplars = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    for center in (torch.zeros(2), CENTER):
        moved, weights = exemplars - center, torch.tensor([1.0, 3.0])
        head = KnnHead(moved, center, torch.tensor([0, 1, 0]), weights, neighbours=2, sharpness=0.5)
        margin = 1e-3 * moved.square().sum(dim=1).mean() / 2
        votes = weights * (torch.tensor([[1.0, 0.8]]) / (1 + margin) / 0.5).exp().sub(1)
        assert_close(head(torch.tensor([[5.0, 0.0]])), (votes + 0.2).log())


def test_aligned_logits_by_hand() -> None:
    # z = (1, 4, 11); σ = ½ for v·x + c = 0: half of each logit is aligned.
    head = DisAlignHead(WEIGHT, None, torch.tensor([2.0, 1.0, 0.0]), BIAS, torch.tensor([1.0, -1.0]), torch.tensor(1.0))
    assert_close(head(FEATURES[:1]), torch.tensor([[1.0 + 0.75, 4.0 - 0.5, 5.5]]))


def test_pooled_log_probabilities_by_hand() -> None:
    # Probabilities (½, ½) are odds of 1, (4/5, 1/5) of 4: their pool with weights ¾ and ¼ has odds of 1^¾·4^¼ = √2.
    # Each member has its own temperature: a logit of 2·log 4 at T = 2 gives odds of 4.
    even, sure = LinearHead(torch.zeros(2, 3), None), LinearHead(torch.zeros(2, 3), torch.tensor([4.0, 1.0]).log() * 2)
    sure.temperature.fill_(2.0)
    pool = EnsembleHead([even, sure], torch.tensor([0.75, 0.25]))
    z = pool(torch.zeros(1, 3))[0].detach()
    assert float((z[0] - z[1]).exp()) == pytest.approx(2**0.5)
    assert_close(z, 0.75 * torch.tensor([0.5, 0.5]).log() + 0.25 * torch.tensor([0.8, 0.2]).log())


def test_a_pool_answers_for_the_weighted_mean_of_its_members_priors(tmp_path: Path) -> None:
    plain, balanced = LinearHead(WEIGHT, BIAS), LinearHead(2 * WEIGHT, None)
    plain.prior_power = 1.0
    pool = EnsembleHead([plain, balanced], torch.tensor([0.25, 0.75]))
    assert pool.prior_power == 0.25
    heads.save(pool, tmp_path / "head.safetensors", representation=NETWORK)
    loaded = heads.load(tmp_path / "head.safetensors", representation=NETWORK)
    assert isinstance(loaded, EnsembleHead)
    assert [loaded.prior_power, *(head.prior_power for head in loaded.heads)] == [0.25, 1.0, 0.0]


def test_members_of_other_shapes_are_no_pool() -> None:
    with pytest.raises(ValueError, match="members"):
        EnsembleHead([LinearHead(WEIGHT, None), LinearHead(WEIGHT[:2], None)], torch.ones(2) / 2)
    with pytest.raises(ValueError, match="weights"):
        EnsembleHead([LinearHead(WEIGHT, None)], torch.ones(2) / 2)


def test_some_images_at_a_time_are_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_IMAGES_AT_ONCE", 2)
    head = LinearHead(WEIGHT, BIAS)
    assert [(some, len(logits)) for some, logits in heads.logits_in_blocks(head, FEATURES)] == [
        (slice(0, 2), 2),
        (slice(2, 4), 1),
    ]
    assert_close(heads.logits_of(head, FEATURES), head(FEATURES).detach())
    assert heads.predictions_of(head, FEATURES).tolist() == head(FEATURES).argmax(dim=1).tolist()
    assert not heads.logits_of(head, FEATURES).requires_grad


@pytest.mark.parametrize("scale_bias", [True, False])
def test_scales_on_joint_logits_are_the_scaled_head(scale_bias: bool) -> None:
    head = ScaledHead(WEIGHT, BIAS, torch.tensor([1.0, 0.5, -2.0]), scale_bias=scale_bias)
    scaled = ScaledLogits(head)
    assert_close(scaled(LinearHead(WEIGHT, BIAS)(FEATURES)), head(FEATURES))
    assert [parameter is head.scale for parameter in scaled.parameters() if parameter.requires_grad] == [True]
