"""What was found: single faults, and how many there are of each kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from utils.doctor.kinds import ERROR, KINDS

KEPT = 10_000  # findings of a kind that are kept; more are only counted, so that memory stays bounded


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        kind: its name in :data:`utils.doctor.kinds.KINDS`.
        text: what is wrong.
        file: where; "" where it is about the whole set.
        line: line of the file from 1; 0 where it is about the whole file.
        split: train, val or test; "" where it is about the whole set.
    """

    kind: str
    text: str
    file: str = ""
    line: int = 0
    split: str = ""

    def __str__(self) -> str:
        """``file:line: text``, as far as there are a file and a line."""
        return ": ".join(filter(None, [f"{self.file}:{self.line}" if self.line else self.file, self.text]))


class Findings:
    """What was found: of each kind the first ones, and how many there are."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Finding]] = defaultdict(list)
        self._counts: Counter[str] = Counter()

    def add(self, findings: Iterable[Finding]) -> None:
        """Take up findings; their kinds must be known ones."""
        for finding in findings:
            kept = self._kept[KINDS[finding.kind].name]
            if len(kept) < KEPT:
                kept.append(finding)
            self._counts[finding.kind] += 1

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each kind found, most harmful kind first."""
        return {name: self._counts[name] for name in KINDS if self._counts[name]}

    def of(self, kind: str) -> list[Finding]:
        """The kept findings of a kind, in the order in which they were found."""
        return list(self._kept.get(kind, ()))

    def total(self, level: str) -> int:
        """How many findings there are of a level."""
        return sum(count for name, count in self._counts.items() if KINDS[name].level == level)

    @property
    def harmful(self) -> bool:
        """Whether training or its figures would be harmed."""
        return self.total(ERROR) > 0
