"""One line of a table of figures that have a target: what was measured in each round, and what was hoped for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from utils.markdown import table

_TITLES = ("what", "of what", "median", "rounds", "target", "met")


@dataclass(frozen=True)
class Figure:
    """A figure, measured in rounds.

    Attributes:
        title: what it is.
        about: what was measured against what, with times.
        rounds: the figure of each round.
        limit: its target.
        at_most: the target is an upper limit, else a lower one.
        unit: behind the numbers, such as `` s``.
    """

    title: str
    about: str
    rounds: Sequence[float]
    limit: float
    at_most: bool = True
    unit: str = ""

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def cells(self) -> list[str]:
        """The line of the table."""
        low, high = min(self.rounds), max(self.rounds)
        return [
            self.title,
            self.about,
            f"**{self.value:.2f}{self.unit}**",
            f"{low:.2f} to {high:.2f}",
            f"{'at most' if self.at_most else 'at least'} {self.limit:g}{self.unit}",
            "yes" if self.met else "no",
        ]


def figures_table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    return table(_TITLES, [figure.cells() for figure in figures], left=2)


def ratios(seconds: dict[str, list[float]]) -> list[float]:
    """The first of two measured by turns through the second, round by round."""
    first, second = seconds.values()
    return [one / other for one, other in zip(first, second, strict=True)]
