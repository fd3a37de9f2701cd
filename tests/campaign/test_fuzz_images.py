"""Hostile image files and CSV texts by the ten thousand: each ends in a result or in one line, and none takes long."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ltrec.data.images import decoding
from ltrec.data.images.formats import UnreadableImageError
from ltrec.data.images.jpeg import decode_part
from ltrec.data.sources.table import CsvSource
from ltrec.errors import UserError
from tests.campaign.fuzzing import campaign, counted, folder, one_line_or_done
from tests.campaign.inputs import FLIPS, LABELS, PATHS, PHOTOGRAPHS, PROFILES, flipped, whole

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.campaign
__all__ = ("counted", "folder")  # fixtures


class TestText:
    """CSV text in any encoding, with any separator, also one that it does not say."""

    @campaign(0.5)
    @given(
        st.lists(st.tuples(PATHS, LABELS), max_size=4), st.sampled_from([",", ";", "\t", "|"]), FLIPS, st.floats(0, 1),
        st.sampled_from(["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "shift_jis", "cp037"]),
        st.sampled_from([None, "cp1252", "utf-16", "utf-7", "punycode"]),
    )  # fmt: skip
    def test_encodings(
        self, folder: Path, rows: list[tuple[str, str]], sign: str, flips: list[tuple[float, int]], cut: float,
        encoding: str, said: str | None,
    ) -> None:  # fmt: skip
        text = "\n".join(map(sign.join, [("path", "label"), *rows]))
        (folder / "text.csv").write_bytes(flipped(text.encode(encoding, "replace"), flips, cut))
        with one_line_or_done():
            CsvSource(kind="csv", root=str(folder), file="text.csv", encoding=said).scan()


class TestPhotographs:
    """Image files of every kind that is read or named, damaged: decoded or refused, strictly and as far as they go."""

    @campaign(2)
    @given(st.sampled_from(sorted(PHOTOGRAPHS)), FLIPS, st.floats(0, 1), st.booleans())
    def test_bytes(self, folder: Path, kind: str, flips: list[tuple[float, int]], cut: float, truncated: bool) -> None:
        self.read(folder / f"a.{kind}", flipped(PHOTOGRAPHS[kind], flips, cut), truncated=truncated)

    @campaign(0.2)
    @given(st.sampled_from(["RGB", "CMYK"]), FLIPS, st.floats(0, 1))
    def test_profiles(self, folder: Path, mode: str, flips: list[tuple[float, int]], cut: float) -> None:
        content = io.BytesIO()
        Image.new(mode, (8, 8), "red").save(content, "TIFF", icc_profile=flipped(PROFILES[mode], flips, cut) or None)
        self.read(folder / "a.tif", content.getvalue(), truncated=False)

    def read(self, file: Path, content: bytes, *, truncated: bool) -> None:
        file.write_bytes(content)
        for decode in (decoding.decode_rgb, lambda file, truncated: decode_part(file, whole, 8, truncated=truncated)):
            with one_line_or_done():
                try:
                    decode(file, truncated=truncated)
                except UnreadableImageError as error:
                    raise UserError(str(error)) from None
