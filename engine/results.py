"""The texts a run produces: the lines on the terminal, the table of classes and ``results.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.evaluator import EvalResult

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
_TABLE_COLUMNS = ("Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95")


class ResultsCsv:
    """``results.csv``: one row an epoch, every cell right-aligned."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, epoch: int, values: Sequence[float]) -> None:
        """Add an epoch.

        Args:
            epoch: from 0.
            values: the 13 figures after the epoch, in the order of :data:`CSV_COLUMNS`.

        Raises:
            ValueError: when their number is another.
        """
        if len(values) != len(CSV_COLUMNS) - 1:
            raise ValueError(f"a row has {len(CSV_COLUMNS) - 1} values, got {len(values)}")
        rows = [] if self.path.exists() else [",".join(f"{name:>{_CSV_WIDTH}}" for name in CSV_COLUMNS)]
        rows.append(",".join(f"{value:>{_CSV_WIDTH}.5g}" for value in (epoch, *values)))
        with self.path.open("a", encoding="utf-8") as stream:
            stream.writelines(f"{row}\n" for row in rows)


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
