"""The picture of an evolution: what every hyperparameter did to the fitness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.figures import ACCENT, GREY, new_figure, save_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 5
_TICKS = 5  # intervals of an axis; more make long numbers run into each other
_BEST = "#D1495B"
_LEGEND = "a point is a training, darker ones came later\nred: the best, its values above the panels"


def plot_evolution(
    values: Mapping[str, Sequence[float]],
    fitness: Sequence[float],
    numbers: Sequence[int],
    file: str | Path = "evolve.png",
    measure: str = "fitness",
) -> None:
    """Draw the fitness over the trainings, then over each hyperparameter; later trainings are darker, the best is red.

    Args:
        values: of each hyperparameter, one a training.
        fitness: of each training, one at least.
        numbers: of each training.
        file: picture to write.
        measure: what the fitness is called.
    """
    reached, order = np.asarray(fitness, float), np.asarray(numbers, float)
    best = int(reached.argmax())
    rows = math.ceil((len(values) + 2) / _COLUMNS)  # one panel more for the course, one for the legend
    figure, panels = new_figure(3 * _COLUMNS, 2.7 * rows, rows, _COLUMNS)
    _course(panels[0], order, reached, best, measure)
    for place, (name, column) in enumerate(values.items(), start=1):
        tried = np.asarray(column, float)
        _cloud(panels[place], tried, reached, order, best)
        tidy(panels[place], f"{name}: {tried[best]:.4g}", "", "" if place % _COLUMNS else measure)
        panels[place].sharey(panels[0])
        panels[place].locator_params(nbins=_TICKS)
    for axes in panels[len(values) + 1 :]:
        axes.set_axis_off()
    panels[-1].text(0, 0.9, _LEGEND, fontsize=9, color=GREY, va="top", transform=panels[-1].transAxes)
    save_figure(figure, file, dpi=120)


def _course(axes: Axes, order: np.ndarray, reached: np.ndarray, best: int, measure: str) -> None:
    """Fitness over the number of the training, with the best so far as a line."""
    axes.step(order, np.maximum.accumulate(reached), where="post", color=GREY, linewidth=1.2)
    _cloud(axes, order, reached, order, best)
    tidy(axes, f"best: {reached[best]:.4g} in training {order[best]:.0f}", "training", measure)


def _cloud(axes: Axes, across: np.ndarray, reached: np.ndarray, order: np.ndarray, best: int) -> None:
    """One point a training, the best as a cross-hair."""
    shade = 0.25 + 0.75 * (order - order.min()) / max(float(np.ptp(order)), 1.0)
    axes.scatter(across, reached, s=18, color=ACCENT, alpha=shade, linewidths=0)
    axes.axvline(across[best], color=_BEST, linewidth=0.8, alpha=0.6)
    axes.scatter(across[best], reached[best], s=70, marker="+", color=_BEST, linewidths=2, zorder=3)
