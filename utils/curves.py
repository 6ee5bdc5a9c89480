"""Charts of an evaluation: precision, recall and F1 over confidence, and precision over recall.

A class has the same colour in every chart. Up to 20 classes each have a line in the legend. Beyond, colours would
repeat and nobody can follow eighty lines, so the best and the worst are named and the others are a grey background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.chart_text import legend
from utils.figures import (
    FAINT,
    MEAN,
    Names,
    class_colour,
    class_style,
    name_list,
    new_figure,
    note,
    save_figure,
    shorten,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from utils.average_precision import PrecisionRecall

CURVE_KINDS = ("PR", "F1", "P", "R")  # files are called <kind>_curve.png
_NAMED_LINES = 20  # classes up to which every curve has a colour and a line in the legend
_NAMED_AT_EITHER_END = 6  # classes named where there are more
_NOTHING = "no detection matches a label: there is no curve"


def plot_kind(curves: PrecisionRecall, kind: str, names: Mapping[int, str] | Sequence[str], file: str | Path) -> None:
    """Draw one of the four curves of an evaluation.

    Args:
        curves: what to draw.
        kind: one of :data:`CURVE_KINDS`.
        names: class names by index; only those with labels appear.
        file: picture to write.
    """
    known = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
    shown = {row: known.get(int(index), str(index)) for row, index in enumerate(curves.classes)}
    if kind == "PR":
        plot_pr(curves.recall, curves.p_of_recall, curves.ap, shown, file, classes=curves.classes)
        return
    # P and R are reported where F1 is best; their own charts mark their own maximum.
    rows, title, best = {
        "F1": (curves.f1, "F1", float(curves.confidence[curves.best])),
        "P": (curves.p, "Precision", None),
        "R": (curves.r, "Recall", None),
    }[kind]
    plot_curve(curves.confidence, rows, shown, file, "Confidence", title, best, classes=curves.classes)


def plot_curve(
    x: np.ndarray,
    y: np.ndarray,
    names: Names = (),
    file: str | Path = "curve.png",
    xlabel: str = "Confidence",
    ylabel: str = "Metric",
    best: float | None = None,
    *,
    classes: Sequence[int] | None = None,
) -> None:
    """Draw a measure over confidence, a line for each class and a thick one for their mean.

    Args:
        x: (n,) confidences, 0..1.
        y: (K, n) values, 0..1; no class at all gives empty axes.
        names: names of the K classes.
        file: picture to write.
        xlabel: text below.
        ylabel: text beside.
        best: confidence to mark on the mean; where the mean is highest when None.
        classes: (K,) class numbers, which choose the colours; 0 to K - 1 when None.
    """
    grid, curves = _table(x, y)
    labels = [shorten(name) for name in name_list(names, len(curves))]
    figure, (axes,) = new_figure(8.5, 5.5)
    if len(curves) and len(grid):
        mean = curves.mean(0)
        spot = int(mean.argmax()) if best is None else int(np.abs(grid - best).argmin())
        text = f"{mean[spot]:.2f} at {grid[spot]:.3f}"
        _all_lines(axes, grid, curves, labels, text, classes, ranked_by=curves.mean(1))
        axes.plot(grid[spot], mean[spot], "o", color=MEAN, markersize=6)
        axes.axvline(grid[spot], color=MEAN, linewidth=0.8, linestyle=":")
    else:
        note(axes, _NOTHING)
    _unit_square(axes)
    tidy(axes, f"{ylabel} over {xlabel.lower()}", xlabel, ylabel)
    save_figure(figure, file)


def plot_pr(
    recall: np.ndarray,
    precision: np.ndarray,
    ap50: np.ndarray,
    names: Names = (),
    file: str | Path = "PR_curve.png",
    *,
    classes: Sequence[int] | None = None,
) -> None:
    """Draw precision over recall at IoU 0.5, a line for each class and a thick one for their mean.

    Args:
        recall: (n,) recalls, 0..1.
        precision: (K, n) precision at these.
        ap50: (K,) average precision at IoU 0.5, or (K, T) with that in the first column.
        names: names of the K classes.
        file: picture to write.
        classes: (K,) class numbers, which choose the colours; 0 to K - 1 when None.
    """
    grid, curves = _table(recall, precision)
    scores = np.asarray(ap50, dtype=float).reshape(len(curves), -1)[:, 0] if len(curves) else np.zeros(0)
    names_shown = name_list(names, len(curves))
    labels = [f"{shorten(name)} {score:.3f}" for name, score in zip(names_shown, scores, strict=True)]
    figure, (axes,) = new_figure(8.5, 5.5)
    if len(curves):
        _all_lines(axes, grid, curves, labels, f"{scores.mean():.3f} mAP@0.5", classes, ranked_by=scores)
    else:
        note(axes, _NOTHING)
    _unit_square(axes)
    tidy(axes, "Precision over recall at IoU 0.5", "Recall", "Precision")
    save_figure(figure, file)


def _table(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """(n,) abscissa and (K, n) curves, with no row at all where there is no value."""
    grid, curves = np.asarray(x, dtype=float), np.atleast_2d(np.asarray(y, dtype=float))
    return grid, curves if curves.size else np.zeros((0, len(grid)))


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)


def _all_lines(
    axes: Axes,
    x: np.ndarray,
    curves: np.ndarray,
    labels: list[str],
    summary: str,
    classes: Sequence[int] | None,
    *,
    ranked_by: np.ndarray,
) -> None:
    """The mean, the classes, and a legend; ``ranked_by`` decides which of many classes are named."""
    numbers = np.arange(len(curves)) if classes is None else np.asarray(classes, dtype=int)
    alone = len(curves) == 1  # a mean of one class would hide it
    shown = [(f"{labels[0]}: {summary}" if alone else f"all classes {summary}", _mean_line(axes, x, curves))]
    if not alone:
        shown += _class_lines(axes, x, curves, labels, numbers, ranked_by)
    legend(axes, [line for _, line in shown], [text for text, _ in shown])


def _mean_line(axes: Axes, x: np.ndarray, curves: np.ndarray) -> Line2D:
    return axes.plot(x, curves.mean(0), linewidth=2.8, color=MEAN, zorder=4)[0]


def _class_lines(
    axes: Axes, x: np.ndarray, curves: np.ndarray, labels: list[str], numbers: np.ndarray, ranked_by: np.ndarray
) -> list[tuple[str, Line2D]]:
    """A line for every class; those named in the legend, with their texts."""
    few = len(curves) <= _NAMED_LINES
    order = np.arange(len(curves)) if few else np.argsort(-ranked_by, kind="stable")
    ends = _NAMED_AT_EITHER_END
    best, between, worst = (order, [], []) if few else (order[:ends], order[ends:-ends], order[-ends:])
    shown = []
    for rows in (best, between, worst):
        if rows is between and len(rows):
            grey = [axes.plot(x, curves[row], linewidth=0.6, color=FAINT, alpha=0.6)[0] for row in rows]
            shown.append((f"{len(rows)} classes between", grey[0]))
            continue
        for row in rows:
            style = {"color": class_colour(numbers[row]), "linestyle": class_style(numbers[row])}
            shown.append((labels[row], axes.plot(x, curves[row], linewidth=1.4, zorder=3, **style)[0]))
    return shown
