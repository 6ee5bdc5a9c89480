"""Charts of a data set's labels: how many of each class, where the boxes are, and how large.

However many labels there are, only counts in a grid are drawn, and a sample of the boxes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from utils.chart_text import class_ticks
from utils.drawing import colors
from utils.figures import (
    ACCENT,
    Names,
    blank_figure,
    class_colour,
    colour_bar,
    name_list,
    new_figure,
    note,
    save_figure,
    shorten,
    text_width,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

LABELS_FILE, CORRELOGRAM_FILE = "labels.jpg", "labels_correlogram.jpg"
_BOXES_LAID_OVER = 1000  # more only make one dark blot
_FEW_BOXES = 200  # that many can have broader frames
_WIDE_FROM = 10  # classes from which the histogram takes the whole width
_NAMED_CLASSES = 120  # classes up to which it writes names below its bars and figures above
_COLOURS, _CONTRAST = "YlGnBu", 0.5  # an exponent below 1 keeps cells with few labels apart from empty ones


def plot_labels(labels: Any, names: Names = (), save_dir: str | Path = Path()) -> None:
    """Draw statistics of a data set's labels: ``labels.jpg`` and ``labels_correlogram.jpg``.

    Args:
        labels: (n, 5) of class, x, y, w, h, normalised.
        names: class names.
        save_dir: folder to write to.
    """
    plot_label_counts(labels, names, Path(save_dir) / LABELS_FILE)
    plot_correlogram(labels, Path(save_dir) / CORRELOGRAM_FILE)


def plot_label_counts(labels: Any, names: Names, file: str | Path) -> None:
    """Draw instances of each class, a sample of the boxes, their centres and their sizes.

    Args:
        labels: (n, 5) of class, x, y, w, h, normalised.
        names: class names.
        file: picture to write.
    """
    classes, boxes = _columns(labels)
    count = max(len(names), int(classes.max(initial=-1)) + 1, 1)
    wide = count >= _WIDE_FROM
    figure = blank_figure(14, 9.5) if wide else blank_figure(12, 11)
    panels = figure.subplot_mosaic("AAA;BCD" if wide else "AB;CD", height_ratios=[1.1, 1] if wide else None)
    histogram, shapes, centres, sizes = (panels[letter] for letter in "ABCD")
    width = 13 if wide else 5.5  # inches
    _class_histogram(histogram, np.bincount(classes, minlength=count), name_list(names, count), width)
    _draw_shapes(shapes, classes, boxes)
    for axes, first, title, words in ((centres, 0, "centres", ("x", "y")), (sizes, 2, "sizes", ("width", "height"))):
        picture = _density(axes, boxes[:, first], boxes[:, first + 1], fine=first > 0)
        tidy(axes, f"{title} (share of the image)", *words, grid=False)
        if len(boxes):
            colour_bar(axes, picture, "labels in a cell")
        else:
            note(axes, "no labels")
    centres.invert_yaxis()  # as in an image
    save_figure(figure, file, dpi=150)


def plot_correlogram(labels: Any, file: str | Path) -> None:
    """Draw each of x, y, width, height against each other, their own distribution on the diagonal.

    Args:
        labels: (n, 5) of class, x, y, w, h, normalised.
        file: picture to write.
    """
    _, boxes = _columns(labels)
    variables = ("x", "y", "width", "height")
    figure, panels = new_figure(10, 10, 4, 4)
    for index, axes in enumerate(panels):
        row, column = divmod(index, 4)
        if column > row:
            axes.set_axis_off()
            continue
        below, beside = variables[column] if row == 3 else "", variables[row] if column == 0 < row else ""
        if row == column:
            axes.hist(boxes[:, row], bins=50, range=(0, 1), color=ACCENT)
            tidy(axes, f"{variables[row]}: labels", below)
        else:
            _density(axes, boxes[:, column], boxes[:, row], fine=row > 1)
            tidy(axes, "", below, beside, grid=False)
            axes.tick_params(labelleft=column == 0)
            if row == 1:
                axes.invert_yaxis()  # y runs downwards, as in an image
        axes.tick_params(labelbottom=row == 3)
        axes.set_xlim(0, 1)
    text = f"{len(boxes):,} labels; x, y: centre; all in shares of the image; darker: more labels"
    figure.suptitle(text, fontsize=11)
    save_figure(figure, file, dpi=120)


def _columns(labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """(n,) classes and (n, 4) boxes of rows in an array, a list or a tensor."""
    values = labels.detach().cpu().numpy() if hasattr(labels, "detach") else labels
    rows = np.asarray(values, dtype=np.float64).reshape(-1, 5)
    return rows[:, 0].astype(int), rows[:, 1:]


def _class_histogram(axes: Axes, counts: np.ndarray, names: list[str], width: float) -> None:
    """Instances of each class as bars on ``width`` inches."""
    tints = [class_colour(index) for index in range(len(counts))]
    bars = axes.bar(range(len(counts)), counts, width=0.8, color=tints)
    tidy(axes, f"labels: {counts.sum():,}, classes: {len(counts)}", "", "labels")
    axes.grid(visible=False, axis="x")
    axes.set_xlim(-0.6, len(counts) - 0.4)
    axes.set_ylim(0, max(1.12 * counts.max(), 1))  # room for the figures
    if len(names) > _NAMED_CLASSES:
        axes.set_xlabel("class number")
        return
    pitch = 72 * width / len(names)  # points from bar to bar
    points = float(np.clip(0.72 * pitch, 4, 9))
    shown = [shorten(name) for name in names]
    class_ticks(axes, "x", shown, points, upright=max(map(text_width, shown)) * 0.62 * points > 0.95 * pitch)
    figures = [f"{count:,}" for count in counts]
    turned = max(map(len, figures)) * 0.62 * points > 0.95 * pitch
    axes.bar_label(bars, figures, fontsize=min(points, 8), padding=2, rotation=90 if turned else 0, color="0.25")


def _draw_shapes(axes: Axes, classes: np.ndarray, boxes: np.ndarray) -> None:
    axes.imshow(_boxes_laid_over(classes, boxes))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("0.8")
    drawn = min(len(boxes), _BOXES_LAID_OVER)
    sample = f"a sample of {drawn:,} boxes" if drawn < len(boxes) else "all boxes"
    axes.set_title(f"{sample}, centred" if len(boxes) else "boxes", fontsize=10, loc="left")
    if not len(boxes):
        note(axes, "no labels")


def _boxes_laid_over(classes: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The frames of evenly chosen boxes, all moved to the middle, small on top of large, as an RGB picture."""
    side = 900
    canvas = np.full((side, side, 3), 255, np.uint8)
    chosen = np.linspace(0, len(boxes) - 1, min(len(boxes), _BOXES_LAID_OVER)).astype(int)
    chosen = chosen[np.argsort(-boxes[chosen, 2] * boxes[chosen, 3], kind="stable")]
    half = np.clip(boxes[chosen, 2:] / 2, 0, 0.5)
    corners = np.rint(np.concatenate([0.5 - half, 0.5 + half], 1) * (side - 1)).astype(int)
    line = 2 if len(chosen) < _FEW_BOXES else 1
    for index, (left, top, right, bottom) in zip(classes[chosen], corners.tolist(), strict=True):
        cv2.rectangle(canvas, (left, top), (right, bottom), colors(index), line)
    return canvas


def _density(axes: Axes, across: np.ndarray, up: np.ndarray, fine: bool) -> AxesImage:
    """How often each pair of values 0..1 occurs.

    The more pairs there are, the finer the cells. ``fine`` is for values that lie close together, as sizes do.
    """
    from matplotlib.colors import PowerNorm  # noqa: PLC0415 - matplotlib is loaded only when something is drawn

    bins = int(np.clip(np.sqrt(len(across)) / (1 if fine else 2), 10, 50))
    density, _, _ = np.histogram2d(across, up, bins=bins, range=[[0, 1], [0, 1]])
    shown = np.ma.masked_equal(density.T, 0)
    scale = PowerNorm(_CONTRAST, 0, max(float(density.max(initial=0.0)), 1.0))
    return axes.imshow(
        shown, origin="lower", extent=(0, 1, 0, 1), cmap=_COLOURS, norm=scale, interpolation="nearest", aspect="auto"
    )
