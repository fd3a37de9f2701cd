"""Data that tests may use but the repository does not hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Beside the checkout, unless LTREC_SHARED says otherwise.
_FOLDER = Path(os.environ.get("LTREC_SHARED") or Path(__file__).resolve().parents[2] / "shared")


def shared(name: str) -> Path:
    """A file of the shared folder; the test is skipped where there is none."""
    file = _FOLDER / name
    if not file.exists():
        pytest.skip(f"needs {file}")
    return file
