"""``python benchmark.py tiling``: what ``detect.py --tile`` does for small objects in large images, and what it costs.

The images are drawn: the shapes of the embedded data set, 11 to 25 px large and up to 140 px, on images of 1280 px. The
same weights look at each of them as a whole, at several sizes, and in tiles; pycocotools says what was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from engine.benchmarks.machine import describe_machine
from engine.benchmarks.page import ResultPlace, measured_with
from engine.options.tiling_benchmark import TilingBenchmarkOptions
from engine.predictor import Predictor, Selection
from engine.tiling import TiledPredictor, Tiling
from models.backends.multi import DetectMultiBackend
from utils.augmentations import letterbox
from utils.boxes import xywhn2xyxy
from utils.coco_eval import CocoFigures, coco_figures
from utils.datasets.frames import SourceFrame
from utils.datasets.shapes import CLASSES, Scene, draw_large_scene
from utils.devices import select_device
from utils.errors import DatasetError
from utils.markdown import paragraph, table
from utils.matching import ImageRecord
from utils.sizes import check_img_size
from utils.tiles import plan_tiles

_MEGA = 1e6
_SELECTION = Selection(conf_thres=0.001, iou_thres=0.6, max_det=300)  # as val.py measures
_TITLES = ("seen", "input, px", "AP small", "AP medium", "AP large", "mAP50-95", "mAP50", "Mpx", "ms")


@dataclass(frozen=True)
class Way:
    """One way to look at the images: at a size in px, and in tiles or as a whole."""

    name: str
    imgsz: int
    tiling: Tiling | None = None


@dataclass(frozen=True)
class TilingRow:
    """What one way found, and the milliseconds that it took for an image."""

    way: Way
    figures: CocoFigures
    milliseconds: float


@dataclass(frozen=True)
class TilingResult:
    """What a run found: the rows, and the table as Markdown, which ``tiling.md`` in the folder holds."""

    folder: Path
    rows: list[TilingRow]
    text: str


def run_tiling(given: TilingBenchmarkOptions) -> TilingResult:
    """Measure, and write the table.

    Args:
        given: what was asked for.

    Raises:
        DatasetError: when the weights are for other classes than the shapes.
        ConfigError: when the folder cannot be made, or the page of the documentation has no place for the result.
    """
    options = given.settled()
    place = ResultPlace(options)
    device = select_device(options.device, newline=False)
    backend = DetectMultiBackend(options.weights, device=device)
    if tuple(backend.names.values()) != CLASSES:
        raise DatasetError(f"{options.weights}: expected weights for {', '.join(CLASSES)}, as make demo trains them")
    folder = place.make_folder()
    scenes = [draw_large_scene(str(number), options.side) for number in range(options.images)]
    rows = [measure(way, backend, scenes) for way in ways_of(options, backend.stride)]
    text = report(rows, options, describe_machine(device, torch.get_num_threads()))
    place.publish(folder, text, summary=text)
    return TilingResult(folder, rows, text)


def ways_of(options: TilingBenchmarkOptions, stride: int) -> list[Way]:
    """As a whole at the training's size and at half and all of the images'; in tiles, without the whole and with it."""
    imgsz, half, full = (check_img_size(size, stride) for size in (options.imgsz, options.side // 2, options.side))
    sizes = sorted({imgsz, half, full})
    share = f"{options.tile} px, overlap {options.overlap:g}"
    return [
        *(Way("as a whole", size) for size in sizes),
        Way(f"in tiles of {share}, alone", imgsz, Tiling(options.tile, options.overlap, whole=False)),
        Way(f"in tiles of {share}, and as a whole", imgsz, Tiling(options.tile, options.overlap)),
    ]


def passes_of(way: Way, side: int) -> int:
    """How often the network runs for a square image of a side, px."""
    if way.tiling is None:
        return 1
    tiles = len(plan_tiles((side, side), way.tiling.size, way.tiling.overlap))
    return tiles + (way.tiling.whole and tiles > 1)


def measure(way: Way, backend: DetectMultiBackend, scenes: Sequence[Scene]) -> TilingRow:
    """Look at scenes in one way.

    Args:
        way: how.
        backend: the detector.
        scenes: images with their labels.
    """
    sides = (way.imgsz, way.imgsz)
    tiled = TiledPredictor(backend, way.tiling, sides, _SELECTION) if way.tiling else None
    predictor = tiled or Predictor(backend, _SELECTION)
    records = list(_records(predictor, scenes, sides, f"{way.name}, {way.imgsz} px"))
    return TilingRow(way, coco_figures(records, len(CLASSES)), sum(predictor.watches.milliseconds()))


def _records(
    predictor: Predictor, scenes: Sequence[Scene], sides: tuple[int, int], title: str
) -> Iterator[ImageRecord]:
    for scene in tqdm(scenes, title, leave=False, disable=None):
        boxed, _, _ = letterbox(scene.image, sides, stride=predictor.backend.stride)
        pixels = np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))
        (found,) = predictor.detect_frames([SourceFrame(Path(), pixels, scene.image)])
        height, width = scene.image.shape[:2]
        corners = xywhn2xyxy(scene.labels[:, 1:], width, height)
        labels = np.concatenate([scene.labels[:, :1], corners], 1).astype(np.float32)
        yield ImageRecord.of(torch.from_numpy(found), torch.from_numpy(labels))


def report(rows: Sequence[TilingRow], options: TilingBenchmarkOptions, machine: str) -> str:
    """The table with what it was measured on, Markdown."""
    lines = [
        [
            row.way.name,
            row.way.imgsz,
            *(_points(getattr(row.figures, name)) for name in ("small", "medium", "large", "map", "map50")),
            f"{passes_of(row.way, options.side) * row.way.imgsz**2 / _MEGA:.2f}",
            f"{row.milliseconds:.0f}",
        ]
        for row in rows
    ]
    about = (
        f"{options.images} drawn images of {options.side} x {options.side} px; AP over IoU 0.50 to 0.95 by "
        "pycocotools, small below 32 x 32 px of the image, medium below 96 x 96; confidence from 0.001, 300 detections "
        "an image at most. *Mpx* is what goes through the network for an image; milliseconds are those of preparing, "
        "network and NMS."
    )
    return f"{measured_with(machine, options.command())}\n{paragraph(about)}\n{table(_TITLES, lines, left=1)}"


def _points(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"
