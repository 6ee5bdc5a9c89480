"""Box formats, clipping, scaling and overlap, for NumPy arrays and torch tensors alike.

Formats: ``xyxy`` is corners (x1 y1 x2 y2), ``xywh`` is centre and size, both in pixels; a trailing ``n`` means divided
by the image's width and height. Functions return new values; the two that work in place say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

Boxes = TypeVar("Boxes", np.ndarray, torch.Tensor)


def xyxy2xywh(x: Boxes) -> Boxes:
    """Turn corners into centre and size.

    Args:
        x: (..., 4 or more) corners; later columns are kept as they are.

    Returns:
        Same shape, columns centre x, centre y, width, height; whole numbers become float32.
    """
    out = _float_copy(x)
    low, high = x[..., :2], x[..., 2:4]
    out[..., :2] = (low + high) / 2
    out[..., 2:4] = high - low
    return out


def xywh2xyxy(x: Boxes) -> Boxes:
    """Turn centre and size into corners.

    Args:
        x: (..., 4 or more) centre x, centre y, width, height; later columns are kept as they are.

    Returns:
        Same shape, columns x1 y1 x2 y2; whole numbers become float32.
    """
    out = _float_copy(x)
    centre, half = x[..., :2], x[..., 2:4] / 2
    out[..., :2] = centre - half
    out[..., 2:4] = centre + half
    return out


def xywhn2xyxy(x: Boxes, w: float = 640, h: float = 640, padw: float = 0, padh: float = 0) -> Boxes:
    """Turn normalised centre and size into pixel corners, on an image that may sit inside a padded one.

    Args:
        x: (..., 4 or more) centre and size in 0..1.
        w: image width in pixels, without padding.
        h: image height in pixels, without padding.
        padw: columns of padding left of the image.
        padh: rows of padding above the image.
    """
    out = xywh2xyxy(x)
    out[..., 0:4:2] = out[..., 0:4:2] * w + padw
    out[..., 1:4:2] = out[..., 1:4:2] * h + padh
    return out


def xyxy2xywhn(x: Boxes, w: float = 640, h: float = 640, clip: bool = False, eps: float = 0.0) -> Boxes:
    """Turn pixel corners into normalised centre and size.

    Args:
        x: (..., 4 or more) corners in pixels.
        w: image width in pixels.
        h: image height in pixels.
        clip: first clip the corners to the image (the argument itself is not changed).
        eps: how many pixels inside the right and lower border the clip ends.
    """
    corners = clip_boxes(_float_copy(x), (h - eps, w - eps)) if clip else x
    out = xyxy2xywh(corners)
    out[..., 0:4:2] /= w
    out[..., 1:4:2] /= h
    return out


def xyn2xy(x: Boxes, w: float = 640, h: float = 640, padw: float = 0, padh: float = 0) -> Boxes:
    """Turn normalised points into pixels.

    Args:
        x: (..., 2) x and y in 0..1.
        w: image width in pixels.
        h: image height in pixels.
        padw: columns of padding left of the image.
        padh: rows of padding above the image.
    """
    out = _float_copy(x)
    out[..., 0] = out[..., 0] * w + padw
    out[..., 1] = out[..., 1] * h + padh
    return out


def segments2boxes(segments: Sequence[np.ndarray]) -> np.ndarray:
    """Bounding boxes of polygons.

    Args:
        segments: polygons, each (points, 2) x and y in any unit.

    Returns:
        (len(segments), 4) float32 centre and size, in the polygons' unit.
    """
    corners = [np.concatenate([polygon.min(0), polygon.max(0)]) for polygon in segments]
    return xyxy2xywh(np.asarray(corners, np.float32).reshape(-1, 4))


def clip_boxes(boxes: Boxes, shape: Sequence[float]) -> Boxes:
    """Clip corners to an image, in place.

    Args:
        boxes: (..., 4 or more) corners in pixels; changed.
        shape: image height, width and whatever follows.

    Returns:
        The argument itself.
    """
    height, width = shape[:2]
    for first, limit in ((0, width), (1, height)):
        view = boxes[..., first:4:2]  # x1 x2, then y1 y2
        if isinstance(boxes, torch.Tensor):
            view.clamp_(0, limit)
        else:
            np.clip(view, 0, limit, out=view)
    return boxes


def scale_boxes(
    img1_shape: Sequence[float],
    boxes: Boxes,
    img0_shape: Sequence[float],
    ratio_pad: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Boxes:
    """Map corners from a letterboxed image back to the original one, in place, and clip them to it.

    Args:
        img1_shape: height and width of the letterboxed image.
        boxes: (..., 4 or more) corners in its pixels; changed.
        img0_shape: height and width of the original image.
        ratio_pad: scale ratios (the first, of the height, counts) and padding (x, y) as the data set reports them;
            worked out from the shapes when None: the smaller ratio, padding split evenly.

    Returns:
        The argument itself, in pixels of the original image.
    """
    height, width = img0_shape[:2]
    if ratio_pad is not None:
        (gain, *_), (left, top) = ratio_pad
    else:
        boxed_height, boxed_width = img1_shape[:2]
        gain = min(boxed_height / height, boxed_width / width)
        left, top = (boxed_width - width * gain) / 2, (boxed_height - height * gain) / 2
    for first, offset in ((0, left), (1, top)):
        view = boxes[..., first:4:2]  # x1 x2, then y1 y2
        view -= offset
        view /= gain
    return clip_boxes(boxes, (height, width))


def bbox_iou(
    box1: Boxes,
    box2: Boxes,
    xywh: bool = True,
    GIoU: bool = False,
    DIoU: bool = False,
    CIoU: bool = False,
    eps: float = 1e-7,
) -> Boxes:
    """Overlap of boxes pair by pair, as IoU or one of its relatives with a gradient for boxes apart.

    Args:
        box1: (..., 4) boxes.
        box2: (..., 4) boxes; the leading dimensions are broadcast against those of ``box1``.
        xywh: boxes are centre and size; False: corners.
        GIoU: subtract the share of the enclosing box that is covered by neither.
        DIoU: subtract the squared centre distance over the enclosing box's squared diagonal.
        CIoU: as DIoU, minus a term for the aspect ratios whose weight carries no gradient.
        eps: keeps divisions finite.

    Returns:
        (..., 1): IoU in 0..1; GIoU, DIoU and CIoU may be negative.
    """
    if isinstance(box1, np.ndarray):
        tensors = (torch.from_numpy(np.asarray(box, np.float64)) for box in (box1, box2))
        return bbox_iou(*tensors, xywh, GIoU, DIoU, CIoU, eps).numpy().astype(np.result_type(box1, np.float32))
    low1, high1, size1 = _edges(box1, xywh)  # (..., 2) each
    low2, high2, size2 = _edges(box2, xywh)
    overlap = (torch.minimum(high1, high2) - torch.maximum(low1, low2)).clamp_min(0).prod(-1, keepdim=True)
    union = size1.prod(-1, keepdim=True) + size2.prod(-1, keepdim=True) - overlap + eps
    iou = overlap / union
    if not (GIoU or DIoU or CIoU):
        return iou
    hull = torch.maximum(high1, high2) - torch.minimum(low1, low2)  # the smallest box around both
    if not (DIoU or CIoU):
        hull_area = hull.prod(-1, keepdim=True) + eps
        return iou - (hull_area - union) / hull_area
    diagonal = hull.square().sum(-1, keepdim=True) + eps
    apart = (low2 + high2 - low1 - high1).square().sum(-1, keepdim=True) / 4
    if not CIoU:
        return iou - apart / diagonal
    aspect = (_aspect_angle(size2, eps) - _aspect_angle(size1, eps)).square() * (4 / math.pi**2)
    with torch.no_grad():
        weight = aspect / (aspect - iou + (1 + eps))
    return iou - apart / diagonal - aspect * weight


def box_iou(box1: Boxes, box2: Boxes, eps: float = 1e-7) -> Boxes:
    """Overlap of every box with every other.

    Args:
        box1: (N, 4) corners.
        box2: (M, 4) corners.
        eps: added to the union; with 0 two empty boxes give nan.

    Returns:
        (N, M) IoU in 0..1.
    """
    if isinstance(box1, np.ndarray):
        return box_iou(torch.from_numpy(box1), torch.from_numpy(np.asarray(box2)), eps).numpy()
    low = torch.maximum(box1[:, None, :2], box2[None, :, :2])  # (N, M, 2)
    high = torch.minimum(box1[:, None, 2:4], box2[None, :, 2:4])
    overlap = (high - low).clamp_min(0).prod(-1)
    area1 = (box1[:, 2:4] - box1[:, :2]).prod(-1)
    area2 = (box2[:, 2:4] - box2[:, :2]).prod(-1)
    return overlap / (area1[:, None] + area2[None] - overlap + eps)


def bbox_ioa(box1: np.ndarray, box2: np.ndarray, eps: float = 1e-7) -> np.ndarray:
    """How much of each box is covered by one box.

    Args:
        box1: (4,) corners of the covering box.
        box2: (n, 4) corners.
        eps: added to the areas of ``box2``.

    Returns:
        (n,) intersection over the area of ``box2``, in 0..1.
    """
    low = np.maximum(box1[:2], box2[:, :2])
    high = np.minimum(box1[2:4], box2[:, 2:4])
    return (high - low).clip(0).prod(-1) / ((box2[:, 2:4] - box2[:, :2]).prod(-1) + eps)


def _float_copy(x: Boxes) -> Boxes:
    """A copy that can hold fractions."""
    if isinstance(x, torch.Tensor):
        return x.clone() if x.is_floating_point() else x.float()
    return x.astype(x.dtype if np.issubdtype(x.dtype, np.floating) else np.float32)


def _edges(boxes: torch.Tensor, xywh: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lower corner, upper corner and size, (..., 2) each."""
    first, second = boxes[..., :2], boxes[..., 2:4]
    if not xywh:
        return first, second, second - first
    half = second / 2
    return first - half, first + half, second


def _aspect_angle(size: torch.Tensor, eps: float) -> torch.Tensor:
    """Angle of a box's diagonal, from its (..., 2) size to (..., 1)."""
    return torch.atan(size[..., :1] / (size[..., 1:] + eps))
