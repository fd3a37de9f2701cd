"""Looks through a pickle before it is read: a few bytes may ask for gigabytes of memory, or for hours.

They announce lengths that the file does not have, or refer to the same tuple twice, that one to another twice, and so
on: such a thing is small, but to hash it, as a key of a dict, takes 2^n steps. Here the pickle's operations are only
counted; nothing is built. The size of a value is the number of values in it, what is shared counted each time.
"""

from __future__ import annotations

import pickle
import pickletools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmap import mmap

_MOST_OPERATIONS = 20_000_000  # half a minute; a checkpoint of a large network has some ten thousand
_LARGEST_KEY = 10_000
_MOST_HASHED = 100_000_000
_LONGEST_NUMBER = 1000  # bytes, or digits: Python writes no whole number of more than 4,300 digits

_WIDTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
"""Of the operations that say how long their argument is: how many bytes say so."""
_OF_MEMO = {"PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET", "MEMOIZE"}
_NUMBERS = {"INT", "LONG", "LONG1", "LONG4", "GET", "PUT"}
_TWO_LINES = {"GLOBAL", "INST"}
# PyTorch's reader knows it: called with a number it fills as many bytes with zeros.
_BYTEARRAYS = {b"builtins\nbytearray\n", b"__builtin__\nbytearray\n"}
_WITH_KEYS = {"SETITEM", "SETITEMS", "DICT", "BINPERSID"}
_CALLS = {"REDUCE", "NEWOBJ", "NEWOBJ_EX"}
_LARGEST_FUNCTION = 100  # a name, or what a call of one gives
_WITH_ARGUMENTS = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "OBJ", "INST", "ADDITEMS", "FROZENSET"}
_MANY = 10**12  # sizes are counted up to it


@dataclass(frozen=True)
class _Operation:
    """An opcode: how long its argument is, and what it takes from the stack and puts there."""

    name: str
    length: int
    """Bytes of the argument; below 0 it ends with its line, or says itself how long it is."""
    takes: int
    """Values taken from the stack; of one that goes back to the mark those below the mark."""
    to_mark: bool
    gives: int
    plain: bool
    """Whether it puts one value on the stack, of an argument of a known length, and does nothing else."""


def _operation(code: pickletools.OpcodeInfo) -> _Operation:
    before = code.stack_before
    to_mark = pickletools.markobject in before and code.name != "MARK"
    takes = before.index(pickletools.markobject) if to_mark else len(before)
    length, gives = code.arg.n if code.arg else 0, len(code.stack_after)
    plain = not code.stack_before and gives == 1 and length >= 0 and code.name not in {*_OF_MEMO, "MARK"}
    return _Operation(code.name, length, takes, to_mark, gives, plain)


_OPERATIONS = {ord(code.code): _operation(code) for code in pickletools.opcodes}


class PickleScan:
    """One look through a pickle.

    Args:
        content: What it is in.
        start: Where it begins.
    """

    def __init__(self, content: bytes | mmap, start: int = 0) -> None:
        self._content = content
        self._place = start
        self._stack: list[int] = []  # sizes of values
        self._marks: list[int] = []  # places in the stack
        self._memo: dict[int, int] = {}
        self._hashed = 0

    def run(self) -> int | None:
        """Return where the pickle ends; None if it is damaged: whoever reads it will say so, there or before.

        Raises:
            UnpicklingError: It goes beyond a limit; the message says which.
        """
        content, end = self._content, len(self._content)
        for _ in range(_MOST_OPERATIONS):
            if self._place >= end:
                return None
            operation = _OPERATIONS.get(content[self._place])
            self._place += 1
            if operation is not None and operation.plain:  # nearly all of a long list
                self._place += operation.length
                self._stack.append(1)
                continue
            if operation is None or (argument := self._argument(operation)) is None:
                return None
            if operation.name == "STOP":
                return self._place
            try:
                self._apply(operation, argument)
            except (LookupError, ValueError):
                return None
        raise pickle.UnpicklingError(f"more than {_MOST_OPERATIONS:,} operations")

    def _argument(self, operation: _Operation) -> bytes | None:
        """Return the argument of an operation, of a long one nothing; None where the file ends before."""
        start, length = self._place, operation.length
        if not length:
            return b""
        if length == pickletools.UP_TO_NEWLINE:
            end = self._content.find(b"\n", start) + 1
            if end and operation.name in _TWO_LINES:
                end = self._content.find(b"\n", end) + 1
            length = end - start
            if not end:
                return None
        elif length < 0:
            width = _WIDTHS[length]
            length = self._announced(start, width)
            start += width
        elif operation.name == "FRAME":  # what it announces are operations, not an argument
            self._announced(start, length)
        self._place = start + length
        if length > _LONGEST_NUMBER:
            if operation.name in _NUMBERS:
                raise pickle.UnpicklingError(f"a number of {length:,} bytes")
            return b""
        return self._content[start : self._place]

    def _announced(self, start: int, width: int) -> int:
        """Return how many bytes are to follow a length of `width` bytes."""
        length = int.from_bytes(self._content[start : start + width], "little")
        if start + width + length > len(self._content):
            raise pickle.UnpicklingError(f"{length:,} bytes are announced, more than there are")
        return length

    def _apply(self, operation: _Operation, argument: bytes) -> None:
        """Do to the stack of sizes and to the memo what an operation does to values."""
        stack, marks, name = self._stack, self._marks, operation.name
        if name in _OF_MEMO:
            self._remember(name, argument)
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "GLOBAL" and argument in _BYTEARRAYS:
            raise pickle.UnpicklingError("GLOBAL builtins.bytearray")
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP" and marks and marks[-1] == len(stack):
            marks.pop()
        else:
            taken: list[int] = []
            if operation.to_mark:
                taken = stack[marks[-1] :]
                del stack[marks.pop() :]
            floor = len(stack) - operation.takes
            if floor < (marks[-1] if marks else 0):
                raise IndexError
            below = stack[floor:]
            del stack[floor:]
            self._count_hashed(name, taken, below)
            if operation.gives:
                stack.append(min(1 + sum(below) + sum(taken), _MANY))

    def _remember(self, name: str, argument: bytes) -> None:
        if name == "MEMOIZE":
            number = len(self._memo)
        else:
            number = int(argument) if name in {"PUT", "GET"} else int.from_bytes(argument, "little")
        if name.endswith("GET"):
            self._stack.append(self._memo[number])
        else:
            self._memo[number] = self._stack[-1]

    def _count_hashed(self, name: str, taken: list[int], below: list[int]) -> None:
        """Add what is hashed as a key, or taken as an argument, which a call may hash."""
        if name in _CALLS and below[0] > _LARGEST_FUNCTION:  # a refusal of it would spell it out
            raise pickle.UnpicklingError("a call of what is no function")
        if name in _WITH_KEYS:
            hashed = {"SETITEM": below[1:2], "BINPERSID": below}.get(name, taken[::2])
            if max(hashed, default=0) > _LARGEST_KEY:
                raise pickle.UnpicklingError(f"a key of more than {_LARGEST_KEY:,} values")
        elif name in _WITH_ARGUMENTS:
            hashed = below[1:] + taken
        else:
            return
        self._hashed += sum(hashed)
        if self._hashed > _MOST_HASHED:
            raise pickle.UnpicklingError(f"more than {_MOST_HASHED:,} values in keys and arguments")
