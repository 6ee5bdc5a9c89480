"""Which detections are right: matching them with the labels of their image, by YOLOv5's rule and by COCO's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from utils.boxes import box_iou

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # to the last bit those of pycocotools
_NO_OFFER = -2.0  # below every overlap, also that of a label that does not count


@dataclass(frozen=True)
class ImageRecord:
    """What was found on an image and what is there; plain arrays, so that a data set of them fits in memory.

    Attributes:
        detections: (N, 6) float32 x1 y1 x2 y2 confidence class, px of the original image.
        labels: (M, 5) float32 class x1 y1 x2 y2, same frame.
        right: (N, 10) bool, which detections are right at IoU 0.50 to 0.95 by COCO's rule.
    """

    detections: np.ndarray
    labels: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, detections: torch.Tensor, labels: torch.Tensor) -> Self:
        """Match an image's detections with its labels; arguments as :func:`match_predictions` takes them."""
        found, wanted = (part.detach().cpu().float().numpy().copy() for part in (detections, labels))
        return cls(found, wanted, match_predictions(detections, labels).cpu().numpy())


def process_batch(detections: torch.Tensor, labels: torch.Tensor, iouv: torch.Tensor) -> torch.Tensor:
    """Decide which detections are right, by the rule of YOLOv5.

    Each detection claims the label of its class that it overlaps most; of a label's claimants at a threshold the
    first one is right. A claimant that comes too late does not try another label; :func:`match_predictions` lets it.

    Args:
        detections: (N, 6) x1 y1 x2 y2 confidence class, most confident first.
        labels: (M, 5) class x1 y1 x2 y2, same frame.
        iouv: (T,) IoU thresholds.

    Returns:
        (N, T) bool on the detections' device.
    """
    correct = torch.zeros(len(detections), len(iouv), dtype=torch.bool, device=detections.device)
    if len(detections) == 0 or len(labels) == 0:
        return correct
    same_class = detections[:, None, 5] == labels[None, :, 0]  # (N, M)
    overlap = box_iou(detections[:, :4], labels[:, 1:5]).masked_fill(~same_class, -1.0)
    best, choice = overlap.max(1)  # (N,)
    passes = best[:, None] >= iouv.to(best)  # (N, T)
    claims = torch.nn.functional.one_hot(choice, len(labels)).bool()[:, :, None] & passes[:, None]  # (N, M, T)
    first = claims & (claims.cumsum(0) == 1)
    return first.any(1)


def match_predictions(
    detections: torch.Tensor, labels: torch.Tensor, iouv: torch.Tensor | np.ndarray = IOU_THRESHOLDS
) -> torch.Tensor:
    """Decide which detections are right, by the rule of COCO.

    At each threshold the detections choose in order of confidence; each takes the label of its class that it overlaps
    most among those still free. Of two labels it overlaps equally it takes the later one.

    Args:
        detections: (N, 6) x1 y1 x2 y2 confidence class, in any order.
        labels: (M, 5) class x1 y1 x2 y2, same frame.
        iouv: (T,) IoU thresholds; float64 ones are taken to the last bit.

    Returns:
        (N, T) bool on the detections' device, in the order of ``detections``.
    """
    found, wanted = (part.detach().cpu().double().numpy() for part in (detections, labels))
    right, _ = match_views(found, wanted, np.zeros((1, len(wanted)), bool), iouv)
    return torch.from_numpy(right[:, 0]).to(detections.device)


def match_views(
    detections: np.ndarray,
    labels: np.ndarray,
    ignored: np.ndarray,
    iouv: torch.Tensor | np.ndarray = IOU_THRESHOLDS,
) -> tuple[np.ndarray, np.ndarray]:
    """Match as :func:`match_predictions` does where some labels do not count, for several choices of them at once.

    By COCO's rule a detection takes a label that does not count only where none that counts is left for it; it is then
    neither right nor wrong.

    Args:
        detections: (N, 6) x1 y1 x2 y2 confidence class, in any order.
        labels: (M, 5) class x1 y1 x2 y2, same frame.
        ignored: (V, M) bool, for each view the labels that do not count.
        iouv: (T,) IoU thresholds; float64 ones are taken to the last bit.

    Returns:
        (N, V, T) bool, which detections have a label that counts; (N, V, T) bool, which have one that does not.
    """
    thresholds = _exact(iouv)
    matched = np.zeros((2, len(detections), len(ignored) * len(thresholds)), bool)  # first those that count
    if len(detections) and len(labels):
        overlap = _overlap_in_class(detections, labels)[:, ::-1]  # the later of two equals comes first
        order = np.argsort(-detections[:, 4], kind="stable")
        order = order[overlap.max(1)[order] >= thresholds.min()]  # most detections touch no label of their class
        aside = np.repeat(ignored[:, ::-1], len(thresholds), axis=0)  # (V*T, M)
        matched[:, order] = _first_come(overlap[order], np.tile(thresholds, len(ignored)), aside)
    right, excused = matched.reshape(2, len(detections), len(ignored), len(thresholds))
    return right, excused


def _exact(iouv: torch.Tensor | np.ndarray) -> np.ndarray:
    """(T,) float64; shorter numbers are rounded, as 0.8 in float32 lies above the IoU of two boxes that is 0.8."""
    values = iouv.cpu() if isinstance(iouv, torch.Tensor) else torch.from_numpy(np.asarray(iouv))
    wide = values.double().numpy()
    return wide if values.dtype == torch.float64 else wide.round(6)


def _overlap_in_class(detections: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N, M) IoU in float64; 0 between classes."""
    overlap = box_iou(detections[:, :4].astype(np.float64), labels[:, 1:5].astype(np.float64), eps=0)
    same_class = detections[:, None, 5] == labels[None, :, 0]
    return np.where(same_class & ~np.isnan(overlap), overlap, 0.0)  # two empty boxes do not overlap


def _first_come(overlap: np.ndarray, thresholds: np.ndarray, aside: np.ndarray) -> np.ndarray:
    """Give each detection the best label that no earlier one takes, in all rows (views by thresholds) at once.

    Not one detection after the other, but all in rounds (Gale and Shapley's deferred acceptance, 1962): each claims its
    best label, the first claimant holds it, the others look further. As all labels prefer the earlier detection, what
    stands when nobody has to look further is what choosing in turn leads to.

    Args:
        overlap: (n, M) IoU, the detection to choose first on top.
        thresholds: (R,) least IoU of each row.
        aside: (R, M) labels that a row does not count.

    Returns:
        (2, n, R) bool: which detections have a label that counts, and one that does not.
    """
    touched = overlap >= thresholds.min(initial=np.inf)
    most = touched.sum(1).max(initial=1)
    near = np.argsort(~touched, axis=1, kind="stable")[:, :most]  # (n, J) labels that can matter, in their order
    share = np.take_along_axis(overlap, near, 1)[:, None]  # (n, 1, J)
    # One less is exact for overlaps from 0.5 and puts every label aside behind all that count.
    offers = np.where(share >= thresholds[:, None], share - aside[:, near].swapaxes(0, 1), _NO_OFFER)  # (n, R, J)
    turns, rows = np.arange(len(overlap))[:, None], np.arange(len(thresholds))
    label = np.zeros((len(overlap), len(thresholds)), int)  # which one each detection claims
    claims = np.zeros(label.shape, bool)
    seeks = ~claims
    while seeks.any():
        seeker, row = np.nonzero(seeks)
        choice = offers[seeker, row].argmax(1)
        label[seeker, row] = near[seeker, choice]
        claims[seeker, row] = offers[seeker, row, choice] > _NO_OFFER
        offers[seeker, row, choice] = _NO_OFFER  # nobody claims a label twice
        claimant, row = (place[::-1] for place in np.nonzero(claims))
        holder = np.full(aside.T.shape, -1)
        holder[label[claimant, row], row] = claimant  # of those who claim a label the first is written last
        seeks = claims & (holder[label, rows] != turns)
    apart = aside[rows, label]
    return np.stack([claims & ~apart, claims & apart])
