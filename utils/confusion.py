"""Confusion matrix of a detector: which class was taken for which, and what was missed or made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from utils.boxes import box_iou
from utils.log import LOGGER


class ConfusionMatrix:
    """Counts of predicted against true classes, whatever the class when boxes are matched.

    Unmatched detections count as false on every image, also where nothing matches and where there are no labels.

    Args:
        nc: number of classes.
        conf: detections must be more confident than this.
        iou_thres: a detection and a label may match above this IoU.

    Attributes:
        matrix: (nc + 1, nc + 1) counts, row predicted, column true; the last of each is the background.
    """

    def __init__(self, nc: int, conf: float = 0.25, iou_thres: float = 0.45):
        self.nc = nc
        self.conf = conf
        self.iou_thres = iou_thres
        self.matrix = np.zeros((nc + 1, nc + 1))

    def process_batch(self, detections: torch.Tensor | None, labels: torch.Tensor) -> None:
        """Count one image.

        Args:
            detections: (N, 6) x1 y1 x2 y2 confidence class; None when there are none, and then ``labels`` may be
                the classes alone.
            labels: (M, 5) class x1 y1 x2 y2.
        """
        if detections is None:
            classes = labels if labels.ndim == 1 else labels[:, 0]
            self._count(np.full(len(classes), self.nc), _whole(classes))
            return
        detections = detections[detections[:, 4] > self.conf]
        predicted, true = _whole(detections[:, 5]), _whole(labels[:, 0])
        overlap = box_iou(labels[:, 1:5].float(), detections[:, :4].float()).cpu().numpy()  # (M, N)
        label, detection = mutual_best(overlap, self.iou_thres)
        self._count(predicted[detection], true[label])
        missed, invented = np.delete(true, label), np.delete(predicted, detection)
        self._count(np.full(len(missed), self.nc), missed)
        self._count(invented, np.full(len(invented), self.nc))

    def tp_fp(self) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives of each class, (nc,) each."""
        right = self.matrix.diagonal()
        return right[:-1].copy(), (self.matrix.sum(1) - right)[:-1]

    def plot(
        self, normalize: bool = True, save_dir: str | Path = "", names: Mapping[int, str] | Sequence[str] = ()
    ) -> None:
        """Draw the matrix into ``confusion_matrix.png``.

        Args:
            normalize: column shares instead of counts.
            save_dir: an existing folder.
            names: class names.
        """
        from utils.charts import plot_confusion  # noqa: PLC0415 - matplotlib is loaded only when something is drawn

        plot_confusion(self.matrix, names, Path(save_dir) / "confusion_matrix.png", normalize)

    def print(self) -> None:
        """Log the counts, a line per predicted class."""
        for row in self.matrix:
            LOGGER.info(" ".join(f"{count:g}" for count in row))

    def _count(self, predicted: np.ndarray, true: np.ndarray) -> None:
        np.add.at(self.matrix, (predicted, true), 1)


def mutual_best(overlap: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair labels and detections: each detection keeps its best label, then each label its best detection.

    Args:
        overlap: (M, N) IoU of labels and detections.
        threshold: pairs must be above it.

    Returns:
        Label index and detection index of the pairs, equally long.
    """
    if overlap.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    best_label = overlap.argmax(0)  # (N,)
    kept = np.full_like(overlap, -1.0)
    column = np.arange(overlap.shape[1])
    kept[best_label, column] = overlap[best_label, column]
    best_detection = kept.argmax(1)  # (M,)
    label = np.flatnonzero(kept.max(1) > threshold)
    return label, best_detection[label]


def _whole(classes: torch.Tensor) -> np.ndarray:
    return classes.detach().cpu().numpy().astype(np.int64)
