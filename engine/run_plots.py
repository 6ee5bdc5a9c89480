"""Pictures of a run, drawn beside it; training and evaluation only report what happens.

A picture is a by-product. Whatever goes wrong with one, :func:`drawing` turns into a warning, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.evaluator import EvalResult, EvaluatedBatch
from utils.average_precision import PrecisionRecall, precision_recall
from utils.charts import output_to_target, plot_confusion, plot_images, plot_results
from utils.curves import CURVE_KINDS, plot_kind
from utils.dist import is_main
from utils.errors import first_line
from utils.label_charts import CORRELOGRAM_FILE, LABELS_FILE, plot_correlogram, plot_label_counts
from utils.log import LOGGER

_BATCHES = 3  # pictured at the start of training and of an evaluation


@contextmanager
def drawing(file: Path) -> Iterator[None]:
    """Let a failure inside cost this picture and nothing else: one warning names it and the reason.

    The traceback goes to the debug log. Ctrl+C passes through.

    Args:
        file: the picture that is drawn inside.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - disk, fonts, matplotlib, OpenCV, Pillow: hours of training must survive any
        reason = first_line(error).removeprefix(f"{file}: ")
        LOGGER.warning(f"{file}: not drawn ({type(error).__name__}: {reason})")
        LOGGER.debug(f"{file}", exc_info=error)


class TrainPlots:
    """Draws labels, the first training batches and the curves of a training run.

    Args:
        folder: the run folder.
        names: class names by index.
        enabled: False draws nothing: with ``--noplots``, and in all processes of a launch but the main one.
    """

    def __init__(self, folder: Path, names: Mapping[int, str], enabled: bool = True) -> None:
        self.folder, self.names, self.enabled = folder, dict(names), enabled

    def labels(self, labels: Sequence[np.ndarray]) -> None:
        """``labels.jpg`` and ``labels_correlogram.jpg`` from each image's (n, 5) labels."""
        if not self.enabled or not len(labels):
            return
        rows = np.concatenate(list(labels), 0)
        with drawing(self.folder / LABELS_FILE):
            plot_label_counts(rows, self.names, self.folder / LABELS_FILE)
        with drawing(self.folder / CORRELOGRAM_FILE):
            plot_correlogram(rows, self.folder / CORRELOGRAM_FILE)

    def batch(self, number: int, images: torch.Tensor, targets: torch.Tensor, paths: Sequence[str]) -> None:
        """``train_batch<n>.jpg`` of the first batches.

        Args:
            number: of the batch since the start of training.
            images: (B, 3, H, W).
            targets: (n, 6) normalised.
            paths: image files.
        """
        if not self.enabled or number >= _BATCHES:
            return
        file = self.folder / f"train_batch{number}.jpg"
        with drawing(file):
            plot_images(images, targets, paths, file, self.names)

    def results(self, csv: Path) -> None:
        """``results.png``."""
        if self.enabled and csv.exists():
            with drawing(csv.with_name("results.png")):
                plot_results(file=csv)


class EvalPlots:
    """Draws the first batches of an evaluation (as an observer of it) and its curves.

    Under several processes each draws those of the first batches that fall to it; the curves, which all processes
    could draw, are the main one's.

    Args:
        folder: where to.
        names: class names by index.
    """

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self.folder, self.names = folder, dict(names)

    def __call__(self, batch: EvaluatedBatch) -> None:
        """Labels and predictions of the first batches, counted over all processes."""
        if batch.index >= _BATCHES:
            return
        self._batch(f"val_batch{batch.index}_labels.jpg", batch, batch.targets)
        self._batch(f"val_batch{batch.index}_pred.jpg", batch, batch.detections)

    def _batch(self, name: str, batch: EvaluatedBatch, boxes: Any) -> None:
        """One picture: ``boxes`` are the batch's targets, or its list of detections."""
        file = self.folder / name
        with drawing(file):
            rows = output_to_target(boxes) if isinstance(boxes, list) else boxes
            plot_images(batch.images, rows, batch.paths, file, self.names)

    def finish(self, result: EvalResult) -> None:
        """Confusion matrix and the four curves; empty ones with a note where no detection was right."""
        if not is_main():
            return
        if result.confusion is not None:
            file = self.folder / "confusion_matrix.png"
            with drawing(file):
                plot_confusion(result.confusion.matrix, self.names, file)
        curves = result.metrics.curves or _no_curves()
        for kind in CURVE_KINDS:
            file = self.folder / f"{kind}_curve.png"
            with drawing(file):
                plot_kind(curves, kind, self.names, file)


def _no_curves() -> PrecisionRecall:
    nothing = np.zeros(0)
    return precision_recall(np.zeros((0, 1), dtype=bool), nothing, nothing, nothing)
