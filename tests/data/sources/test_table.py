"""Tables: columns by name, classes from text or numbers, and what is wrong with some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from ltrec.data.sources import table
from ltrec.data.sources.table import CsvSource
from ltrec.errors import UserError
from tests.hostile import changed

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.data.sources.collection import Collection

HEADER = "path,label,split\n"


def scan(root: Path, text: str, **settings: Any) -> Collection:
    (root / "table.csv").write_text(text, encoding="utf-8")
    return CsvSource.model_validate({"kind": "csv", "root": str(root), "file": "table.csv", **settings}).scan()


def test_class_names_in_natural_order_by_the_columns_names(tmp_path: Path) -> None:
    text = 'id,species,file\n7,NA,a/1.jpg\n8,class 10,"b,2.jpg"\n9,class 2,ä 3.jpg\n9,NA,4.jpg\n'
    found = scan(tmp_path, f"\ufeff{text}", path="file", label="species")
    assert found.classes == ("class 2", "class 10", "NA")
    assert found.splits["train"].paths == ("a/1.jpg", "b,2.jpg", "ä 3.jpg", "4.jpg")
    assert found.splits["train"].labels.tolist() == [2, 1, 0, 2]
    assert set(found.splits) == {"train"}


def test_whole_numbers_keep_their_order_and_are_names(tmp_path: Path) -> None:
    found = scan(tmp_path, "path,label\na,10\nb,2\nc,0\n")
    assert found.classes == ("0", "2", "10")
    assert found.splits["train"].labels.tolist() == [2, 1, 0]


def test_a_column_can_say_the_split(tmp_path: Path) -> None:
    text = HEADER + "a,x,train\nb,x,Validation\nc,y,test\nd,y,train\ne,y,valid\nf,x,val\n"
    found = scan(tmp_path, text, split="split")
    assert {split: images.paths for split, images in found.splits.items()} == {
        "train": ("a", "d"),
        "val": ("b", "e", "f"),
        "test": ("c",),
    }
    assert found.splits["val"].labels.tolist() == [0, 1, 0]
    assert set(scan(tmp_path, HEADER + "a,x,train\nb,y,test\n", split="split").splits) == {"train", "test"}
    assert len(scan(tmp_path, text).splits["train"]) == 6


@pytest.mark.parametrize("labels", [[3, 1, 1], ["3", "1", "1"], pd.Categorical([3, 1, 1])])
def test_parquet(tmp_path: Path, labels: Any) -> None:
    pd.DataFrame({"path": ["a", "b", "c"], "label": labels, "more": 0.5}).to_parquet(tmp_path / "t.parquet")
    found = CsvSource(kind="csv", root=str(tmp_path), file="t.parquet").scan()
    assert found.classes == ("1", "3")
    assert found.splits["train"].paths == ("a", "b", "c")
    assert found.splits["train"].labels.tolist() == [1, 0, 0]


def test_a_parquet_file_whose_paths_are_its_index(tmp_path: Path) -> None:
    pd.DataFrame({"path": ["a", "b"], "label": ["x", "y"]}).set_index("path").to_parquet(tmp_path / "t.parquet")
    assert CsvSource(kind="csv", root=str(tmp_path), file="t.parquet").scan().splits["train"].paths == ("a", "b")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a", "b"], "label": [1.0, 2.0]}, "column 'label' holds decimal numbers; allowed: text or whole"),
        ({"path": ["a", "b"], "label": [1.0, None]}, r"column 'label' has 1 empty cell\(s\): row 2"),
        ({"path": ["a", None], "label": ["x", "y"]}, r"column 'path' has 1 empty cell\(s\): row 2"),
        ({"file": ["a"], "label": ["x"]}, "has no column 'path' .*; its columns are 'file', 'label'"),
        ({"path": [], "label": []}, "has no rows"),
    ],
)
def test_bad_parquet_is_one_line(tmp_path: Path, columns: Any, message: str) -> None:
    pd.DataFrame(columns).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match=message):
        CsvSource(kind="csv", root=str(tmp_path), file="t.parquet").scan()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label,split\na,x,train\n", "has no column 'path' (prepare.source); its columns are 'file', 'label', 's"),
        ("path,label,path,split\na,x,b,train\n", "has more than one column 'path'; its columns are 'path', 'label'"),
        ("a;b\n1;2\n", "has no column 'path' and 'label' and 'split' (prepare.source); its columns are 'a;b'"),
        (HEADER, "has no rows"),
        ("", "cannot be read as a table (No columns"),
        (HEADER + "a,x,train\nb,,train\nc, ,train\n", "column 'label' has 2 empty cell(s): row 2, row 3"),
        (HEADER + "a,x,train\nb,y,train\nc,y\n", "column 'split' has 1 empty cell(s): row 3"),
        (HEADER + "a,x,train\nb,y,dev\n", "1 unknown split(s): row 2 'dev'; allowed: train, val, valid, validation"),
        (HEADER + "a,x,val\nb,y,test\n", "no row says train"),
        (HEADER + "/a,x,train\n../b,y,train\n", "2 path(s) cannot be used: row 1 ('/a' is absolute; "),
        (HEADER + "b,x,train\na/../../b,y,train\n", "row 2 ('a/../../b' leaves the source's root)"),
        (HEADER + '"a\nb",x,train\n', "1 path(s) cannot be used: row 1"),
        (HEADER + "a,0,train\nb,-1,train\n", "negative label(s) -1: classes count from 0 or have names"),
        (HEADER + "a,x,train\na,y,train\n", "1 image(s) have two classes: 'a' ('x' and 'y')"),
        (HEADER + "a,x,train\na,b.jpg,x,train\n", "cannot be read as a table (Error tokenizing data."),
        (HEADER + "a,b.jpg,x,train\n", "rows have more cells than the header"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        scan(tmp_path, text, split="split")
    assert str(caught.value).startswith(f"{tmp_path / 'table.csv'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_that_comes_twice_counts_once_in_each_split(tmp_path: Path) -> None:
    found = scan(tmp_path, HEADER + "a,x,train\na,x,train\na,x,test\nb,y,train\n", split="split")
    assert found.splits["train"].paths == ("a", "b")
    assert found.splits["test"].paths == ("a",)
    assert [skip.path for skip in found.skipped] == ["a"]


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t.csv: no such file"):
        CsvSource(kind="csv", root=str(tmp_path), file="t.csv").scan()
    for name in ("t.csv", "t.parquet"):
        (tmp_path / name).write_bytes(b"path,label\n\xff\xfe\x00,1\n")
        with pytest.raises(UserError, match=rf"{name}: cannot be read as a table \("):
            CsvSource(kind="csv", root=str(tmp_path), file=name).scan()


def test_labels_of_any_number_of_digits_go_by_value(tmp_path: Path) -> None:
    long = "1" + "0" * 5000
    found = scan(tmp_path, f"path,label\na,{long}\nb,9\nc,010\nd,0\ne,x2\n")
    assert found.classes == ("0", "9", "010", long, "x2")


def test_a_table_of_a_million_columns_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has a first line of more than 65,536 bytes"):
        scan(tmp_path, ",".join(f"c{number}" for number in range(1_000_000)) + "\n1\n")


def test_of_many_columns_the_first_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its columns are 'c0', .* 'c19' and 980 more$"):
        scan(tmp_path, ",".join(f"c{number}" for number in range(1000)) + "\n1\n")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["a", "b"]).cast(pa.binary()), ""),
        (pa.array([b"\xff\xfe", b"b"]), r"cannot be read as a table \(Invalid UTF8"),
        (pa.array([b"\xff\xfe", b"b"]).view(pa.string()), r"cannot be read as a table \(.*UTF8"),
        (pa.array([["a"], ["b"]]), "column 'label' holds list<.*>; allowed: text or whole numbers"),
        (pa.array([{"x": 1}, {"x": 2}]), "column 'label' holds struct<.*>; allowed: text or whole numbers"),
    ],
)
def test_parquet_columns_that_are_no_text(tmp_path: Path, column: pa.Array, message: str) -> None:
    parquet.write_table(pa.table({"path": ["a.jpg", "b.jpg"], "label": column}), tmp_path / "t.parquet")
    source = CsvSource(kind="csv", root=str(tmp_path), file="t.parquet")
    if message:
        with pytest.raises(UserError, match=message):
            source.scan()
    else:
        assert source.scan().classes == ("a", "b")


def test_a_parquet_file_of_a_thousand_million_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_MOST_ROWS", 10)
    parquet.write_table(pa.table({"path": ["a"] * 11, "label": ["x"] * 11}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"has 11 rows; allowed: 10$"):
        CsvSource(kind="csv", root=str(tmp_path), file="t.parquet").scan()


def test_a_parquet_file_with_changed_bytes_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    file, refused = tmp_path / "t.parquet", 0
    pd.DataFrame({"path": [f"{n}.jpg" for n in range(50)], "label": [f"class {n % 3}" for n in range(50)]}).to_parquet(
        file
    )
    whole = file.read_bytes()
    for seed in range(150):
        file.write_bytes(changed(whole, seed))
        try:
            CsvSource(kind="csv", root=str(tmp_path), file="t.parquet").scan()
        except UserError as error:
            refused += len(error.lines) == 1
    assert refused > 10


TEXT = "path,label\na.jpg,Café\nb.jpg,naïve\n"


def written(root: Path, text: str, written_as: str, **settings: Any) -> Collection:
    (root / "t.csv").write_bytes(text.encode(written_as))
    return CsvSource.model_validate({"kind": "csv", "root": str(root), "file": "t.csv", **settings}).scan()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_shows_its_encoding_and_separator_is_read_by_them_and_said(
    encoding: str, separator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = written(tmp_path, TEXT.replace(",", separator), encoding)
    assert found.classes == ("Café", "naïve")
    assert found.splits["train"].paths == ("a.jpg", "b.jpg")
    said = capsys.readouterr().err
    assert ("is read as utf-" in said) == (encoding[4:6] in {"16", "32"})
    assert ("between semicolons" in said, "between tabs" in said) == (separator == ";", separator == "\t")


def test_text_that_nothing_tells_the_encoding_of_is_refused_and_read_when_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        written(tmp_path, TEXT, "cp1252")
    assert r"is not UTF-8: it has 'Caf\xe9', which would be 'Café' in cp1252" in str(caught.value)
    assert "prepare.source.encoding" in str(caught.value)
    assert len(caught.value.lines) == 1
    assert written(tmp_path, TEXT, "cp1252", encoding="cp1252").classes == ("Café", "naïve")
    assert written(tmp_path, "path,label\na,кот\n", "cp1251", encoding="cp1251").classes == ("кот",)
    with pytest.raises(UserError, match=r"\(is not utf-8: it has 'Caf\\xe9'\)$"):
        written(tmp_path, TEXT, "cp1252", encoding="utf-8")
    (tmp_path / "t.csv").write_bytes(b"path,label\na.jpg,\x81\x8d\n")
    with pytest.raises(UserError, match="which is not cp1252"):
        CsvSource(kind="csv", root=str(tmp_path), file="t.csv").scan()


def test_an_encoding_must_exist() -> None:
    for name in ("cp12520", "base64", "rot13"):
        with pytest.raises(ValueError, match="no such encoding; usual ones are utf-8"):
            CsvSource(kind="csv", file="t.csv", encoding=name)


def test_a_comma_in_a_name_is_no_separator_of_a_file_with_semicolons(tmp_path: Path) -> None:
    found = written(tmp_path, "path;label;note\na, b.jpg;x, y;\nc.jpg;z;1,5\n", "utf-8")
    assert (found.classes, found.splits["train"].paths) == (("x, y", "z"), ("a, b.jpg", "c.jpg"))
    assert written(tmp_path, "path,label\na;b.jpg,x;y\nc.jpg,z\n", "utf-8").classes == ("x;y", "z")
    assert written(tmp_path, 'path,label,x;"y\na.jpg,b,\n', "utf-8").classes == ("b",)
    with pytest.raises(UserError, match=r"has no column 'path' and 'label'.*; its columns are 'x', 'y;\"z'"):
        written(tmp_path, 'x,y;"z\n1,2\n', "utf-8")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_mark_that_lies_is_one_line(encoding: str, tmp_path: Path) -> None:
    content = TEXT.encode(encoding)
    (tmp_path / "t.csv").write_bytes(content[:-1])
    with pytest.raises(UserError, match=f"is not {encoding}"):
        CsvSource(kind="csv", root=str(tmp_path), file="t.csv").scan()
