"""The picture of a confusion matrix, from one class to some hundred."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.chart_text import class_ticks
from utils.figures import Names, colour_bar, name_list, new_figure, save_figure, shorten, text_width, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW = 12  # rows up to which there is room for longer names
_FIGURE_LIMIT = 100  # rows up to which the cells show figures
_NAMED_LIMIT = 250  # rows up to which names and a grid can be read on a large screen
_TWO_DIGITS_FROM = 30  # rows from which they do without the zero before the point
_BLANK_BELOW = 0.005  # a share that would be printed as 0.00
_PANEL = 0.82  # of the picture's side that the cells take, about
_CONTRAST = 0.5  # exponent of the colours: small shares are what one looks for, and would be nearly white


def plot_confusion(
    matrix: np.ndarray, names: Names = (), file: str | Path = "confusion_matrix.png", normalize: bool = True
) -> None:
    """Draw a confusion matrix.

    Args:
        matrix: (K + 1, K + 1) counts, row predicted, column true, the last of each the background.
        names: names of the K classes.
        file: picture to write.
        normalize: show each column's shares instead of counts.
    """
    from matplotlib.colors import PowerNorm  # noqa: PLC0415 - matplotlib is loaded only when something is drawn

    counts = np.asarray(matrix, dtype=float)
    size = len(counts)
    totals = counts.sum(0, keepdims=True)
    shown = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0) if normalize else counts
    longest = 18 if size > _FEW else 26
    labels = [shorten(name, longest) for name in name_list(names, size - 1)] + ["background"]
    side = float(np.clip(0.3 * size + 4, 6, 20))
    pitch = 72 * _PANEL * side / size  # points from row to row
    figure, (axes,) = new_figure(side * 1.1, side)
    top = 1.0 if normalize else max(float(shown.max(initial=0.0)), 1.0)
    visible = np.ma.masked_less(shown, _BLANK_BELOW)
    scale = PowerNorm(_CONTRAST, 0, top)
    edges = np.arange(size + 1) - 0.5
    picture = axes.pcolormesh(edges, edges, visible, cmap="Blues", norm=scale)
    axes.invert_yaxis()
    bar = colour_bar(axes, picture)
    if normalize:
        bar.set_ticks([0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0])
    tidy(axes, "", "True class (background: there is nothing)", "Predicted class (background: missed)", grid=False)
    points = max(10.0, 0.75 * side)
    axes.xaxis.label.set_fontsize(points)
    axes.yaxis.label.set_fontsize(points)
    title = "Confusion matrix, " + ("shares of each column" if normalize else "counts")
    axes.set_title(title, fontsize=points, loc="left")
    _grid_and_names(axes, labels, pitch)
    if size <= _FIGURE_LIMIT:
        _figures(axes, shown, top, normalize, pitch)
    save_figure(figure, file, dpi=120 if side > 12 else 150)


def _grid_and_names(axes: Axes, labels: list[str], pitch: float) -> None:
    size = len(labels)
    if size > _NAMED_LIMIT:  # matplotlib writes some class numbers by itself
        return
    points = float(np.clip(0.72 * pitch, 3, 10))
    crowded = max(text_width(label) for label in labels) * 0.62 * points > pitch
    class_ticks(axes, "x", labels, points, upright=crowded)
    class_ticks(axes, "y", labels, points)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.5)
    axes.tick_params(which="minor", length=0)


def _figures(axes: Axes, shown: np.ndarray, top: float, normalize: bool, pitch: float) -> None:
    """The value of each cell that is not blank, dark on light and light on dark."""
    texts = {}
    for row, column in zip(*np.nonzero(shown >= _BLANK_BELOW), strict=True):
        texts[row, column] = _figure(shown[row, column], normalize, short=len(shown) > _TWO_DIGITS_FROM)
    widest = max((len(text) for text in texts.values()), default=1)
    points = float(np.clip(0.85 * pitch / (0.62 * widest), 3, 12))
    for (row, column), text in texts.items():
        ink = "white" if (shown[row, column] / top) ** _CONTRAST > 0.6 else "0.15"
        drawn = axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=points)
        drawn.set_in_layout(False)  # they are inside the panel; asking each of a thousand takes seconds


def _figure(value: float, normalize: bool, short: bool) -> str:
    """A share as 0.12, short as .12 and 1.0; a count as it is."""
    text = f"{value:.2f}" if normalize else f"{value:.0f}"
    return (text.removeprefix("0") if value < 0.995 else "1.0") if normalize and short else text
