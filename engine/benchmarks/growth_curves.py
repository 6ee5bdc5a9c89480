"""What ``benchmark.py growth`` measures, as curves: a figure at several amounts, and the work that it takes there.

A curve's exponent is the e of ``figure ~ amount^e``. What is small has fixed costs, which hide how a thing grows, so a
second exponent is fitted to the upper end alone. It is compared with the exponent of the work over the same points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.benchmarks.attention_costs import growth_exponent

TIME, MEMORY = "time", "memory"
_UPPER_END = 3  # points
_TOLERANCE = 0.1  # by which an exponent may lie above that of its work: a tenth over a decade is a quarter of the time


@dataclass(frozen=True)
class Axis:
    """What is varied.

    Attributes:
        name: heading.
        unit: what the numbers of the axis are.
        amount: what the exponents refer to.
        power: of the number in the amount, 2 for the side of an image.
    """

    name: str
    unit: str
    amount: str
    power: int = 1


AXES = {
    "size": Axis("Image size", "image side, px", "pixels", power=2),
    "batch": Axis("Batch", "images a batch", "images"),
    "labels": Axis("Data set", "labels in the set", "labels"),
    "workers": Axis("Loader", "worker processes", "workers"),
}


@dataclass(frozen=True)
class Point:
    """A figure, in seconds or bytes, at a place on the axis, and the work it took in any unit."""

    at: int
    figure: float
    work: float


@dataclass(frozen=True)
class Curve:
    """One thing along an axis.

    Attributes:
        axis: key of :data:`AXES`.
        kind: ``time`` or ``memory``.
        name: what was measured.
        work: what it is expected to grow with, in words.
        points: by rising place.
        left_out: why points are missing, half a sentence each.
    """

    axis: str
    kind: str
    name: str
    work: str
    points: tuple[Point, ...]
    left_out: tuple[str, ...] = ()

    def exponent(self, upper: bool = False) -> float | None:
        """With which the figure grows, over all points or the upper three; None for fewer than two."""
        return self._fit([point.figure for point in self._fitted(upper)], upper)

    def work_exponent(self, upper: bool = False) -> float | None:
        """With which the work grows over the same points."""
        return self._fit([point.work for point in self._fitted(upper)], upper)

    @property
    def faster(self) -> bool:
        """Whether the figure grows faster than its work at the upper end."""
        own, due = self.exponent(upper=True), self.work_exponent(upper=True)
        return own is not None and due is not None and own > due + _TOLERANCE

    def _fitted(self, upper: bool) -> Sequence[Point]:
        """Points that have a logarithm: a loader without workers has none."""
        known = [point for point in self.points if point.at > 0 and point.figure > 0]
        return known[-_UPPER_END:] if upper else known

    def _fit(self, values: Sequence[float], upper: bool) -> float | None:
        amounts = [point.at ** AXES[self.axis].power for point in self._fitted(upper)]
        return growth_exponent(amounts, values)


def of_axis(curves: Sequence[Curve], axis: str, kind: str | None = None) -> list[Curve]:
    """The curves of an axis, all or those of a kind."""
    return [curve for curve in curves if curve.axis == axis and kind in (None, curve.kind)]
