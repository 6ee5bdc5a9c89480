"""Pictures of batches with their boxes.

All charts can be imported from here: label statistics are in ``utils/label_charts.py``, training curves and the speed
study in ``utils/run_charts.py``, the charts of one evaluation in ``utils/curves.py`` and ``utils/confusion_chart.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.confusion_chart import plot_confusion
from utils.curves import plot_curve, plot_pr
from utils.drawing import Annotator, colors, ink_on
from utils.figures import Names, name_of, shorten
from utils.image_io import write_image
from utils.label_charts import plot_labels
from utils.run_charts import STUDY_SIZES, plot_results, plot_study

__all__ = [
    "STUDY_SIZES",
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
_LEAST_TILE = 240  # px of an image's longer side: below, names cannot be read, so small images are enlarged
_SHOWN_CONFIDENCE = 0.25  # predictions below are not drawn
_CROWD = 30  # boxes from which an image's labels are written smaller


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
    """Draw up to 16 images of a batch with their boxes as one grid, at most 1920 px a side.

    Args:
        images: (B, 3, H, W) RGB, 0..255 or 0..1.
        targets: (N, 6) of image, class, x, y, w, h, normalised or in px; a seventh column is the confidence of
            predictions, of which those above 0.25 are drawn.
        paths: files of the images; their names are written above each.
        fname: picture to write.
        names: class names; numbers when None.
    """
    batch = _array(images)[:_TILES]
    rows = _array(targets).astype(np.float64)
    rows = rows if rows.size else np.zeros((0, 6))
    height, width = batch.shape[2:]
    columns = math.ceil(math.sqrt(len(batch))) or 1
    room = _MAX_SIDE / columns
    strip = round(room / 40) + 8 if paths is not None else 0  # px above each image for the file's name
    scale = min(room / width, (room - strip) / height, max(_LEAST_TILE / max(height, width), 1.0))
    tile_h, tile_w = max(int(height * scale), 1), max(int(width * scale), 1)
    down = math.ceil(len(batch) / columns) or 1
    canvas = np.full((down * (strip + tile_h), columns * tile_w, 3), 255, np.uint8)
    factor = 255.0 if batch.dtype.kind == "f" and batch.max(initial=0.0) <= 1.0 else 1.0
    for index, image in enumerate(batch):
        pixels = np.ascontiguousarray((image * factor).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        tile = _boxes_on(
            cv2.resize(pixels, (tile_w, tile_h), interpolation=way), rows[rows[:, 0] == index], scale, names
        )
        caption = Path(paths[index]).name if paths is not None and index < len(paths) else ""
        y, x = index // columns * (strip + tile_h), index % columns * tile_w
        canvas[y : y + strip + tile_h, x : x + tile_w] = _framed(tile, strip, caption)
    write_image(Path(fname), canvas[..., ::-1])


def _framed(tile: np.ndarray, strip: int, caption: str) -> np.ndarray:
    """The image below a black strip with its file name, inside a white frame."""
    height, width = tile.shape[:2]
    annotator = Annotator(np.concatenate([np.zeros((strip, width, 3), np.uint8), tile]), font_size=max(strip - 7, 1))
    if strip and caption:
        annotator.text((4, 1), shorten(caption, max(int(1.6 * width / annotator.text_px), 8)))
    annotator.rectangle((0, 0, width - 1, strip + height - 1), outline=(255, 255, 255), width=2)
    return annotator.result()


def _boxes_on(tile: np.ndarray, rows: np.ndarray, scale: float, names: Names | None) -> np.ndarray:
    """One image with its boxes: first all frames, then all names, so that no frame crosses a name.

    Args:
        tile: (h, w, 3) RGB.
        rows: (n, 6) or (n, 7) of this image, see :func:`plot_images`.
        scale: px of the tile for each px of the image that boxes in px belong to.
        names: class names.
    """
    height, width = tile.shape[:2]
    if rows.shape[1] > 6:
        rows = rows[rows[:, 6] > _SHOWN_CONFIDENCE]
    normalised = rows.size > 0 and rows[:, 2:6].max() <= 1.01  # a little above 1: rounding in label files
    rows = rows[np.argsort(-rows[:, 4] * rows[:, 5], kind="stable")]  # small boxes lie on top
    unit = np.array([width, height]) if normalised else np.full(2, scale)
    centres, halves = rows[:, 2:4] * unit, rows[:, 4:6] * unit / 2
    corners = np.concatenate([centres - halves, centres + halves], 1)
    line = max(round(min(height, width) / 320), 1)
    text_px = max(round(min(height, width) / 32 * (0.75 if len(rows) > _CROWD else 1.0)), 10)
    annotator = Annotator(tile, line_width=line, font_size=text_px, pil=True)
    for row, box in zip(rows, corners, strict=True):
        annotator.box_label(box, "", color=colors(int(row[1])))
    for row, box in zip(rows, corners, strict=True):
        name = shorten(name_of(names or (), int(row[1])))
        text, plate = f"{name} {row[6]:.1f}" if len(row) > 6 else name, colors(int(row[1]))
        annotator.label(text, box[0], box[1], color=plate, txt_color=ink_on(plate))
    return annotator.result()
