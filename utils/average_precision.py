"""Precision, recall and average precision from right and wrong detections.

There are two ways from a curve to its average precision: YOLOv5's (:func:`compute_ap`, :func:`ap_per_class`) and COCO's
(:func:`coco_ap`). What a validation reports is COCO's; the other stays for code that calls it by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CURVE_POINTS = 1000
RECALL_POINTS = np.linspace(0, 1, 101)  # to the last bit those of pycocotools


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall of each class that has labels, ``K`` of them.

    Attributes:
        classes: (K,) class indices.
        labels: (K,) number of labels.
        ap: (K, T) average precision at each IoU threshold.
        confidence: (1000,) confidences from 0 to 1: the abscissa of the next three.
        p: (K, 1000) precision at the first IoU threshold.
        r: (K, 1000) recall.
        f1: (K, 1000) their harmonic mean.
        recall: (1000,) recalls from 0 to 1: the abscissa of ``p_of_recall``.
        p_of_recall: (K, 1000) precision envelope.
        best: index into ``confidence`` where the smoothed mean F1 is largest.
    """

    classes: np.ndarray
    labels: np.ndarray
    ap: np.ndarray
    confidence: np.ndarray
    p: np.ndarray
    r: np.ndarray
    f1: np.ndarray
    recall: np.ndarray
    p_of_recall: np.ndarray
    best: int


def trapezoid_ap(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Average precision by YOLOv5's rule of each column; arguments and result as :func:`coco_ap` has them."""
    columns = zip(recall.T, precision.T, strict=True)
    return np.array([compute_ap(reached, precise)[0] for reached, precise in columns])


def coco_ap(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Average precision by COCO's rule: the mean of the precision envelope, read at 101 equally spaced recalls.

    Each is read where the curve first reaches that recall; the precision of a recall that is never reached is 0.

    Args:
        recall: (n, T) rising downwards, a column for each IoU threshold.
        precision: (n, T).

    Returns:
        (T,) in 0..1; zeros for curves without a point.
    """
    best_later = np.maximum.accumulate(precision[::-1])[::-1]
    envelope = np.concatenate([best_later, np.zeros((1, recall.shape[1]))])
    places = [np.searchsorted(reached, RECALL_POINTS, side="left") for reached in recall.T]
    return np.array([envelope[place, column].mean() for column, place in enumerate(places)])


def trapezoid_envelope(recall: np.ndarray, precision: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The curve below which :func:`trapezoid_ap` takes the area; arguments as :func:`coco_envelope` has them."""
    _, envelope, reached = compute_ap(recall, precision)
    return np.interp(at, reached, envelope)


def coco_envelope(recall: np.ndarray, precision: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The curve that :func:`coco_ap` takes its mean of.

    Args:
        recall: (n,) rising.
        precision: (n,).
        at: (m,) recalls to read the curve at.

    Returns:
        (m,) precisions, 0 beyond the last recall reached.
    """
    best_later = np.maximum.accumulate(precision[::-1])[::-1]
    return np.append(best_later, 0.0)[np.searchsorted(recall, at, side="left")]


@dataclass(frozen=True)
class AreaRule:
    """How a precision-recall curve is read.

    Attributes:
        average: recalls and precisions (n, T) to average precision (T,).
        envelope: recalls and precisions (n,) of one threshold to the curve, read at given recalls.
    """

    average: Callable[[np.ndarray, np.ndarray], np.ndarray]
    envelope: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


TRAPEZOID = AreaRule(trapezoid_ap, trapezoid_envelope)
COCO = AreaRule(coco_ap, coco_envelope)


def precision_recall(
    tp: np.ndarray,
    conf: np.ndarray,
    pred_cls: np.ndarray,
    target_cls: np.ndarray,
    eps: float = 1e-16,
    *,
    rule: AreaRule = TRAPEZOID,
) -> PrecisionRecall:
    """Work out precision, recall and average precision per class.

    Args:
        tp: (N, T) bool, which detections are right at each IoU threshold.
        conf: (N,) confidences.
        pred_cls: (N,) predicted classes.
        target_cls: (M,) classes of all labels.
        eps: keeps divisions finite.
        rule: how curves are read, ``TRAPEZOID`` (YOLOv5's) or ``COCO``.
    """
    classes, label_counts = np.unique(target_cls, return_counts=True)
    order = np.argsort(-conf, kind="stable")  # most confident first
    axis = np.linspace(0, 1, CURVE_POINTS)
    p, r, p_of_recall = (np.zeros((len(classes), CURVE_POINTS)) for _ in range(3))
    ap = np.zeros((len(classes), tp.shape[1]))
    for index, (kind, label_count) in enumerate(zip(classes, label_counts, strict=True)):
        mine = order[pred_cls[order] == kind]  # (n,) this class's detections
        if not len(mine):
            continue
        right = tp[mine].cumsum(0)  # (n, T): right ones so far, from the most confident down
        recall = right / (label_count + eps)
        precision = right / np.arange(1, len(right) + 1)[:, None]
        for curve, values, above in ((r, recall, 0), (p, precision, 1)):
            # Confidences fall, and np.interp wants a rising abscissa: mirror both. Nothing is found above the first.
            curve[index] = np.interp(-axis, -conf[mine], values[:, 0], left=above)
        ap[index] = rule.average(recall, precision)
        p_of_recall[index] = rule.envelope(recall[:, 0], precision[:, 0], axis)
    f1 = 2 * p * r / (p + r + eps)
    best = int(smooth(f1.mean(0)).argmax()) if len(classes) else 0
    return PrecisionRecall(classes.astype(int), label_counts, ap, axis, p, r, f1, axis, p_of_recall, best)


def compute_ap(recall: np.ndarray, precision: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Area under a precision-recall curve by YOLOv5's rule: 101 equally spaced recalls, trapezoids between them.

    Args:
        recall: (n,) rising.
        precision: (n,).

    Returns:
        The area; the precision envelope (n + 2,), never rising; the recalls it belongs to, from 0 to 1.
    """
    best_later = np.maximum.accumulate(precision[::-1])[::-1]
    reached, envelope = np.r_[0.0, recall, 1.0], np.r_[1.0, best_later, 0.0]
    heights = np.interp(RECALL_POINTS, reached, envelope)
    return float((heights[1:] + heights[:-1]).mean() / 2), envelope, reached


def smooth(curve: np.ndarray, fraction: float = 0.1) -> np.ndarray:
    """Moving average of the same length; the ends are repeated beyond the curve.

    Args:
        curve: (n,).
        fraction: width of the window as a share of n; made odd.
    """
    half = round(len(curve) * fraction * 2) // 2 // 2
    padded = np.pad(curve, half, mode="edge")
    return np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")


def ap_per_class(
    tp: np.ndarray,
    conf: np.ndarray,
    pred_cls: np.ndarray,
    target_cls: np.ndarray,
    plot: bool = False,
    save_dir: str | Path = ".",
    names: Mapping[int, str] | Sequence[str] = (),
    eps: float = 1e-16,
    prefix: str = "",
) -> tuple[np.ndarray, ...]:
    """Precision, recall, F1 and average precision by YOLOv5's rule of each class that has labels.

    Args:
        tp: (N, T) bool, which detections are right at each IoU threshold.
        conf: (N,) confidences.
        pred_cls: (N,) predicted classes.
        target_cls: (M,) classes of all labels.
        plot: also draw the curves.
        save_dir: folder for the drawings.
        names: class names.
        eps: keeps divisions finite.
        prefix: goes before the drawings' file names.

    Returns:
        True positives, false positives, precision, recall, F1, (K,) each and read at the confidence where the smoothed
        mean F1 is largest; average precision (K, T); class indices (K,).
    """
    curves = precision_recall(tp, conf, pred_cls, target_cls, eps)
    if plot:
        plot_curves(curves, names, save_dir, prefix)
    p, r, f1 = (curve[:, curves.best] for curve in (curves.p, curves.r, curves.f1))
    right = np.rint(r * curves.labels)
    claimed = right / (p + eps)
    return right, np.rint(claimed - right), p, r, f1, curves.ap, curves.classes


def plot_curves(
    curves: PrecisionRecall, names: Mapping[int, str] | Sequence[str], save_dir: str | Path, prefix: str = ""
) -> None:
    """Draw ``PR_curve.png``, ``F1_curve.png``, ``P_curve.png`` and ``R_curve.png``.

    Args:
        curves: what to draw.
        names: class names by index; only those with labels appear.
        save_dir: an existing folder.
        prefix: goes before the file names.
    """
    from utils.curves import CURVE_KINDS, plot_kind  # noqa: PLC0415 - matplotlib is loaded only when something is drawn

    for kind in CURVE_KINDS:
        plot_kind(curves, kind, names, Path(save_dir) / f"{prefix}{kind}_curve.png")
