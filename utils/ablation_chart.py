"""The picture of an ablation: every training, every difference with its interval, and what an image costs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.chart_text import class_ticks
from utils.figures import ACCENT, FAINT, GREY, MEAN, new_figure, note, save_figure, shorten, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BETTER, _WORSE = "#3C9D4E", "#D1495B"
_LONGEST_NAME = 60  # as long as ablate.py allows, in Latin letters


@dataclass(frozen=True)
class AblationRow:
    """A model in the picture; the first one is the baseline.

    Attributes:
        name: of the model.
        scores: mAP50-95, one a training.
        differences: from the baseline's, one a pair of trainings.
        interval: of their mean, low and high; None where there is none.
        latency_ms: of an image: lower quartile, median, upper quartile.
        clear: 1 for a difference to the better that is more than chance, -1 for one to the worse, else 0.
    """

    name: str
    scores: Sequence[float]
    differences: Sequence[float]
    interval: tuple[float, float] | None
    latency_ms: tuple[float, float, float]
    clear: int

    @property
    def colour(self) -> str:
        """Green for better, red for worse, blue for what may be chance."""
        return {1: _BETTER, -1: _WORSE}.get(self.clear, ACCENT)


def plot_ablation(rows: Sequence[AblationRow], file: str | Path) -> None:
    """Draw a line a model: the scores of all trainings, their paired differences, and what an image costs.

    Args:
        rows: the models, the baseline first.
        file: picture to write.
    """
    figure, (scores, differences, costs) = new_figure(15, 1.6 + 0.42 * len(rows), 1, 3)
    for place, row in enumerate(rows):
        tint = row.colour if place else MEAN
        _cloud(scores, row.scores, place, tint)
        if place:
            _interval(differences, row.interval, place, tint)
            _cloud(differences, row.differences, place, tint)
        low, middle, high = row.latency_ms
        _interval(costs, (low, high), place, tint)
        _cloud(costs, [middle], place, tint)
    tidy(scores, "mAP50-95: a dot a seed, a bar the mean", "mAP50-95")
    tidy(
        differences,
        "Difference to the baseline, 95 % interval",
        "green: better, red: worse, blue: may be chance",
    )
    tidy(costs, "One image: median and quartiles", "ms")
    differences.axvline(0, color=GREY, linewidth=1, zorder=1)
    costs.set_xlim(left=0)
    for axes in (scores, differences, costs):
        _lines(axes, rows, named=axes is scores)
    for axes, known in ((scores, any(row.scores for row in rows)), (differences, any(row.differences for row in rows))):
        if not known:
            note(axes, "nothing to show yet")
    save_figure(figure, file, dpi=110)


def _cloud(axes: Axes, values: Sequence[float], place: int, tint: str) -> None:
    """A dot a value, and their mean as an upright bar."""
    if not values:
        return
    axes.plot(statistics.fmean(values), place, "|", color=tint, markersize=18, markeredgewidth=2)
    style = {"markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.6}
    axes.plot(values, [place] * len(values), "o", color=tint, alpha=0.75, **style)


def _interval(axes: Axes, ends: tuple[float, float] | None, place: int, tint: str) -> None:
    if ends is not None:
        axes.plot(ends, (place, place), color=tint, linewidth=2.5, alpha=0.6, solid_capstyle="butt")


def _lines(axes: Axes, rows: Sequence[AblationRow], named: bool) -> None:
    """A line a model, the baseline on top and set apart; names at the left panel only."""
    class_ticks(axes, "y", [shorten(row.name, _LONGEST_NAME) if named else "" for row in rows], 9)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axhline(0.5, color=FAINT, linewidth=0.8, zorder=1)
