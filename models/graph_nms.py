"""Suppression as a part of the network, in operations that every exported format has.

One call of the plain operation (``torchvision.ops.nms``, ONNX's ``NonMaxSuppression``) serves all images and classes:
boxes are moved apart first, by class to the right and by image downwards. What goes in and what comes out has a fixed
number of rows, so that files of fixed sizes stay such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import nms

from utils.boxes import xywh2xyxy
from utils.nms import CLASS_SHIFT, non_max_suppression

CANDIDATES = 4096  # boxes an image that are compared, by score
DETECTIONS = 300  # rows that come out, an image


class DetectorWithNMS(nn.Module):
    """A detector that gives finished detections, (B, 300, 6) of x1 y1 x2 y2 confidence class, by falling confidence.

    Each box stands for its best class, as in ``detect.py``. Unused rows are zero.

    Args:
        network: (B, 3, H, W) -> (predictions, ...), predictions (B, rows, 5 + classes).
        conf_thres: objectness and score must be above this, 0..1.
        iou_thres: of two boxes of a class that overlap more, the lower score goes, 0..1.
    """

    def __init__(self, network: nn.Module, conf_thres: float = 0.25, iou_thres: float = 0.45) -> None:
        super().__init__()
        self.network, self.conf_thres, self.iou_thres = network, conf_thres, iou_thres

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See the class."""
        rows = F.pad(self.network(images)[0], (0, 0, 0, CANDIDATES))  # enough, however small the image
        best, kind = (rows[..., 5:] * rows[..., 4:5]).max(-1)
        counts = (rows[..., 4] > self.conf_thres) & (best > self.conf_thres)
        score, place = torch.where(counts, best, torch.zeros_like(best)).topk(CANDIDATES)  # (B, candidates)
        # All boxes are turned before some are picked: OpenVINO takes out a slice that stands right before a gather
        boxes = xywh2xyxy(rows[..., :4]).gather(1, place[..., None].expand(-1, -1, 4))
        kind = kind.gather(1, place)
        score = self._of_survivors(boxes, kind, score)
        score, place = score.topk(DETECTIONS)
        boxes = boxes.gather(1, place[..., None].expand(-1, -1, 4))
        found = torch.cat((boxes, score[..., None], kind.gather(1, place)[..., None].to(boxes)), -1)
        return found * (score > 0)[..., None]

    def _of_survivors(self, boxes: torch.Tensor, kind: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
        """(B, candidates) scores, zero where a better box of the class suppresses a box."""
        image = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand_as(kind)
        apart = boxes + torch.stack((kind, image, kind, image), -1) * float(CLASS_SHIFT)
        # What does not count lies in one place, where all but one suppress each other at once
        nowhere = boxes.new_tensor([-2.0, -2.0, -1.0, -1.0]) * CLASS_SHIFT
        apart = torch.where((score > 0)[..., None], apart, nowhere)
        keep = nms(apart.flatten(0, 1), score.flatten(), self.iou_thres)
        kept = torch.zeros_like(score).flatten().index_fill(0, keep, 1.0)
        return score * kept.view_as(score)


def suppression_of(model: nn.Module) -> Callable[..., list[torch.Tensor]]:
    """What makes detections of a model's predictions: :func:`take_finished` where suppression is inside the model.

    The other answer is :func:`utils.nms.non_max_suppression`; both are called alike.
    """
    return take_finished if getattr(model, "nms", False) else non_max_suppression


def take_finished(
    rows: torch.Tensor,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    classes: Sequence[int] | None = None,
    max_det: int = 300,
    **_: object,
) -> list[torch.Tensor]:
    """From finished detections to those wanted, in the form of :func:`utils.nms.non_max_suppression`.

    Args:
        rows: (B, n, 6), by falling confidence, unused ones zero.
        conf_thres: confidence must be above this; the file's own threshold stays in force.
        iou_thres: without effect, as are other settings of suppression: it is done.
        classes: class indices to keep; all when None.
        max_det: most boxes per image.

    Returns:
        Per image (n, 6): x1 y1 x2 y2 in pixels, confidence, class.
    """
    found = []
    for image in rows.float():
        kept = image[image[:, 4] > conf_thres]
        if classes is not None:
            kept = kept[torch.isin(kept[:, 5], kept.new_tensor(list(classes)))]
        found.append(kept[:max_det])
    return found
