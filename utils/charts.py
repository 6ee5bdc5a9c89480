"""Pictures about data and training: batches with their boxes, label statistics, training curves, a speed study.

The charts of one evaluation are in ``utils/curves.py``; they can be imported from here too.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from utils.curves import class_colour, plot_confusion, plot_curve, plot_pr
from utils.drawing import Annotator, colors
from utils.errors import ConfigError
from utils.figures import ACCENT, Names, label_font, name_list, name_of, new_figure, save_figure, shorten, tidy
from utils.image_io import write_image
from utils.log import LOGGER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "output_to_target",
    "plot_confusion",
    "plot_curve",
    "plot_images",
    "plot_labels",
    "plot_pr",
    "plot_results",
    "plot_study",
]

_TILES = 16  # most images in one picture
_MAX_SIDE = 1920  # px of the whole picture
_SHOWN_CONFIDENCE = 0.25  # predictions below are not drawn
_BOXES_LAID_OVER = 1000  # more only make one dark blot
_NAMED_CLASSES = 40  # classes up to which the histogram writes names below its bars
_SMOOTHED_FROM = 20  # epochs
_RESULT_PANELS = (
    "train/box_loss", "train/obj_loss", "train/cls_loss", "metrics/precision", "metrics/recall",
    "val/box_loss", "val/obj_loss", "val/cls_loss", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95",
)  # fmt: skip
STUDY_SIZES = tuple(range(256, 1537, 128))  # px, the sizes that `val.py --task study` runs


def _array(values: Any) -> np.ndarray:
    """A NumPy array from an array, a list or a tensor on any device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().float().numpy() if values.is_floating_point() else values.cpu().numpy()
    return np.asarray(values)


def output_to_target(output: Sequence[Any], max_det: int = 300) -> np.ndarray:
    """Turn predictions into the rows that :func:`plot_images` draws.

    Args:
        output: per image (n, 6) of x1 y1 x2 y2 confidence class, in px.
        max_det: most rows taken of each image.

    Returns:
        (N, 7) float32 of image, class, x, y, w, h (centre format, px), confidence.
    """
    rows = [np.zeros((0, 7), np.float32)]
    for index, found in enumerate(output):
        boxes = _array(found)[:max_det].astype(np.float32).reshape(-1, 6)
        image = np.full((len(boxes), 1), index, np.float32)
        centre, size = (boxes[:, :2] + boxes[:, 2:4]) / 2, boxes[:, 2:4] - boxes[:, :2]
        rows.append(np.concatenate([image, boxes[:, 5:6], centre, size, boxes[:, 4:5]], 1))
    return np.concatenate(rows)


def plot_images(
    images: Any,
    targets: Any,
    paths: Sequence[str | Path] | None = None,
    fname: str | Path = "images.jpg",
    names: Names | None = None,
) -> None:
    """Draw up to 16 images of a batch with their boxes as one square grid, at most 1920 px a side.

    Args:
        images: (B, 3, H, W) RGB, 0..255 or 0..1.
        targets: (N, 6) of image, class, x, y, w, h, normalised or in px; a seventh column is the confidence of
            predictions, of which those above 0.25 are drawn.
        paths: files of the images; their names are written on top.
        fname: picture to write.
        names: class names; numbers when None.
    """
    batch = _array(images)[:_TILES]
    rows = _array(targets).astype(np.float64)
    rows = rows if rows.size else np.zeros((0, 6))
    height, width = batch.shape[2:]
    side = math.ceil(math.sqrt(len(batch))) or 1
    scale = min(1.0, _MAX_SIDE / (side * max(height, width)))
    tile_h, tile_w = max(int(height * scale), 1), max(int(width * scale), 1)
    canvas = np.full((side * tile_h, side * tile_w, 3), 255, np.uint8)
    factor = 255.0 if batch.dtype.kind == "f" and batch.max(initial=0.0) <= 1.0 else 1.0
    for index, image in enumerate(batch):
        pixels = np.ascontiguousarray((image * factor).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
        tile = cv2.resize(pixels, (tile_w, tile_h), interpolation=cv2.INTER_AREA)
        y, x = index // side * tile_h, index % side * tile_w
        mine = rows[rows[:, 0] == index]
        caption = Path(paths[index]).name if paths is not None and index < len(paths) else ""
        canvas[y : y + tile_h, x : x + tile_w] = _tile(tile, mine, (width, height), caption, names)
    write_image(Path(fname), canvas[..., ::-1])


def _tile(
    tile: np.ndarray, rows: np.ndarray, image_wh: tuple[int, int], caption: str, names: Names | None
) -> np.ndarray:
    """One image of the grid with boxes, labels, file name and a white frame."""
    height, width = tile.shape[:2]
    line = max(round(min(height, width) / 320), 1)
    annotator = Annotator(tile, line_width=line, font_size=max(round(min(height, width) / 32), 9), pil=True)
    if caption:
        annotator.rectangle((0, 0, width, annotator.text_px + 6), fill=(0, 0, 0))
        annotator.text((4, 1), shorten(caption, max(int(1.6 * width / annotator.text_px), 8)))
    predicted = rows.shape[1] > 6
    normalised = rows.size > 0 and rows[:, 2:6].max() <= 1.01  # a little above 1: rounding in label files
    unit = np.array([width, height]) / (1 if normalised else np.array(image_wh))
    for row in rows:
        if predicted and row[6] <= _SHOWN_CONFIDENCE:
            continue
        centre, half, index = row[2:4] * unit, row[4:6] * unit / 2, int(row[1])
        name = name_of(names or (), index)
        label = f"{name} {row[6]:.1f}" if predicted else name
        annotator.box_label([*(centre - half), *(centre + half)], label, color=colors(index))
    annotator.rectangle((0, 0, width - 1, height - 1), outline=(255, 255, 255), width=max(line, 2))
    return annotator.result()


def plot_labels(labels: Any, names: Names = (), save_dir: str | Path = Path()) -> None:
    """Draw statistics of a data set's labels: ``labels.jpg`` and ``labels_correlogram.jpg``.

    Args:
        labels: (n, 5) of class, x, y, w, h, normalised.
        names: class names.
        save_dir: folder to write to.
    """
    rows = _array(labels).astype(np.float64).reshape(-1, 5)
    classes, boxes = rows[:, 0].astype(int), rows[:, 1:]
    count = max(len(names), int(classes.max(initial=-1)) + 1, 1)
    figure, (histogram, shapes, centres, sizes) = new_figure(12, 11, 2, 2)
    _class_histogram(histogram, np.bincount(classes, minlength=count), name_list(names, count))
    shapes.imshow(_boxes_laid_over(classes, boxes))
    shapes.set_axis_off()
    shapes.set_title("boxes laid over each other, centred", fontsize=10, loc="left")
    _density(centres, boxes[:, 0], boxes[:, 1], "centres", "x", "y")
    centres.invert_yaxis()  # as in an image
    _density(sizes, boxes[:, 2], boxes[:, 3], "sizes", "width", "height")
    save_figure(figure, Path(save_dir) / "labels.jpg", dpi=150)
    _correlogram(boxes, Path(save_dir) / "labels_correlogram.jpg")


def _class_histogram(axes: Axes, counts: np.ndarray, names: list[str]) -> None:
    tints = [class_colour(index) for index in range(len(counts))]
    bars = axes.bar(range(len(counts)), counts, width=0.8, color=tints)
    tidy(axes, f"instances: {counts.sum():,} in {len(counts)} classes", "", "instances")
    axes.grid(visible=False, axis="x")
    if len(names) <= _NAMED_CLASSES:
        shown = [shorten(name) for name in names]
        font = label_font(shown, 9 if len(names) <= 20 else 7)
        axes.set_xticks(range(len(names)), shown, rotation=0 if len("".join(shown)) < 60 else 90, fontproperties=font)
    else:
        axes.set_xlabel("class number")
        axes.set_xlim(-1, len(names))
    if len(names) <= 20:
        axes.bar_label(bars, fontsize=8, padding=2)


def _boxes_laid_over(classes: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The frames of the first boxes, all moved to the middle, as an RGB picture."""
    side = 1000
    canvas = np.full((side, side, 3), 255, np.uint8)
    half = np.clip(boxes[:_BOXES_LAID_OVER, 2:] / 2, 0, 0.5)
    corners = np.rint(np.concatenate([0.5 - half, 0.5 + half], 1) * (side - 1)).astype(int)
    for index, (left, top, right, bottom) in zip(classes, corners.tolist(), strict=False):
        cv2.rectangle(canvas, (left, top), (right, bottom), colors(index), 1)
    return canvas


def _density(axes: Axes, across: np.ndarray, up: np.ndarray, title: str, xlabel: str, ylabel: str) -> None:
    """How often each pair of values 0..1 occurs."""
    density, _, _ = np.histogram2d(across, up, bins=50, range=[[0, 1], [0, 1]])
    shown = np.ma.masked_equal(density.T, 0)
    axes.imshow(shown, origin="lower", extent=(0, 1, 0, 1), cmap="viridis_r", interpolation="nearest", aspect="auto")
    tidy(axes, title, xlabel, ylabel, grid=False)


def _correlogram(boxes: np.ndarray, file: Path) -> None:
    """Each of x, y, width, height against each other, their own distribution on the diagonal."""
    variables = ("x", "y", "width", "height")
    figure, panels = new_figure(10, 10, 4, 4)
    for index, axes in enumerate(panels):
        row, column = divmod(index, 4)
        if column > row:
            axes.set_axis_off()
            continue
        below, beside = variables[column] if row == 3 else "", variables[row] if column == 0 else ""
        if row == column:
            axes.hist(boxes[:, row], bins=50, range=(0, 1), color=ACCENT)
            tidy(axes, "", below, beside)
        else:
            _density(axes, boxes[:, column], boxes[:, row], "", below, beside)
        axes.set_xlim(0, 1)
    save_figure(figure, file, dpi=120)


def plot_results(file: str | Path = "path/to/results.csv", dir: str | Path = "") -> None:  # noqa: A002 - public keyword
    """Draw the training curves of a run as ``results.png`` beside its results file.

    Args:
        file: the results file; every ``results*.csv`` of its folder is drawn.
        dir: the folder, when no file is given.

    Raises:
        ConfigError: when the folder has no results file with a row in it.
    """
    folder = Path(dir) if dir else Path(file).parent
    tables = {path.stem: _read_results(path) for path in sorted(folder.glob("results*.csv"))}
    tables = {stem: table for stem, table in tables.items() if table}
    if not tables:
        raise ConfigError(f"{folder}: no results*.csv with results in it; it is written by train.py")
    figure, panels = new_figure(15, 6.5, 2, 5)
    for axes, column in zip(panels, _RESULT_PANELS, strict=True):
        for index, (stem, table) in enumerate(tables.items()):
            if column in table:
                tint = ACCENT if index == 0 else class_colour(index + 3)
                _training_curve(axes, table["epoch"], table[column], tint, stem)
        tidy(axes, column, "epoch" if axes in panels[5:] else "")
    if len(tables) > 1:
        panels[0].legend(frameon=False, fontsize=8)
    save_figure(figure, folder / "results.png", dpi=150)


def _training_curve(axes: Axes, epochs: np.ndarray, values: np.ndarray, tint: Any, label: str) -> None:
    """The values as they are, and where there are many, a smooth line through them."""
    if len(values) < _SMOOTHED_FROM:
        axes.plot(epochs, values, ".-", color=tint, linewidth=1.5, label=label)
        return
    axes.plot(epochs, values, color=tint, linewidth=0.8, alpha=0.45)
    axes.plot(epochs, _smooth(values), color=tint, linewidth=1.8, label=label)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Gaussian average over about a tenth of the epochs, narrower towards both ends."""
    positions = np.arange(len(values))
    width = max(len(values) / 30, 1.0)
    weights = np.exp(-0.5 * ((positions[:, None] - positions[None]) / width) ** 2)
    return weights @ values / weights.sum(1)


def _read_results(path: Path) -> dict[str, np.ndarray]:
    """Columns of a results file by name; empty, with a warning, when it cannot be understood."""
    with path.open(encoding="utf-8", newline="") as stream:
        header, *rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if row] or [[]]
    try:
        values = np.array([[float(cell) for cell in row] for row in rows], dtype=float)
    except ValueError:
        values = np.zeros((0, 0))
    if values.ndim != 2 or not len(values) or values.shape[1] != len(header) or "epoch" not in header:
        LOGGER.warning("%s: not a table of results, left out of the chart", path)
        return {}
    return dict(zip(header, values.T, strict=True))


def plot_study(files: Sequence[str | Path], file: str | Path = "study.png", sizes: Sequence[int] = STUDY_SIZES) -> None:
    """Draw accuracy against speed and against image size.

    Args:
        files: tables of ``val.py --task study``, a row a size: P R mAP50 mAP50-95, three losses, then ms per image of
            pre-processing, inference and NMS.
        file: picture to write.
        sizes: image side in px of each row.

    Raises:
        ConfigError: when a file is no such table; names it.
    """
    figure, (speed, accuracy) = new_figure(12, 5, 1, 2)
    for index, path in enumerate(map(Path, files)):
        table = _read_study(path)
        tint = class_colour(index)
        label = path.stem.removeprefix("study_")
        score, milliseconds = 100 * table[:, 3], table[:, 8:10].sum(1)
        speed.plot(milliseconds, score, ".-", color=tint, label=label)
        shown = list(sizes)[: len(score)]
        accuracy.plot(shown, score[: len(shown)], ".-", color=tint, label=label)
        for side, across, up in zip(shown, milliseconds, score, strict=False):
            speed.annotate(str(side), (across, up), fontsize=6, xytext=(2, 3), textcoords="offset points")
    tidy(speed, "Accuracy over time (inference and NMS)", "ms per image", "mAP@0.5:0.95, %")
    tidy(accuracy, "Accuracy over image size", "px", "mAP@0.5:0.95, %")
    if files:
        speed.legend(frameon=False, fontsize=8)
    save_figure(figure, file)


def _read_study(path: Path) -> np.ndarray:
    try:
        table = np.loadtxt(path, dtype=float, ndmin=2)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a study table ({error})") from error
    if table.shape[1] < 10:
        raise ConfigError(f"{path}: expected 10 columns, found {table.shape[1]}; write it with val.py --task study")
    return table
