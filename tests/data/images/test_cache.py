"""Copies of large originals: named by content, made once, and never those of another image."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ltrec.config.prepare import PrepareSettings
from ltrec.data.images.cache import Cache, CacheSettings, cache_text, training_files
from ltrec.data.images.decoding import decode_part, decode_rgb
from ltrec.errors import UserError

PATHS = ["large.jpg", "small.jpg", "tall.png"]
SETTINGS = CacheSettings(short_side=20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for path, size in zip(PATHS, ((60, 45), (60, 24), (30, 90)), strict=True):
        small = random.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(tmp_path / path)
    return tmp_path


def digests(root: Path) -> dict[str, bytes]:
    return {path: hashlib.sha256((root / path).read_bytes()).digest() for path in PATHS}


def files(root: Path, settings: CacheSettings | None = SETTINGS, lines: str | None = None) -> list[Path]:
    listed = root / "train.cache.txt"
    listed.write_text(cache_text(settings, root, PATHS, digests(root)) if lines is None else lines, encoding="utf-8")
    return [root / path for path in training_files(listed, root, PATHS, folder=root / "cache")]


@pytest.mark.parametrize("settings", [SETTINGS, CacheSettings(short_side=20, format="raw")])
def test_large_originals_are_copied_and_others_are_used_themselves(root: Path, settings: CacheSettings) -> None:
    large, small, tall = files(root, settings)
    assert small == root / "small.jpg", "24 pixels are less than one and a quarter of 20"
    for copy, original, size in ((large, "large.jpg", (27, 20)), (tall, "tall.png", (20, 60))):
        seen: list[tuple[int, int]] = []

        def whole(width: int, height: int, seen: list[tuple[int, int]] = seen) -> tuple[int, int, int, int]:
            seen.append((width, height))
            return 0, 0, width, height

        pixels = decode_part(copy, whole, 8).astype(int)
        assert seen == [size]
        wanted = np.asarray(decode_rgb(root / original).resize(size, Image.Resampling.BICUBIC))
        assert np.abs(pixels - wanted).mean() <= (0 if settings.format == "raw" else 10)
    part = decode_part(large, lambda _w, _h: (3, 2, 13, 18), 8)
    assert part.shape == (16, 10, 3)


def test_without_a_cache_the_originals_are_read(root: Path) -> None:
    assert files(root, None) == [root / path for path in PATHS]
    assert list(training_files(root / "none.txt", root, PATHS, folder=root / "cache")) == PATHS


def test_a_copy_is_made_once_and_a_lost_one_again(root: Path) -> None:
    large, _, tall = files(root)
    before = {copy: (copy.stat().st_mtime_ns, copy.read_bytes()) for copy in (large, tall)}
    tall.unlink()
    assert files(root)[2] == tall
    assert tall.read_bytes() == before[tall][1]
    assert large.stat().st_mtime_ns == before[large][0]


def test_processes_share_the_copying(root: Path) -> None:
    listed = root / "train.cache.txt"
    listed.write_text(cache_text(SETTINGS, root, PATHS, digests(root)), encoding="utf-8")
    for number, made in enumerate(([True, False], [True, True])):
        large, _, tall = training_files(listed, root, PATHS, folder=root / "cache", share=(number, 2))
        assert [Path(large).exists(), Path(tall).exists()] == made


def test_a_filling_that_was_interrupted_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = Cache._make, list[str]()

    def interrupted(self: Cache, digest: str, original: Path, truncated: bool) -> None:
        if made:
            raise KeyboardInterrupt
        made.append(original.name)
        make(self, digest, original, truncated)

    monkeypatch.setattr(Cache, "_make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files(root)
    assert not list(root.glob("cache/**/*.tmp"))
    monkeypatch.setattr(Cache, "_make", make)
    assert all(file.exists() for file in files(root))


def test_other_settings_have_other_copies(root: Path) -> None:
    first, second = files(root)[0], files(root, CacheSettings(short_side=20, quality=50))[0]
    assert first != second
    assert first.stat().st_size > second.stat().st_size


def test_an_original_that_changed_is_one_line_and_its_old_copy_is_not_its(root: Path) -> None:
    files(root)
    text = (root / "train.cache.txt").read_text()
    Image.new("RGB", (60, 45)).save(root / "large.jpg")
    assert files(root, lines=text)[0].exists(), "what was prepared is still there"
    for copy in root.glob("cache/**/*.jpg"):
        copy.unlink()
    with pytest.raises(UserError, match=r"large\.jpg: has changed since `prepare`; run `dvc repro`"):
        files(root, lines=text)
    assert files(root)[0] != text


@pytest.mark.parametrize(("lines", "words"), [("nothing\n", "names no cache"), ("{}\n-\n", "has 1 images, the list 3")])
def test_a_list_that_does_not_fit_is_one_line(root: Path, lines: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        files(root, lines=lines)
    assert "\n" not in str(raised.value)


def test_it_goes_by_contents() -> None:
    with pytest.raises(ValidationError, match="decode must be true"):
        PrepareSettings(cache=SETTINGS, decode=False)
