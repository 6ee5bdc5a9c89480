"""Average precision of parts of a data set: object sizes, crowded images, objects that hide each other.

Which labels belong to a part, and what becomes of the detections:

- ``size``: by the area of the label's box in px of the original image, limits as COCO has them (both parts count a
  label that lies on a limit). Detections matched with labels of another size do not count, nor do unmatched ones of
  another size. The figures are pycocotools' own for these areas.
- ``occlusion``: a label is occluded when more than a fifth of its box lies within one other label's box, whatever that
  one's class. Detections matched with labels of the other group do not count; unmatched ones are wrong in both.
- ``crowding``: whole images. Crowded ones have more labels than the median of the images with labels, all others are
  sparse, also those without labels.

Throughout, a detection takes a label of another part only where none of this part is left for it (COCO's rule).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.average_precision import coco_ap
from utils.matching import IOU_THRESHOLDS, ImageRecord, match_views

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}  # px, from and to
OCCLUDED_ABOVE = 0.2  # share of a label's box that lies within another's
_VIEWS = (*SIZES, "occluded", "free")
_RULES = {
    "small": "area up to 32 x 32 px",
    "medium": "area 32 x 32 to 96 x 96 px",
    "large": "area from 96 x 96 px",
    "occluded": f"more than {OCCLUDED_ABOVE:.0%} within another label",
    "free": f"at most {OCCLUDED_ABOVE:.0%} within another label",
}


@dataclass(frozen=True)
class SliceResult:
    """Average precision of one part of a data set.

    Attributes:
        group: size, crowding or occlusion.
        name: of the part, such as small.
        rule: what belongs to it, in words.
        images: images with such a label; for crowding, images of the kind.
        instances: labels that belong to it.
        map50: mean average precision at IoU 0.50, over the classes with such labels; None without any.
        map: mean over IoU 0.50 to 0.95 too.
    """

    group: str
    name: str
    rule: str
    images: int
    instances: int
    map50: float | None
    map: float | None


def measure_slices(records: Sequence[ImageRecord]) -> list[SliceResult]:
    """Average precision of small, medium and large, crowded and sparse, occluded and free.

    Args:
        records: the images of an evaluation; their order decides between equal confidences.
    """
    found, wanted = _stacked(records)
    counts = np.array([len(record.labels) for record in records], int)
    own = [_own_labels(record.labels) for record in records]
    belongs = np.concatenate([np.zeros((len(_VIEWS), 0), bool), *own], 1)  # (V, labels)
    image_of = np.repeat(np.arange(len(records)), counts)
    right, excused = _match(records, own)
    views = {}
    for place, name in enumerate(_VIEWS):
        mine = belongs[place]
        figures = _mean_ap(found, right[:, place], excused[:, place], wanted[mine, 0])
        group = "size" if name in SIZES else "occlusion"
        images = len(np.unique(image_of[mine]))
        views[name] = SliceResult(group, name, _RULES[name], images, int(mine.sum()), *figures)
    sizes, hidden = [views[name] for name in SIZES], [views["occluded"], views["free"]]
    return [*sizes, *_crowding(records, counts), *hidden]


def _stacked(records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
    """All detections (N, 6) and all labels (M, 5)."""
    detections = np.concatenate([np.zeros((0, 6), np.float32), *(record.detections for record in records)])
    return detections, np.concatenate([np.zeros((0, 5), np.float32), *(record.labels for record in records)])


def _areas(corners: np.ndarray) -> np.ndarray:
    """(n,) areas of (n, 4) boxes, in float64 as pycocotools has them."""
    wide = corners.astype(np.float64)
    return (wide[:, 2] - wide[:, 0]) * (wide[:, 3] - wide[:, 1])


def _within(areas: np.ndarray) -> np.ndarray:
    """(3, n) bool: which areas are small, medium and large; a limit belongs to both sides."""
    return np.stack([(low <= areas) & (areas <= high) for low, high in SIZES.values()])


def _own_labels(labels: np.ndarray) -> np.ndarray:
    """(V, M) bool: which labels of an image belong to each view."""
    hidden = covered_share(labels[:, 1:5]) > OCCLUDED_ABOVE
    return np.concatenate([_within(_areas(labels[:, 1:5])), hidden[None], ~hidden[None]])


def covered_share(boxes: np.ndarray) -> np.ndarray:
    """The largest share of each box that lies within one other box.

    Args:
        boxes: (M, 4) corners.

    Returns:
        (M,) in 0..1; 0 for a box without an area.
    """
    wide = boxes.astype(np.float64)
    low, high = np.maximum(wide[:, None, :2], wide[None, :, :2]), np.minimum(wide[:, None, 2:], wide[None, :, 2:])
    common = (high - low).clip(0).prod(-1)  # (M, M)
    np.fill_diagonal(common, 0.0)
    return common.max(1, initial=0.0) / np.maximum(_areas(boxes), np.finfo(np.float64).tiny)


def _match(records: Sequence[ImageRecord], own: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(N, V, T) bool each: which detections are right in a view, and which do not count there."""
    nothing = np.zeros((0, len(_VIEWS), len(IOU_THRESHOLDS)), bool)
    rights, excuses = [nothing], [nothing]
    for record, belongs in zip(records, own, strict=True):
        right, excused = match_views(record.detections, record.labels, ~belongs)
        sizes = slice(0, len(SIZES))
        elsewhere = ~_within(_areas(record.detections[:, :4])).T[:, :, None]  # (n, 3, 1)
        excused[:, sizes] |= elsewhere & ~right[:, sizes]
        rights.append(right)
        excuses.append(excused)
    return np.concatenate(rights), np.concatenate(excuses)


def _crowding(records: Sequence[ImageRecord], counts: np.ndarray) -> list[SliceResult]:
    """Crowded and sparse images, each as a data set of its own."""
    median = float(np.median(counts[counts > 0])) if counts.any() else 0.0
    crowded = counts > median
    results = []
    for name, member, sign in (("crowded", crowded, "more than"), ("sparse", ~crowded, "up to")):
        part = [record for record, is_member in zip(records, member, strict=True) if is_member]
        found, wanted = _stacked(part)
        right = np.concatenate([np.zeros((0, len(IOU_THRESHOLDS)), bool), *(record.right for record in part)])
        figures = _mean_ap(found, right, np.zeros_like(right), wanted[:, 0])
        rule = f"{sign} {median:g} labels in the image"
        results.append(SliceResult("crowding", name, rule, len(part), len(wanted), *figures))
    return results


def _mean_ap(
    found: np.ndarray, right: np.ndarray, excused: np.ndarray, classes: np.ndarray
) -> tuple[float | None, float | None]:
    """mAP50 and mAP50-95 over the classes that have labels; None when none has.

    Args:
        found: (N, 6) detections.
        right: (N, T) which of them are right.
        excused: (N, T) which do not count.
        classes: (M,) classes of the labels.
    """
    kinds, label_counts = np.unique(classes, return_counts=True)
    if not len(kinds):
        return None, None
    order = np.argsort(-found[:, 4], kind="stable")
    order = order[np.argsort(found[order, 5], kind="stable")]  # by class, the most confident first
    sorted_classes = found[order, 5]
    table = []
    for kind, label_count in zip(kinds, label_counts, strict=True):
        mine = order[slice(*np.searchsorted(sorted_classes, [kind, kind + 1]))]
        hits = right[mine].cumsum(0)
        tried = (~excused[mine]).cumsum(0)
        table.append(coco_ap(hits / label_count, hits / np.maximum(tried, 1)))
    ap = np.array(table)  # (K, T)
    return float(ap[:, 0].mean()), float(ap.mean())
