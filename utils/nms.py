"""Non-maximum suppression: from raw predictions to the boxes that are shown or scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import nms

from utils.boxes import xywh2xyxy
from utils.errors import OptionError

MAX_CANDIDATES = 30_000  # by score; what the reference lets into suppression
LONGEST_START = 10  # times the boxes wanted: the most candidates that are compared at once because an image needed them
WORTH_A_CALL = 128  # boxes of a class from which on suppressing them by themselves pays, on a CPU
CLASS_SHIFT = 7680  # pixels; larger than images are, so boxes of different classes do not meet; the reference's figure


def non_max_suppression(
    prediction: torch.Tensor | Sequence[torch.Tensor],
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    classes: Sequence[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    labels: Sequence[torch.Tensor] = (),
    max_det: int = 300,
    nm: int = 0,
) -> list[torch.Tensor]:
    """Keep the best of the boxes that overlap, image by image.

    Every image is finished: there is no time limit. Boxes of equal score keep the order of the rows, except where
    more than 30,000 candidates have to be cut.

    Args:
        prediction: (B, rows, 5 + classes + nm) centre x, centre y, width, height in pixels, objectness, class
            scores; or a tuple or list whose first item that is.
        conf_thres: objectness and score (objectness times class score) must be above this, 0..1.
        iou_thres: of two boxes that overlap more, the lower score goes, 0..1.
        classes: class indices to keep; all when None.
        agnostic: boxes of different classes suppress each other too.
        multi_label: a box may stand for every class above the threshold, not for the best one only.
        labels: per image (n, 5) rows class, centre x, centre y, width, height in pixels that join with score 1.
        max_det: most boxes per image.
        nm: extra columns behind the class scores that are passed through.

    Returns:
        Per image (n, 6 + nm): x1 y1 x2 y2 in pixels, score, class, by falling score; (0, 6 + nm) when nothing is left.

    Raises:
        OptionError: when a threshold is outside 0..1.
    """
    for flag, value in (("--conf-thres", conf_thres), ("--iou-thres", iou_thres)):
        if not 0 <= value <= 1:
            raise OptionError(f"{flag} {value}: expected a number from 0 to 1")
    if isinstance(prediction, (list, tuple)):
        prediction = prediction[0]
    class_count = prediction.shape[2] - 5 - nm
    multi_label = multi_label and class_count > 1

    results = []
    enough = max_det  # candidates that may do; the most that an image needed so far
    for index, rows in enumerate(prediction.detach()):
        rows = rows[rows[:, 4] > conf_thres].float()  # half precision cannot hold the class shift
        if len(labels) and len(labels[index]):
            rows = torch.cat([rows, _rows_of_labels(labels[index], class_count, nm, rows)])
        scores = rows[:, 5 : 5 + class_count] * rows[:, 4:5]
        source, kind, score = _candidates(scores, conf_thres, classes, multi_label)
        candidates = rows[source]
        boxes = xywh2xyxy(candidates[:, :4])
        group = torch.zeros_like(kind) if agnostic else kind
        keep = _suppress(boxes, score, group, iou_thres, max_det=max_det, first=enough)
        # Images of a batch are alike: the next needs about as many. A GPU would have to be waited for.
        if len(keep) == max_det > 0 and keep.device.type == "cpu":
            enough = min(max(enough, int(keep[-1]) + 1), LONGEST_START * max_det)
        found = [boxes[keep], score[keep, None], kind[keep, None].float(), candidates[keep, 5 + class_count :]]
        results.append(torch.cat(found, 1))
    return results


def _rows_of_labels(labels: torch.Tensor, class_count: int, extra: int, like: torch.Tensor) -> torch.Tensor:
    """Labels as prediction rows: certain of themselves and of one class."""
    rows = like.new_zeros(len(labels), 5 + class_count + extra)
    rows[:, :4] = labels[:, 1:5]
    rows[:, 4] = 1
    rows[torch.arange(len(labels)), 5 + labels[:, 0].long()] = 1
    return rows


def _candidates(
    scores: torch.Tensor, threshold: float, classes: Sequence[int] | None, multi_label: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Row, class and score of every candidate, (n,) each, by falling score, at most 30,000."""
    count = scores.shape[1]
    allowed = None if classes is None else _one_hot(classes, count, scores)
    if multi_label:
        flat = (scores if allowed is None else scores * allowed).reshape(-1)
        place = (flat > threshold).nonzero()[:, 0]
        score = flat[place]
        order = _by_score(score)
        place = place[order]
        return place // count, place % count, score[order]
    score, kind = scores.max(1)
    chosen = score > threshold
    if allowed is not None:
        chosen &= allowed[kind] > 0
    source = chosen.nonzero()[:, 0]
    source = source[_by_score(score[source])]
    return source, kind[source], score[source]


def _by_score(score: torch.Tensor) -> torch.Tensor:
    """Order by falling score, of equals the first first, cut to what is let into suppression."""
    if len(score) > MAX_CANDIDATES:
        return score.topk(MAX_CANDIDATES).indices
    if score.device.type != "cpu":
        return score.argsort(descending=True, stable=True)
    # The bits of positive numbers rise as they do. Whole numbers, the place below the bits, need no stable sort.
    bits = score.numpy().view(np.int32).astype(np.int64)
    return torch.from_numpy(np.sort(np.arange(len(bits)) - (bits << 32)) & 0xFFFFFFFF)


def _one_hot(classes: Sequence[int], count: int, like: torch.Tensor) -> torch.Tensor:
    """(count,) ones at the wanted classes; indices the model does not have are ignored."""
    wanted = like.new_zeros(count)
    wanted[[index for index in classes if 0 <= index < count]] = 1
    return wanted


def _suppress(
    boxes: torch.Tensor, scores: torch.Tensor, group: torch.Tensor, iou_thres: float, *, max_det: int, first: int
) -> torch.Tensor:
    """Indices of the first ``max_det`` survivors; boxes come by falling score and meet those of their group only.

    Whether a box survives depends on better survivors alone. So those among the best few are final: the many candidates
    of a low threshold need not all be compared once there are enough, and those that follow meet survivors only. The
    ``first`` so many are compared at once, then blocks that grow from ``max_det``.
    """
    apart = boxes + group[:, None] * CLASS_SHIFT
    keep = _survivors(apart[:first], scores[:first], group[:first], iou_thres)
    tried, size = first, max_det
    while tried < len(boxes) and len(keep) < max_det:
        following = torch.arange(tried, min(tried + size, len(boxes)), device=boxes.device)
        rivals = torch.cat([keep, following])
        keep = rivals[_survivors(apart[rivals], scores[rivals], group[rivals], iou_thres)]
        tried, size = tried + size, 2 * size
    return keep[:max_det]


def _survivors(boxes: torch.Tensor, scores: torch.Tensor, group: torch.Tensor, iou_thres: float) -> torch.Tensor:
    """Indices, rising, of the boxes that no better one suppresses; boxes come by falling score, groups lie apart.

    The work grows with the square of the boxes. On a CPU, large groups are suppressed one by one.
    """
    if boxes.device.type != "cpu" or len(boxes) < 2 * WORTH_A_CALL:
        return nms(boxes, scores, iou_thres)
    sizes = group.bincount()
    if len(boxes) < len(sizes) * WORTH_A_CALL:
        return nms(boxes, scores, iou_thres)
    members = group.argsort(stable=True).split(sizes.tolist())
    return torch.cat([own[nms(boxes[own], scores[own], iou_thres)] for own in members]).sort().values
