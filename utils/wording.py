"""Numbers as words, for log lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence


def counted(number: int, noun: str) -> str:
    """``1 person``, ``3 persons``; nouns that end in s, and those beyond ASCII, keep their form: ``2 bus``."""
    takes_s = number != 1 and noun.isascii() and not noun.endswith("s")
    return f"{number} {noun}{'s' if takes_s else ''}"


def count_classes(classes: Iterable[float], names: Mapping[int, str]) -> str:
    """How many of each class, by class number: ``3 persons, 1 bus``, or ``(no detections)``."""
    totals = Counter(int(number) for number in classes)
    parts = [counted(totals[number], str(names.get(number, number))) for number in sorted(totals)]
    return ", ".join(parts) or "(no detections)"


def describe_speed(milliseconds: Sequence[float], shape: Sequence[int]) -> str:
    """One log line about the time a run took.

    Args:
        milliseconds: per image, of pre-processing, inference and NMS.
        shape: of the largest batch, (B, 3, H, W).
    """
    prepare, infer, suppress = milliseconds
    batch, _, height, width = shape
    return (
        f"Speed: {prepare:.1f} ms to prepare an image, {infer:.1f} ms in the network, {suppress:.1f} ms for NMS; "
        f"batches of {batch}, {height}x{width} px"
    )


def duration(seconds: float) -> str:
    """A time as a person would say it: ``40 s``, ``2.5 min``, ``3.0 h``."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
