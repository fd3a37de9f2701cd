"""Hostile and broken files by the ten thousand: each ends in a result or in one line, and none takes long.

`LTREC_CAMPAIGN_EXAMPLES` says how many there are of each kind.
"""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from ltrec.config import params
from ltrec.data.image_lists import list_text, read_classes, read_list
from ltrec.data.sources.inaturalist import INaturalistSource
from ltrec.data.sources.table import CsvSource
from ltrec.models.checkpoints import read_checkpoint
from ltrec.models.weights import read_state_dict
from ltrec.published import content as published
from ltrec.published.import_features import _arrays
from ltrec.published.pickles import read_pickle
from tests.campaign.fuzzing import Current, campaign, counted, folder, one_line_or_done
from tests.campaign.inputs import (
    FLIPS,
    JSON,
    LABELS,
    PATHS,
    PLACES,
    SCALARS,
    SPLITS,
    TEXT,
    flipped,
    spliced,
)
from tests.commands import ltrec
from tests.hostile import ARRAYS, hostile

pytestmark = pytest.mark.campaign
__all__ = ("counted", "folder")  # fixtures

GOOD = (Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8")


class TestParams:
    @campaign(0.5)
    @given(PLACES)
    def test_a_good_file_with_stretches_replaced(self, places: list[tuple[float, float, str]]) -> None:
        with one_line_or_done():
            params.parse(spliced(GOOD, places))

    @campaign(0.5)
    @given(st.sampled_from([line for line in GOOD.splitlines() if ":" in line]), TEXT)
    def test_a_good_file_with_a_value_replaced(self, line: str, word: str) -> None:
        with one_line_or_done():
            params.parse(GOOD.replace(line, f"{line.partition(':')[0]}: {word}"))

    @campaign(0.5)
    @given(JSON)
    def test_any_content(self, content: Any) -> None:
        with one_line_or_done():
            params.parse(json.dumps(content, ensure_ascii=False))

    @campaign(0.5)
    @given(st.integers(1, 60), st.sampled_from(["[*a{0}, *a{0}]", "{{<<: [*a{0}, *a{0}]}}", "[*a{0}]", "{{x: *a{0}}}"]))
    def test_aliases(self, depth: int, step: str) -> None:
        lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {step.format(n - 1)}" for n in range(1, depth))]
        with one_line_or_done():
            params.parse("\n".join([*lines, GOOD]))


class TestLists:
    @campaign(4)
    @given(
        st.lists(st.tuples(PATHS, LABELS), max_size=4), st.sampled_from([" ", "\t", "  ", "\r\n", ""]), st.booleans()
    )
    def test_lists(self, folder: Path, rows: list[tuple[str, str]], blank: str, unknown: bool) -> None:
        (folder / "list.txt").write_bytes("\n".join(map(blank.join, rows)).encode("utf-8", "surrogatepass"))
        with one_line_or_done():
            list_text(read_list(folder / "list.txt", 10, unknown=unknown)).encode()
        with one_line_or_done():
            read_classes(folder / "list.txt")

    @campaign(4)
    @given(FLIPS, st.floats(0, 1))
    def test_bytes(self, folder: Path, flips: list[tuple[float, int]], cut: float) -> None:
        data = "".join(f"train/n0144/{n}.jpg {n % 10}\n" for n in range(20)).encode()
        (folder / "list.txt").write_bytes(flipped(data, flips, cut))
        with one_line_or_done():
            read_list(folder / "list.txt", 10)


class TestTables:
    @campaign(0.5)
    @given(
        st.lists(st.tuples(PATHS, LABELS, SPLITS), max_size=4), st.sampled_from([",", ", ", "\t", ";"]), st.booleans()
    )
    def test_csv(self, folder: Path, rows: list[tuple[str, str, str]], comma: str, quoted: bool) -> None:
        cells = [[json.dumps(cell) for cell in row] for row in rows] if quoted else rows
        text = "path,label,split\n" + "\n".join(map(comma.join, cells))
        (folder / "table.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
        with one_line_or_done():
            CsvSource(kind="csv", root=str(folder), file="table.csv", split="split").scan()

    @campaign(0.5)
    @given(FLIPS, st.floats(0, 1), st.sampled_from(["snappy", "none", "zstd"]))
    def test_parquet_bytes(self, folder: Path, flips: list[tuple[float, int]], cut: float, compression: str) -> None:
        (folder / "table.parquet").write_bytes(flipped(parquet_bytes(compression), flips, cut))
        with one_line_or_done():
            CsvSource(kind="csv", root=str(folder), file="table.parquet").scan()

    @campaign(0.2)
    @given(st.lists(SCALARS | st.binary(max_size=5) | st.lists(SCALARS, max_size=2), min_size=1, max_size=5), st.data())
    def test_parquet_content(self, folder: Path, column: list[Any], data: st.DataObject) -> None:
        labels = data.draw(st.lists(SCALARS | st.binary(max_size=5), min_size=len(column), max_size=len(column)))
        try:
            parquet.write_table(pa.table({"path": column, "label": labels}), folder / "table.parquet")
        except (pa.ArrowException, UnicodeError, OverflowError):
            return
        with one_line_or_done():
            CsvSource(kind="csv", root=str(folder), file="table.parquet").scan()


def parquet_bytes(compression: str) -> bytes:
    sink = io.BytesIO()
    table = pa.table({"path": [f"{n}.jpg" for n in range(30)], "label": [f"class {n % 3}" for n in range(30)]})
    parquet.write_table(table, sink, compression=compression)
    return sink.getvalue()


INATURALIST = {
    "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(4)],
    "annotations": [{"id": n, "image_id": n, "category_id": n % 2} for n in range(4)],
    "categories": [{"id": 0, "name": "ant", "supercategory": "insect"}, {"id": 1, "name": "bee"}],
}


class TestINaturalist:
    @campaign(3)
    @given(
        st.sampled_from([*INATURALIST]), st.integers(0, 3), TEXT | st.sampled_from(["id", "file_name", "name"]), JSON
    )
    @example("categories", 0, "supercategory", 5)
    @example("categories", 1, "id", True)
    def test_a_field(self, folder: Path, section: str, place: int, key: str, value: Any) -> None:
        content = json.loads(json.dumps(INATURALIST))
        content[section][place % len(content[section])][key] = value
        self.scan(folder, json.dumps(content))

    @campaign(3)
    @given(JSON)
    def test_anything(self, folder: Path, content: Any) -> None:
        self.scan(folder, json.dumps(content))

    @campaign(3)
    @given(PLACES)
    def test_a_good_file_with_stretches_replaced(self, folder: Path, places: list[tuple[float, float, str]]) -> None:
        self.scan(folder, spliced(json.dumps(INATURALIST), places))

    def scan(self, folder: Path, text: str) -> None:
        (folder / "train.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        with one_line_or_done():
            INaturalistSource(kind="inaturalist", root=str(folder), train="train.json").scan()


class TestPickles:
    @campaign(6)
    @given(st.integers(0, 5), FLIPS, st.floats(0, 1))
    def test_bytes(self, folder: Path, protocol: int, flips: list[tuple[float, int]], cut: float) -> None:
        dump = {"feats": np.ones((3, 2), np.float32), "labels": [0, 1, 2], "idxs": np.arange(3), **ARRAYS}
        self.read(folder, flipped(pickle.dumps(dump, protocol), flips, cut))

    @campaign(6)
    @given(st.lists(st.binary(min_size=1, max_size=6), max_size=30), st.integers(0, 40))
    def test_operations(self, folder: Path, pieces: list[bytes], doublings: int) -> None:
        """A tuple that is doubled again and again stands before pieces of a pickle in any order."""
        doubled = b"K\x01\x85q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(doublings))
        self.read(folder, b"\x80\x02" + doubled + b"".join(pieces) + b".")

    @campaign(6)
    @given(st.lists(st.sampled_from([
        b"(", b"]", b"}", b")", b"K\x01", b"h\x00", b"q\x00", b"h\x01", b"q\x01", b"\x85", b"\x86", b"\x87", b"t", b"l",
        b"d", b"s", b"u", b"a", b"e", b"2", b"0", b"1", b"R", b"b", b"N", b"U\x01a", b"X\x01\x00\x00\x00b",
        b"T\xff\xff\xff\x7f", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x3f", b"\x8f", b"\x90", b"\x91", b"\x94", b"\x81",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\x00", b"\x96\xff\xff\xff\xff\xff\x00\x00\x00", b"\x8b\xff\xff\x00\x00",
        b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n", b"cnumpy.core.multiarray\n_reconstruct\n",
        b"cnumpy.core.multiarray\nscalar\n", b"X\x02\x00\x00\x00f4", b"ccollections\nOrderedDict\n", b"ctorch\nSize\n",
        b"cbuiltins\nbytearray\n", b"J\xff\xff\xff\x7f",
    ]), max_size=40))  # fmt: skip
    def test_programs(self, folder: Path, operations: list[bytes]) -> None:
        self.read(folder, b"\x80\x02" + b"".join(operations) + b".")

    @campaign(1)
    @given(st.booleans(), FLIPS, st.floats(0, 1))
    def test_checkpoints(self, folder: Path, zipped: bool, flips: list[tuple[float, int]], cut: float) -> None:
        file = io.BytesIO()
        network = {"conv.weight": torch.ones(2, 3), "fc.bias": torch.zeros(3)}
        states = {"feat_model": network, "classifier": network}
        torch.save({"state_dict_best": states, "best_acc": 0.5}, file, _use_new_zipfile_serialization=zipped)
        self.read(folder, flipped(file.getvalue(), flips, cut))

    def read(self, folder: Path, data: bytes) -> None:
        file = folder / "dump.pkl"
        file.write_bytes(data)
        with one_line_or_done():
            _arrays(read_pickle(file), str(file), len(data))
        with one_line_or_done():
            published.parse(read_checkpoint(file), where=str(file))
        with one_line_or_done():
            read_state_dict(file)

    @pytest.mark.parametrize("kind", list(hostile(Path("mark"))))
    def test_no_code_is_run(self, folder: Path, kind: str) -> None:
        mark = folder / "mark"
        self.read(folder, pickle.dumps(hostile(mark)[kind]))
        assert not mark.exists()


class TestCommands:
    """A hundredth of the inputs goes through the command line: one `error:` line for each mistake, and no traceback."""

    @campaign(0.02)
    @given(PLACES)
    def test_params_check(self, folder: Path, places: list[tuple[float, float, str]]) -> None:
        (folder / "params.yaml").write_bytes(spliced(GOOD, places).encode("utf-8", "surrogatepass"))
        self.check("params", "check", folder=folder, most=51)

    @campaign(0.02)
    @given(TEXT, JSON)
    def test_prepare(self, folder: Path, key: str, value: Any) -> None:
        content = json.loads(json.dumps(INATURALIST))
        content["categories"][0] |= {"name": value, key: value}
        (folder / "train.json").write_text(json.dumps(content), encoding="utf-8")
        source = "prepare: {decode: false, source: {kind: inaturalist, root: ., train: train.json}}\n"
        rest = "represent: {backbone: {name: resnet18}}\nrebalance: {joint: {method: joint}}\n"
        (folder / "params.yaml").write_text(source + rest, encoding="utf-8")
        self.check("prepare", folder=folder)

    def check(self, *arguments: str, folder: Path, most: int = 1) -> None:
        done = ltrec(*arguments, cwd=folder)
        Current.tally.add("done" if done.returncode == 0 else "refused")
        assert done.returncode in {0, 2}
        lines = done.stderr.split("\n")[:-1]
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) in (range(1, most + 1) if done.returncode else [0])
        assert all(line.startswith(("error: ", "warning: ", "prepare: ", "params.yaml: ok")) for line in lines)
        assert not set("\x1b\x85\u2028\u202e\r") & set(done.stderr)
