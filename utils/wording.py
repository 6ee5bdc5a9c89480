"""Numbers as words for log lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping


def counted(number: int, noun: str) -> str:
    """``1 bus``, ``3 persons``; nouns beyond ASCII keep their form."""
    return f"{number} {noun}{'s' if number != 1 and noun.isascii() else ''}"


def count_classes(classes: Iterable[float], names: Mapping[int, str]) -> str:
    """How many of each class, by class number: ``3 persons, 1 bus``, or ``(no detections)``."""
    totals = Counter(int(number) for number in classes)
    parts = [counted(totals[number], str(names.get(number, number))) for number in sorted(totals)]
    return ", ".join(parts) or "(no detections)"
