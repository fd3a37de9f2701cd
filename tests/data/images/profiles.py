"""ICC profiles, written byte by byte after the specification ICC.1:2001-04: no system has the same ones installed."""

from __future__ import annotations

import struct
from itertools import product

import numpy as np

# Red, green and blue as X, Y and Z under D50 (rows), and the exponent of the values.
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
WHITE = (0.9642, 1.0, 0.8249)


def srgb_curve() -> bytes:
    """The standard's curve at 1,024 points."""
    value = np.linspace(0, 1, 1024)
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return b"curv" + bytes(4) + struct.pack(">I", 1024) + (linear * 65535).round().astype(">u2").tobytes()


def gamma(exponent: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256))


def of_primaries(primaries: tuple[tuple[float, ...], ...], curve: bytes) -> bytes:
    """A profile of an RGB screen."""
    tags = {name: _xyz(*xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    return _profile(b"RGB ", b"XYZ ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def of_gray(exponent: float) -> bytes:
    return _profile(b"GRAY", b"XYZ ", {b"kTRC": gamma(exponent)})


def of_inks() -> bytes:
    """A profile of a press whose black ink is gray: the lightness is 100, less 60 for black and 10 for other inks."""
    identity = bytes(range(256))
    grid = b"".join(
        bytes([round(255 * (100 - 60 * k - 10 * (c + m + y)) / 100), 128, 128])
        for c, m, y, k in product((0, 1), repeat=4)
    )
    unit = struct.pack(">9i", *(65536 * (at % 4 == 0) for at in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + identity * 4 + grid + identity * 3
    return _profile(b"CMYK", b"Lab ", {b"A2B0": table}, kind=b"prtr")


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def _profile(space: bytes, connection: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    contents = {b"desc": name, b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": _xyz(*WHITE)} | tags
    at, table, body = 128 + 4 + 12 * len(contents), b"", b""
    for tag, content in contents.items():
        table += tag + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4xI4s4s4s", at + len(body), 0x02400000, kind, space, connection) + bytes(12) + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", *(round(value * 65536) for value in WHITE))
    return header.ljust(128, b"\0") + struct.pack(">I", len(contents)) + table + body
