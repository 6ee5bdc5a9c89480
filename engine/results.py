"""The texts a run produces: the lines on the terminal, the tables of classes and slices, the csv files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from engine.evaluator import EvalResult
from utils.atomic import replacing
from utils.coco_eval import CocoFigures
from utils.errors import TrainingError
from utils.metrics import MetricResult
from utils.slices import SliceResult

CSV_COLUMNS = (
    "epoch",
    "train/box_loss",
    "train/obj_loss",
    "train/cls_loss",
    "metrics/precision",
    "metrics/recall",
    "metrics/mAP_0.5",
    "metrics/mAP_0.5:0.95",
    "val/box_loss",
    "val/obj_loss",
    "val/cls_loss",
    "x/lr0",
    "x/lr1",
    "x/lr2",
)
_CSV_WIDTH = 20
_FEW_CLASSES = 50  # from here on the table has a row per class only when asked for

_TRAIN_COLUMNS = ("Epoch", "GPU_mem", "box_loss", "obj_loss", "cls_loss", "Instances", "Size")
_SLICE_COLUMNS = ("group", "slice", "rule", "images", "instances", "mAP50", "mAP50-95")
_TABLE_COLUMNS = ("Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95")


class ResultsCsv:
    """``results.csv``: one row an epoch, every cell right-aligned."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[str] = []  # all of the file, which is written again should it vanish

    def append(self, epoch: int, values: Sequence[float]) -> None:
        """Add an epoch.

        Args:
            epoch: from 0.
            values: the 13 figures after the epoch, in the order of :data:`CSV_COLUMNS`.

        Raises:
            ValueError: when their number is another.
            TrainingError: when the disk is full or the file cannot be written.
        """
        if len(values) != len(CSV_COLUMNS) - 1:
            raise ValueError(f"a row has {len(CSV_COLUMNS) - 1} values, got {len(values)}")
        row = ",".join(f"{value:>{_CSV_WIDTH}.5g}" for value in (epoch, *values)) + "\n"
        try:
            self._lines = self._lines or self._begun()
            self.restore()
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(row)
        except OSError as error:
            raise TrainingError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        self._lines.append(row)

    def restore(self) -> None:
        """Write all rows again where the file is gone."""
        if self._lines and not self.path.exists():
            with self.path.open("w", encoding="utf-8") as stream:
                stream.writelines(self._lines)

    def _begun(self) -> list[str]:
        """What the file holds before the first row of this process: that of a resumed run, or the header."""
        if self.path.exists():
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        return [",".join(f"{name:>{_CSV_WIDTH}}" for name in CSV_COLUMNS) + "\n"]

    def trim(self, last_epoch: int) -> None:
        """Take rows out that a run wrote after its last whole epoch, whole or cut off, in one step.

        Args:
            last_epoch: the last one whose row stays.
        """
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        header, *rows = lines or [""]
        whole = [header] if header.endswith("\n") else []  # one that was cut off is written anew with the next row
        kept = whole + [line for line in rows if whole and _epoch_of(line, header) <= last_epoch]
        if kept != lines:
            with replacing(self.path) as stream:
                stream.write("".join(kept))


def _epoch_of(line: str, header: str) -> float:
    """The epoch of a row; beyond all epochs for a row that was cut off."""
    cells = line.split(",")
    whole = line.endswith("\n") and len(cells) == len(header.split(","))
    return int(cells[0]) if whole and cells[0].strip().isdecimal() else float("inf")


def training_header() -> str:
    """Names over the columns of :func:`training_line`."""
    return "".join(f"{name:>11}" for name in _TRAIN_COLUMNS)


def training_line(epoch: str, memory: str, losses: Sequence[float], instances: int, size: int) -> str:
    """The line in front of the progress bar.

    Args:
        epoch: such as ``0/99``.
        memory: GPU memory as text.
        losses: mean box, obj and cls loss so far.
        instances: labels in the last batch.
        size: width of the last batch, px.
    """
    figures = "".join(f"{loss:>11.4g}" for loss in losses)
    return f"{epoch:>11}{memory:>11}{figures}{instances:>11}{size:>11}"


def evaluation_header() -> str:
    """Names over the columns of :func:`evaluation_table`."""
    first, *rest = _TABLE_COLUMNS
    return f"{first:>22}" + "".join(f"{name:>11}" for name in rest)


def evaluation_table(result: EvalResult, names: dict[int, str], every_class: bool = False) -> list[str]:
    """Rows of an evaluation: all classes together, then each class that has labels.

    Args:
        result: what was found.
        names: class names by index.
        every_class: list the classes even when there are 50 or more.
    """
    metrics = result.metrics
    total = (metrics.mp, metrics.mr, metrics.map50, metrics.map)
    rows = [_table_row("all", result.images, int(metrics.instances.sum()), total)]
    if len(names) > 1 and (every_class or len(names) < _FEW_CLASSES):
        for place, number in enumerate(metrics.ap_class):
            index = int(number)
            figures = (metrics.p[place], metrics.r[place], metrics.ap[place, 0], metrics.ap[place].mean())
            images, instances = int(metrics.images_with_class[index]), int(metrics.instances[index])
            rows.append(_table_row(names.get(index, str(index)), images, instances, figures))
    return rows


def _table_row(name: str, images: int, instances: int, figures: Sequence[float]) -> str:
    return f"{name:>22}{images:>11}{instances:>11}" + "".join(f"{float(value):>11.3g}" for value in figures)


def coco_line(coco: CocoFigures, ours: MetricResult) -> str:
    """One line that sets pycocotools' figures beside ours."""
    pairs = ((ours.map50, coco.map50), (ours.map, coco.map))
    points = [round(100 * (mine - theirs), 2) + 0.0 for mine, theirs in pairs]  # adding 0 takes the sign off -0.0
    return (
        f"pycocotools: mAP50 {coco.map50:.4f}, mAP50-95 {coco.map:.4f}; "
        f"ours: {ours.map50:.4f}, {ours.map:.4f}; difference {points[0]:+.2f} and {points[1]:+.2f} points"
    )


def slice_table(slices: Sequence[SliceResult]) -> list[str]:
    """Header and a row a slice, columns as wide as those of :func:`evaluation_table`; nothing without slices."""
    if not slices:
        return []
    names = ("Slice", "Images", "Instances", "mAP50", "mAP50-95")
    rows = [f"{names[0]:>22}" + "".join(f"{name:>11}" for name in names[1:])]
    for part in slices:
        figures = "".join(f"{'-' if value is None else format(value, '.3g'):>11}" for value in (part.map50, part.map))
        rows.append(f"{part.name:>22}{part.images:>11}{part.instances:>11}{figures}   {part.rule}")
    return rows


def write_slices(path: Path, slices: Sequence[SliceResult]) -> None:
    """Write ``slices.csv``: a row a slice; the figures of one without labels are empty."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(_SLICE_COLUMNS)
        for part in slices:
            figures = ["" if value is None else f"{value:.6g}" for value in (part.map50, part.map)]
            table.writerow([part.group, part.name, part.rule, part.images, part.instances, *figures])
