"""Text of others in the plots' data, so that it stays text in the page that `dvc plots` writes.

DVC puts the rows of a CSV file into a script of its page as they are: there `</script>` in a class's name would end the
script, and what follows it would be run.
"""

from __future__ import annotations

# A word joiner: without width and without meaning, so that the name looks the same, and no tag begins.
_JOINER = "\u2060"


def page_text(text: str) -> str:
    """Return a text in which no tag begins; `plain_text` has it back."""
    return text.replace("<", f"<{_JOINER}")


def plain_text(text: str) -> str:
    """Return the text that `page_text` was given."""
    return text.replace(f"<{_JOINER}", "<")
