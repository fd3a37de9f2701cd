"""What the options of `export` say of where the model will work, as parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltrec.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from ltrec.serving.abstaining import AbstainSettings


def prior(asked: str | None, here: Path) -> str | dict[str, float] | None:
    """Return `export.prior` for `--prior`: a word, or what a file says by class.

    Args:
        asked: What was given; None: nothing was.
        here: The folder that the file's path is relative to.

    Raises:
        UserError: The file cannot be used.
    """
    if asked is None:
        return None
    from ltrec.artifacts import Layout
    from ltrec.data.image_lists import read_classes
    from ltrec.serving import prior_files

    return prior_files.asked(asked, read_classes(Layout().classes), here=here)


def abstain(rate: float | None, max_error: float | None) -> AbstainSettings | None:
    """Return `export.abstain` for `--abstain RATE`, a share of images, or `--max-error RATE`, one of answers.

    Raises:
        UserError: Both are given, or one is not between 0 and 1.
    """
    from ltrec.serving.abstaining import AbstainSettings

    given = {"--abstain": rate, "--max-error": max_error}
    named = {option: value for option, value in given.items() if value is not None}
    if len(named) > 1:
        raise UserError("--abstain and --max-error exclude each other")
    for option, value in named.items():
        if not 0 < value < 1:
            raise UserError(f"must be above 0 and below 1, got {value:g}", where=option)
    if rate is not None:
        return AbstainSettings(coverage=1 - rate)
    return None if max_error is None else AbstainSettings(error=max_error)
