"""Growth of a data set: opening it, what is computed over its labels, and the order of an epoch.

Sets are made as users have them, a folder of images and one of label files, with ten labels an image (COCO has seven):
a million labels are a hundred thousand images. Their pixels are never decoded here, so they are JPEG files of a few
sizes with one colour each; header and end are read and checked as in any other.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import torch

from engine.benchmarks.growth_curves import MEMORY, TIME, Curve, Point
from engine.benchmarks.interleaved import Rounds, interleaved
from engine.benchmarks.memory import free_bytes, traced_bytes
from engine.options.growth_benchmark import LABELS_PER_IMAGE
from engine.setup import image_weights
from utils.autoanchor import kmean_anchors
from utils.class_weights import labels_to_class_weights
from utils.datasets.budget import disk_shortage
from utils.datasets.cache import index_path
from utils.datasets.detection import LoadImagesAndLabels
from utils.datasets.sampling import EpochBatches

_CLASSES = 80
_SIZES_WH = ((64, 48), (48, 64), (64, 64), (80, 32))
_FILES_PER_IMAGE, _BLOCK = 2, 4096  # bytes that even a small file takes on most disks
_BATCH, _IMGSZ = 16, 320
_GENERATIONS = 20  # of the search for anchors; a real one has 1000, and each takes as long
_ENOUGH_SECONDS = 3.0  # a second round of what is larger says nothing more about its growth
_CPU = torch.device("cpu")
_KEPT, _PEAK = "the open data set", "opening it again, at most"


@dataclass(frozen=True)
class LabelSettings:
    """How to measure: where sets are made, rounds, and the most bytes that a set may take."""

    scratch: Path
    repeats: int
    most_bytes: float


def measure_sets(counts: Iterable[int], settings: LabelSettings) -> list[Curve]:
    """Make sets with so many labels and measure them, one after the other.

    Args:
        counts: labels of each set.
        settings: how.

    Returns:
        Curves of seconds, then of bytes. Where disk or memory would not do, points are left out.
    """
    times: dict[str, list[Point]] = {}
    memory: dict[str, list[Point]] = {_PEAK: [], _KEPT: []}
    left_out: tuple[str, ...] = ()
    for count in sorted(set(counts)):
        folder = settings.scratch / str(count)
        reason = _shortage(folder, count, memory[_PEAK], settings.most_bytes)
        if reason:
            left_out = (f"from {count:,} labels on: {reason}",)
            break
        images = draw_labels(folder, count)
        rounds = Rounds(1, settings.repeats, _ENOUGH_SECONDS)
        seconds = interleaved({"open, first time": partial(_open_unknown, images)}, _CPU, rounds)
        traced = traced_bytes(partial(_open, images))
        seconds |= interleaved(_steps(images), _CPU, rounds)
        for name, taken in seconds.items():
            times.setdefault(name, []).append(Point(count, taken, count))
        for name, figure in ((_PEAK, traced.peak), (_KEPT, traced.kept)):
            memory[name].append(Point(count, figure, count))
        shutil.rmtree(folder)
    return [
        Curve("labels", kind, name, "labels", tuple(points), left_out)
        for kind, curves in ((TIME, times), (MEMORY, memory))
        for name, points in curves.items()
    ]


def draw_labels(folder: Path, labels: int) -> Path:
    """Make a set; returns the folder of its images.

    Args:
        folder: gets ``images/train`` and ``labels/train``.
        labels: how many, ten an image.
    """
    images, texts = folder / "images" / "train", folder / "labels" / "train"
    for part in (images, texts):
        part.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = cycle(_picture(width, height) for width, height in _SIZES_WH * 2)
    for number, picture in zip(range(labels // LABELS_PER_IMAGE), pictures, strict=False):
        (images / f"{number:07d}.jpg").write_bytes(picture)
        classes = rng.integers(_CLASSES, size=LABELS_PER_IMAGE).tolist()
        boxes = rng.uniform((0.3, 0.3, 0.02, 0.02), (0.7, 0.7, 0.6, 0.6), (LABELS_PER_IMAGE, 4)).tolist()
        lines = (
            f"{label} " + " ".join(f"{value:.6f}" for value in box) for label, box in zip(classes, boxes, strict=True)
        )
        (texts / f"{number:07d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return images


def _picture(width: int, height: int) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width, 3), 128, np.uint8))[1].tobytes()


def _open(images: Path) -> LoadImagesAndLabels:
    return LoadImagesAndLabels(images, _IMGSZ, _BATCH, augment=True, hyp={"mosaic": 1.0})


def _open_unknown(images: Path) -> LoadImagesAndLabels:
    """Open as for the first time: every header and label file is read."""
    index_path(images).unlink(missing_ok=True)
    return _open(images)


def _steps(images: Path) -> dict[str, Callable[[], object]]:
    """What else training does with a set, by name."""
    dataset = _open(images)
    plain = EpochBatches(dataset, _BATCH, shuffle=True)
    weighted = EpochBatches(dataset, _BATCH, shuffle=True)

    def weights() -> np.ndarray | None:
        return image_weights(dataset.labels, labels_to_class_weights(dataset.labels, _CLASSES), np.zeros(_CLASSES))

    def by_weight() -> int:
        weighted.draw_by(weights())
        return _asked_for(weighted)

    return {
        "open, index there": partial(_open, images),
        "an epoch's order": partial(_asked_for, plain),
        "the same by --image-weights": by_weight,
        f"anchors, {_GENERATIONS} generations": partial(
            kmean_anchors, dataset, img_size=_IMGSZ, gen=_GENERATIONS, verbose=False
        ),
    }


def _asked_for(batches: EpochBatches) -> int:
    """Images of the next epoch, all of whose batches are made up."""
    return sum(len(batch) for batch in batches)


def _shortage(folder: Path, count: int, peaks: Sequence[Point], most_bytes: float) -> str:
    """Why a set is too large for this machine, or ""."""
    on_disk = count // LABELS_PER_IMAGE * _FILES_PER_IMAGE * _BLOCK
    reason = disk_shortage(on_disk, folder)
    if reason or not peaks:
        return reason
    needed = peaks[-1].figure * count / peaks[-1].at
    free = free_bytes(_CPU)
    allowed = most_bytes if free is None else min(most_bytes, free)
    return f"takes about {needed / 1e9:.1f} GB" if needed > allowed else ""
