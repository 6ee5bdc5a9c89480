"""How often classes occur, turned into weights for classes and images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def labels_to_class_weights(labels: Sequence[np.ndarray], nc: int = 80) -> torch.Tensor:
    """Weights that favour rare classes.

    Args:
        labels: per image (n, 5), column 0 the class.
        nc: number of classes.

    Returns:
        (nc,) inverse counts that sum to 1; a class without labels counts as occurring once. Empty when there are no
        labels at all to count over.
    """
    if not len(labels):
        return torch.zeros(0)
    counts = _class_counts(np.concatenate([rows[:, 0] for rows in labels]), nc)
    inverse = 1.0 / np.maximum(counts, 1)
    return torch.from_numpy(inverse / inverse.sum()).float()


def labels_to_image_weights(
    labels: Sequence[np.ndarray], nc: int = 80, class_weights: np.ndarray | None = None
) -> np.ndarray:
    """Weights that favour images with rare classes.

    Args:
        labels: per image (n, 5), column 0 the class.
        nc: number of classes.
        class_weights: (nc,) weight of one label of a class; all 1 when omitted.

    Returns:
        (images,) sum of the weights of an image's labels.
    """
    weights = np.ones(nc) if class_weights is None else np.asarray(class_weights, dtype=np.float64).reshape(nc)
    return np.array([_class_counts(rows[:, 0], nc) @ weights for rows in labels])


def _class_counts(classes: np.ndarray, nc: int) -> np.ndarray:
    return np.bincount(classes.astype(np.int64), minlength=nc)[:nc]
