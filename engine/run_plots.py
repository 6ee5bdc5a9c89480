"""Pictures of a run, drawn beside it; training and evaluation only report what happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from engine.evaluator import EvalResult, EvaluatedBatch
from utils.charts import output_to_target, plot_confusion, plot_images, plot_labels, plot_results
from utils.metrics import plot_curves

_BATCHES = 3  # pictured at the start of training and of an evaluation


class TrainPlots:
    """Draws labels, the first training batches and the curves of a training run."""

    def __init__(self, folder: Path, names: Mapping[int, str], enabled: bool = True) -> None:
        self.folder, self.names, self.enabled = folder, dict(names), enabled

    def labels(self, labels: Sequence[np.ndarray]) -> None:
        """``labels.jpg`` and ``labels_correlogram.jpg`` from each image's (n, 5) labels."""
        if self.enabled and len(labels):
            plot_labels(np.concatenate(list(labels), 0), self.names, self.folder)

    def batch(self, number: int, images: torch.Tensor, targets: torch.Tensor, paths: Sequence[str]) -> None:
        """``train_batch<n>.jpg`` of the first batches.

        Args:
            number: of the batch since the start of training.
            images: (B, 3, H, W).
            targets: (n, 6) normalised.
            paths: image files.
        """
        if self.enabled and number < _BATCHES:
            plot_images(images, targets, paths, self.folder / f"train_batch{number}.jpg", self.names)

    def results(self, csv: Path) -> None:
        """``results.png``."""
        if self.enabled and csv.exists():
            plot_results(file=csv)


class EvalPlots:
    """Draws the first batches of an evaluation (as an observer of it) and its curves."""

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self.folder, self.names = folder, dict(names)

    def __call__(self, batch: EvaluatedBatch) -> None:
        """Labels and predictions of the first batches."""
        if batch.index >= _BATCHES:
            return
        stem = f"val_batch{batch.index}"
        plot_images(batch.images, batch.targets, batch.paths, self.folder / f"{stem}_labels.jpg", self.names)
        predicted = output_to_target(batch.detections)
        plot_images(batch.images, predicted, batch.paths, self.folder / f"{stem}_pred.jpg", self.names)

    def finish(self, result: EvalResult) -> None:
        """Confusion matrix and the four curves."""
        if result.confusion is not None:
            plot_confusion(result.confusion.matrix, self.names, self.folder / "confusion_matrix.png")
        if result.metrics.curves is not None:
            plot_curves(result.metrics.curves, self.names, self.folder)
