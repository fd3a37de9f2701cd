"""What is printed: text of others stays text, and one message one line."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.table import Table
from rich.text import Text

from ltrec import console

if TYPE_CHECKING:
    from collections.abc import Iterator

FORGED = "a.jpg\nerror: your disk is full\r\x1b[2J\x85\u2028\u202e\x9b1m\x07\udcff\t"
SHOWN = r"a.jpg\nerror: your disk is full\r\x1b[2J\x85\u2028\u202e\x9b1m\x07\udcff\t"


@pytest.fixture(autouse=True)
def normal() -> Iterator[None]:
    yield
    console.set_verbosity(console.Verbosity.NORMAL)


@pytest.mark.parametrize("print_line", [console.say, console.detail, console.warn, console.error])
def test_a_message_is_one_line_and_steers_no_terminal(print_line: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(print_line)
    console.set_verbosity(console.Verbosity.VERBOSE)
    print_line(f"[bold]prepare[/bold]: skipped {FORGED}")
    printed = capsys.readouterr().err
    assert printed.endswith(f"[bold]prepare[/bold]: skipped {SHOWN}\n")
    assert printed.count("\n") == 1


def test_letters_of_all_languages_are_printed_as_they_are() -> None:
    for text in ("Grüße → 猫 ★ τ ≥ 0", "नमस्ते", "عربي", "👩‍🔬", ""):
        assert console.printable(text) == text


def test_a_table_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("class", "figure")
    table.add_row(Text("\x1b[31mred\x1b[0m\u202e\x85"), "1")
    table.add_row(Text(console.printable("\x1b[31mred")), "1")
    console.show(table)
    printed = capsys.readouterr().out
    assert r"│ \x1b[31mred │" in printed
    assert not {"\x1b", "\u202e", "\x85"} & {*printed}


def test_progress_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress(f"reading {FORGED}", 1) as advance:
        advance(1, FORGED)
    printed = capsys.readouterr().err
    assert printed == f"reading {SHOWN}: 1/1  {SHOWN}\n"


def test_a_very_long_line_is_cut_but_for_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    console.error("x" * 10_000)
    assert capsys.readouterr().err == f"error: {'x' * 4000} … (6,000 more characters with --verbose)\n"
    console.set_verbosity(console.Verbosity.VERBOSE)
    console.error("x" * 10_000)
    assert capsys.readouterr().err == f"error: {'x' * 10_000}\n"


def test_of_very_many_names_five_are_said_and_all_with_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"name {number}" for number in range(1000)]
    first = "name 0, name 1, name 2, name 3, name 4 and 995 more (--verbose lists them)"
    assert console.first_five(names, "a.pth: odd") == first
    assert capsys.readouterr().err == ""
    console.set_verbosity(console.Verbosity.VERBOSE)
    assert console.first_five(names, "a.pth: odd") == first
    assert capsys.readouterr().err == f"a.pth: odd: {', '.join(names)}\n"
    assert console.first_five(names[:9], "a.pth: odd") == ", ".join(names[:9])


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")])
def test_a_reader_who_is_gone_ends_no_stage(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise error

    monkeypatch.setattr("sys.stderr", Gone())
    console.say("represent: epoch 1 of 200")
    console.warn("nobody hears this")
