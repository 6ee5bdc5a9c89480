"""Markdown for reports: tables, and paragraphs in lines of the usual width."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

_WIDTH = 120  # characters a line, as in the documentation


def paragraph(text: str) -> str:
    """A text in lines of the usual width, whatever its own line ends."""
    return textwrap.fill(" ".join(text.split()), _WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def table(titles: Sequence[str], lines: Sequence[Sequence[object]], left: int) -> str:
    """A table.

    Args:
        titles: of the columns.
        lines: a sequence of cells each, as many as titles.
        left: so many columns hold words, the others numbers.
    """
    rule = ["---"] * left + ["---:"] * (len(titles) - left)
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in (titles, rule, *lines))
