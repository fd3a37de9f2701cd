"""Draws: by content, balanced, disjoint, repeatable, and steady when the data grows or is renamed."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ltrec.artifacts import SPLITS
from ltrec.data.contents import Contents
from ltrec.data.drawing import Draw, Quota, carve, draw_key
from ltrec.data.image_lists import ImageList, make_list

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ltrec.artifacts import Split

    Splits = Mapping[Split, ImageList]


def images(*counts: int) -> ImageList:
    return make_list([(f"{label}/{n}.png", label) for label, count in enumerate(counts) for n in range(count)])


def exactly(number: int) -> Quota:
    return Quota(0, number, number)


def divided(
    whole: ImageList,
    seed: int = 0,
    *,
    digests: Mapping[str, bytes] | None = None,
    groups: Mapping[str, str] | None = None,
    kept: Collection[int] = (),
    **quotas: Quota,
) -> Splits:
    given: dict[Split, Quota] = {split: quotas[split] for split in ("test", "val") if split in quotas}
    return carve(whole, Draw(seed, Contents(digests), groups or {}).of_units(whole), given, whole=kept)


def counts(splits: Splits, classes: int) -> dict[str, list[int]]:
    return {split: of_split.counts(classes).tolist() for split, of_split in splits.items()}


def test_every_class_gives_the_same_number_and_no_image_twice() -> None:
    whole = images(30, 7, 12)
    splits = divided(whole, test=exactly(3), val=exactly(2))
    assert counts(splits, 3) == {"test": [3, 3, 3], "val": [2, 2, 2], "train": [25, 2, 7]}
    everything = list(itertools.chain.from_iterable(splits[split].paths for split in SPLITS))
    assert sorted(everything) == sorted(whole.paths)


def test_the_seed_decides_and_the_order_of_files_does_not() -> None:
    whole = images(30, 12)
    reverse = ImageList(whole.paths[::-1], whole.labels[::-1])
    first, again, other = (
        set(divided(source, seed, test=exactly(5))["test"].paths)
        for source, seed in ((whole, 0), (reverse, 0), (whole, 1))
    )
    assert first == again
    assert first != other


def test_the_draw_is_pinned() -> None:
    # Hashes of seed and path: the same on every machine and with every version of NumPy.
    assert divided(images(8), test=exactly(2))["test"].paths == ("0/5.png", "0/7.png")


def test_test_is_the_lowest_keys_and_val_the_highest() -> None:
    whole = images(50)
    by_key = sorted(whole.paths, key=lambda path: draw_key(3, path))
    splits = divided(whole, 3, test=exactly(4), val=exactly(6))
    assert set(splits["test"].paths) == set(by_key[:4])
    assert set(splits["val"].paths) == set(by_key[-6:])
    assert set(divided(whole, 3, val=exactly(6))["val"].paths) == set(by_key[-6:]), "test may be given"


def test_neither_test_nor_val_depends_on_the_others_size() -> None:
    first = divided(images(40, 40), 3, test=exactly(5), val=exactly(2))
    assert divided(images(40, 40), 3, test=exactly(5), val=exactly(9))["test"].paths == first["test"].paths
    assert divided(images(40, 40), 3, test=exactly(9), val=exactly(2))["val"].paths == first["val"].paths


def test_a_share_is_that_of_the_hash() -> None:
    whole = images(200)
    place = {path: draw_key(0, path) / 2**64 for path in whole.paths}
    splits = divided(whole, test=Quota(0.2, 1, None), val=Quota(0.1, 1, None))
    assert set(splits["test"].paths) == {path for path in whole.paths if place[path] < 0.2}
    assert set(splits["val"].paths) == {path for path in whole.paths if place[path] >= 0.9}
    # Of 200 draws, 40 ± 5.7 are below 0.2 and 20 ± 4.2 from 0.9 on.
    assert 20 < len(splits["test"]) < 60
    assert 5 < len(splits["val"]) < 35


def test_between_floor_and_cap_more_images_only_add() -> None:
    quotas = {"test": Quota(0.2, 2, 100), "val": Quota(0.1, 1, 100)}
    before = divided(images(40, 40), 1, **quotas)
    for grown in (images(41, 40), images(40, 90), images(400, 40, 70)):
        after = divided(grown, 1, **quotas)
        for split in SPLITS:
            assert set(before[split].paths) <= set(after[split].paths)


def test_a_floor_and_a_cap_hold_and_as_few_move_as_can() -> None:
    quotas = {"test": Quota(0.2, 5, 8), "val": Quota(0.1, 2, 4)}
    sizes = [8, 9, 12, 20, 60, 200]
    for count in sizes:
        found = counts(divided(images(count), 2, **quotas), 1)
        assert 5 <= found["test"][0] <= 8
        assert 2 <= found["val"][0] <= 4
        assert found["train"][0] >= 1
    # At the cap, an image that comes takes the place of one at most.
    for count in range(100, 120):
        before, after = (set(divided(images(n), 2, **quotas)["test"].paths) for n in (count, count + 1))
        assert len(before - after) <= 1


@pytest.mark.parametrize("seed", range(20))
def test_a_class_leaves_an_image_for_train_whatever_its_hashes(seed: int) -> None:
    splits = divided(images(3, 4), seed, test=Quota(0.6, 1, None), val=Quota(0.35, 1, None))
    for found in counts(splits, 2).values():
        assert min(found) >= 1


def test_copies_share_a_key_and_never_fall_apart() -> None:
    whole = images(40, 40)
    # Image n of either class is a copy of image n - 1 where n is odd; 0/39 is one of 1/38 and 1/39 as well.
    digests = {f"{label}/{n}.png": f"{label}{n // 2}".encode() for label in (0, 1) for n in range(40)}
    digests |= {"1/38.png": b"019", "1/39.png": b"019"}
    for seed in range(10):
        splits = divided(whole, seed, digests=digests, test=exactly(7), val=Quota(0.2, 3, None))
        assert Contents(digests).leaks(splits) == []
        # Pairs make 6 or 8 of 7.
        assert all(abs(number - 7) <= 1 for number in counts(splits, 2)["test"])


def test_a_copy_does_not_keep_a_number_from_being_exact() -> None:
    whole = images(30)
    digests = {path: path.encode() for path in whole.paths} | {"0/1.png": b"0/0.png"}
    for seed in range(30):
        splits = divided(whole, seed, digests=digests, test=exactly(3), val=exactly(2))
        assert counts(splits, 1) == {"test": [3], "val": [2], "train": [25]}


def test_names_decide_nothing_where_contents_are_known() -> None:
    before = images(30, 12)
    after = ImageList(tuple(path.replace("1/", "renamed/") for path in before.paths), before.labels)
    digests = {path: hashlib.sha256(path.encode()).digest() for path in before.paths}
    renamed = {new: digests[old] for new, old in zip(after.paths, before.paths, strict=True)}
    quotas = {"test": exactly(3), "val": Quota(0.1, 2, None)}
    first, second = divided(before, digests=digests, **quotas), divided(after, digests=renamed, **quotas)
    for split in SPLITS:
        assert [path.replace("renamed/", "1/") for path in second[split].paths] == list(first[split].paths)


def by_tens(whole: ImageList) -> dict[str, str]:
    """Groups of ten neighbours: 0/0 … 0/9 are `0/`, 0/10 … 0/19 are `0/1`, and so on."""
    return {path: path[:-5] for path in whole.paths}


def groups_of(splits: Splits, groups: Mapping[str, str]) -> list[set[str]]:
    return [{groups[path] for path in of_split.paths} for of_split in splits.values()]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("quota", [exactly(10), exactly(3), Quota(0.2, 5, 20), Quota(0.3, 1, None)])
def test_a_group_is_drawn_whole(seed: int, quota: Quota) -> None:
    whole = images(100, 60, 30)
    groups = by_tens(whole)
    splits = divided(whole, seed, groups=groups, test=quota, val=exactly(10))
    for one, other in itertools.combinations(groups_of(splits, groups), 2):
        assert one.isdisjoint(other)
    assert all(min(found) >= 10 and not any(number % 10 for number in found) for found in counts(splits, 3).values())


def test_a_group_stays_where_it_is_when_it_grows() -> None:
    quotas = {"test": Quota(0.3, 1, None), "val": Quota(0.2, 1, None)}
    before, after = (divided(images(n), groups=by_tens(images(n)), **quotas) for n in (95, 99))
    for split in SPLITS:
        assert set(before[split].paths) <= set(after[split].paths)


def test_groups_across_classes_and_copies_across_groups_stay_together() -> None:
    whole = images(40, 20)
    groups = {path: path.partition("/")[2][:-5] for path in whole.paths}  # 0/10 … 0/19 and 1/10 … 1/19 are `1`
    digests = {path: path.encode() for path in whole.paths} | {"0/20.png": b"copy", "0/30.png": b"copy"}
    for seed in range(10):
        splits = divided(whole, seed, digests=digests, groups=groups, test=exactly(10))
        one, other = groups_of(splits, groups)
        assert one.isdisjoint(other)
        assert ("2" in one) == ("3" in one)
        assert counts(splits, 2)["test"][1] == 10, "the rarest class decides"


def test_a_class_that_stays_whole_keeps_what_belongs_to_it() -> None:
    whole = images(40, 2)
    groups = {"0/0.png": "both", "1/0.png": "both"}
    for seed in range(10):
        splits = divided(whole, seed, groups=groups, kept={1}, test=Quota(0.5, 1, None))
        assert counts(splits, 2)["train"][1] == 2
        assert "0/0.png" in splits["train"].paths


def test_ranks_follow_the_keyed_hash_of_each_path() -> None:
    whole = images(20, 7)

    def key(path: str) -> bytes:
        return hashlib.blake2b(path.encode(), digest_size=8, key=b"5").digest()

    for label in (0, 1):
        own = np.flatnonzero(whole.labels == label)
        drawn = sorted((whole.paths[index] for index in own), key=key)
        ranks = Draw(5, Contents(None)).ranks(whole)
        assert ranks[own].tolist() == [drawn.index(whole.paths[index]) for index in own]


def test_keys_do_not_follow_the_names() -> None:
    taken = divided(images(1000), test=exactly(500))["test"]
    numbers = np.array([int(path[2:-4]) for path in taken.paths])
    # Of 500 drawn at random from 1000, 250 ± 11 (hypergeometric) have a number below 500.
    assert 200 < (numbers < 500).sum() < 300
