"""Which images are the same, with their bytes at hand and without."""

from __future__ import annotations

import hashlib

from ltrec.data.contents import Contents
from ltrec.data.image_lists import make_list

TRAIN, VAL, TEST = (
    make_list([("t/0", 0), ("t/1", 1), ("shared", 1)]),
    make_list([("v/0", 0), ("shared", 1)]),
    make_list([("s/0", 0), ("shared", 1), ("v/0", 1)]),
)


def test_without_files_the_same_path_is_the_same_image() -> None:
    assert sorted(Contents(None).leaks({"train": TRAIN, "val": VAL, "test": TEST})) == [
        "shared in train = shared in val",
        "v/0 in val = v/0 in test",
    ]


def test_with_files_the_same_bytes_are_the_same_image() -> None:
    digests = {path: path.encode() for path in ("t/0", "t/1", "v/0", "s/0", "shared")} | {"s/0": b"t/1"}
    assert sorted(Contents(digests).leaks({"train": TRAIN, "val": VAL, "test": TEST})) == [
        "shared in train = shared in val",
        "t/1 in train = s/0 in test",
        "v/0 in val = v/0 in test",
    ]
    twice = make_list([("a", 0), ("b", 0)])
    assert Contents({"a": b"x", "b": b"x", "c": b"y"}).leaks({"train": twice, "val": make_list([("c", 0)])}) == []


def test_without_files_the_digest_is_over_paths_and_labels() -> None:
    assert Contents(None).digest([VAL]) == hashlib.sha256(b"v/0 0\nshared 1\n\0").hexdigest()
    assert Contents(None).digest([VAL]) != Contents(None).digest([make_list([("v/0", 1), ("shared", 1)])])


def test_a_lists_digest_is_of_contents_and_labels_in_order() -> None:
    digests = {"a/0": b"0", "a/1": b"1", "b/0": b"0", "b/1": b"1"}

    def digest(*pairs: tuple[str, int]) -> str:
        return Contents(digests).list_digest(make_list(pairs))

    first = digest(("a/0", 0), ("a/1", 1))
    assert first == digest(("b/0", 0), ("b/1", 1)), "names do not matter"
    assert len({first, digest(("a/1", 1), ("a/0", 0)), digest(("a/0", 1), ("a/1", 1)), digest(("a/0", 0))}) == 4
    assert Contents(None).list_digest(VAL) == Contents(None).digest([VAL])
