"""Charts of an evaluation: precision, recall and F1 over confidence, precision over recall, the confusion matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.drawing import colors
from utils.figures import GREY, MEAN, Names, label_font, name_list, new_figure, save_figure, shorten, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEGEND_LIMIT = 20  # classes up to which each curve gets a colour and a line in the legend
_FIGURE_LIMIT = 30  # classes below which the confusion matrix shows figures
_BLANK_BELOW = 0.005  # a share that would be printed as 0.00


def class_colour(index: int) -> tuple[float, ...]:
    """A class's colour as matplotlib takes it: red, green, blue in 0..1."""
    return tuple(value / 255 for value in colors(index))


def _class_lines(axes: Axes, x: np.ndarray, curves: np.ndarray, labels: list[str]) -> None:
    """One thin line a class: coloured and named while a reader can tell them apart, grey beyond."""
    few = len(curves) <= _LEGEND_LIMIT
    for index, curve in enumerate(curves):
        style = {"color": class_colour(index), "label": labels[index]} if few else {"color": "0.72", "alpha": 0.6}
        axes.plot(x, curve, linewidth=1.0 if few else 0.6, **style)


def _legend(axes: Axes, texts: list[str]) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, prop=label_font(texts, 8))


def plot_curve(
    x: np.ndarray,
    y: np.ndarray,
    names: Names = (),
    file: str | Path = "curve.png",
    xlabel: str = "Confidence",
    ylabel: str = "Metric",
    best: float | None = None,
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
    """
    grid, curves = np.asarray(x, dtype=float), np.atleast_2d(np.asarray(y, dtype=float))
    curves = curves if curves.size else np.zeros((0, len(grid)))
    labels = [shorten(name) for name in name_list(names, len(curves))]
    figure, (axes,) = new_figure(8.5, 5.5)
    _class_lines(axes, grid, curves, labels)
    if len(curves) and len(grid):
        mean = curves.mean(0)
        spot = int(mean.argmax()) if best is None else int(np.abs(grid - best).argmin())
        text = f"all classes {mean[spot]:.2f} at {grid[spot]:.3f}"
        axes.plot(grid, mean, linewidth=2.8, color=MEAN, label=text)
        axes.plot(grid[spot], mean[spot], "o", color=MEAN, markersize=6)
        axes.axvline(grid[spot], color=MEAN, linewidth=0.8, linestyle=":")
        _legend(axes, [*labels, text])
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    tidy(axes, f"{ylabel} over {xlabel.lower()}", xlabel, ylabel)
    save_figure(figure, file)


def plot_pr(
    recall: np.ndarray,
    precision: np.ndarray,
    ap50: np.ndarray,
    names: Names = (),
    file: str | Path = "PR_curve.png",
) -> None:
    """Draw precision over recall at IoU 0.5, a line for each class and a thick one for their mean.

    Args:
        recall: (n,) recalls, 0..1.
        precision: (K, n) precision at these.
        ap50: (K,) average precision at IoU 0.5, or (K, T) with that in the first column.
        names: names of the K classes.
        file: picture to write.
    """
    grid, curves = np.asarray(recall, dtype=float), np.atleast_2d(np.asarray(precision, dtype=float))
    curves = curves if curves.size else np.zeros((0, len(grid)))
    scores = np.asarray(ap50, dtype=float).reshape(len(curves), -1)[:, 0] if len(curves) else np.zeros(0)
    names_shown = name_list(names, len(curves))
    labels = [f"{shorten(name)} {score:.3f}" for name, score in zip(names_shown, scores, strict=True)]
    figure, (axes,) = new_figure(8.5, 5.5)
    _class_lines(axes, grid, curves, labels)
    if len(curves):
        text = f"all classes {scores.mean():.3f} mAP@0.5"
        axes.plot(grid, curves.mean(0), linewidth=2.8, color=MEAN, label=text)
        _legend(axes, [*labels, text])
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    tidy(axes, "Precision over recall at IoU 0.5", "Recall", "Precision")
    save_figure(figure, file)


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
    counts = np.asarray(matrix, dtype=float)
    size = len(counts)
    totals = counts.sum(0, keepdims=True)
    shown = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0) if normalize else counts
    labels = [shorten(name, 18) for name in name_list(names, size - 1)] + ["background"]
    side = float(np.clip(0.42 * size + 3.2, 6, 20))
    figure, (axes,) = new_figure(side * 1.12, side)
    top = 1.0 if normalize else max(float(shown.max(initial=0.0)), 1.0)
    visible = np.ma.masked_less(shown, _BLANK_BELOW)
    picture = axes.imshow(visible, cmap="Blues", vmin=0, vmax=top, interpolation="nearest")
    bar = figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.02)
    bar.outline.set_visible(False)
    tidy(
        axes, "Confusion matrix, " + ("share of each true class" if normalize else "counts"), "True", "Predicted", False
    )
    _confusion_labels(axes, labels, size)
    if size <= _FIGURE_LIMIT:
        _confusion_figures(axes, shown, top, normalize)
    save_figure(figure, file, dpi=150)


def _confusion_labels(axes: Axes, labels: list[str], size: int) -> None:
    font = label_font(labels, float(np.clip(420 / max(size, 1), 5.5, 9)))
    axes.set_xticks(range(size), labels, rotation=90, fontproperties=font)
    axes.set_yticks(range(size), labels, fontproperties=font)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.5)
    axes.tick_params(which="minor", length=0)


def _confusion_figures(axes: Axes, shown: np.ndarray, top: float, normalize: bool) -> None:
    """The value of each cell that is not blank, dark on light and light on dark."""
    for row, column in zip(*np.nonzero(shown >= _BLANK_BELOW), strict=True):
        value = shown[row, column]
        text = f"{value:.2f}" if normalize else f"{value:.0f}"
        ink = "white" if value > 0.55 * top else GREY
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8 if len(shown) < 16 else 6)
