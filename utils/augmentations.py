"""Augmentations as functions of (image, labels, generator); images are (H, W, 3) uint8 in OpenCV's BGR order.

Labels are (N, 5) rows of class and corners in pixels unless said otherwise. Functions return new arrays; only
:func:`augment_hsv` works in place, as its callers expect. The public names take an optional ``rng``; without one they
draw a seed from NumPy's global state, so that seeding NumPy makes them repeatable.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec

import cv2
import numpy as np

from utils.geometry_warp import FILL, WarpRanges, box_candidates, warp_sample
from utils.log import LOGGER

__all__ = [
    "augment_hsv",
    "box_candidates",
    "copy_paste",
    "flip",
    "hsv_gains",
    "letterbox",
    "letterbox_geometry",
    "mixup",
    "optional_effects",
    "random_perspective",
    "shift_hsv",
]

_MAX_COVERED = 0.3  # a pasted copy may hide up to this share of any box
_MIXUP_BETA = 32.0  # both parameters: ratios close to one half
_HUE_STEPS = 180  # OpenCV's 8-bit hue circle
_CUT_OFF = -0.49998  # OpenCV rounds to the nearest level; this added, it cuts off, but for one product in 100,000


def _generator(rng: np.random.Generator | None) -> np.random.Generator:
    return rng if rng is not None else np.random.default_rng(np.random.randint(0, 2**31 - 1))


# -- letterbox -----------------------------------------------------------------------------------------------------


def letterbox_geometry(
    shape_hw: tuple[int, int],
    new_hw: tuple[int, int],
    auto: bool = True,
    scale_fill: bool = False,
    scaleup: bool = True,
    stride: int = 32,
) -> tuple[tuple[int, int], tuple[float, float], tuple[float, float]]:
    """Size, ratio and padding that fit an image into a rectangle.

    Args:
        shape_hw: height and width of the image.
        new_hw: height and width of the rectangle.
        auto: pad up to the next multiple of ``stride`` only, rather than to the whole rectangle.
        scale_fill: stretch instead of padding; ``auto`` wins over it.
        scaleup: False never enlarges.
        stride: see ``auto``.

    Returns:
        ``(height, width)`` of the scaled image, ``(width ratio, height ratio)``, and half of the padding
        ``(left and right, top and bottom)``, not rounded.
    """
    height, width = shape_hw
    if scale_fill and not auto:
        return (new_hw[0], new_hw[1]), (new_hw[1] / width, new_hw[0] / height), (0.0, 0.0)
    largest = math.inf if scaleup else 1.0
    gain = min(largest, new_hw[0] / height, new_hw[1] / width)
    inner_hw = (max(round(height * gain), 1), max(round(width * gain), 1))  # a sliver keeps a pixel
    spare_hw = (new_hw[0] - inner_hw[0], new_hw[1] - inner_hw[1])
    if auto:
        spare_hw = (spare_hw[0] % stride, spare_hw[1] % stride)
    return inner_hw, (gain, gain), (spare_hw[1] / 2, spare_hw[0] / 2)


def letterbox(
    im: np.ndarray,
    new_shape: int | Sequence[int] = (640, 640),
    color: tuple[int, int, int] = FILL,
    auto: bool = True,
    scaleFill: bool = False,
    scaleup: bool = True,
    stride: int = 32,
) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """Scale an image to fit a rectangle and pad the rest evenly.

    Args:
        im: (H, W, C) uint8.
        new_shape: side, or height and width, of the rectangle.
        color: of the padding.
        auto: pad up to the next multiple of ``stride`` only.
        scaleFill: stretch instead of padding; ``auto`` wins over it.
        scaleup: False never enlarges.
        stride: see ``auto``.

    Returns:
        The image, (width ratio, height ratio), and half of the padding (left and right, top and bottom) in pixels,
        not rounded: an odd pixel goes right and below.
    """
    rectangle = (new_shape, new_shape) if isinstance(new_shape, int) else (int(new_shape[0]), int(new_shape[1]))
    inner_hw, ratio_wh, pad_wh = letterbox_geometry(im.shape[:2], rectangle, auto, scaleFill, scaleup, stride)
    if im.shape[:2] != inner_hw:
        im = cv2.resize(im, inner_hw[::-1], interpolation=cv2.INTER_LINEAR)
    (left, right), (top, bottom) = ((round(pad - 0.1), round(pad + 0.1)) for pad in pad_wh)
    borders = {"left": left, "right": right, "top": top, "bottom": bottom}
    if any(borders.values()):
        im = cv2.copyMakeBorder(im, **borders, borderType=cv2.BORDER_CONSTANT, value=color)
    return im, ratio_wh, pad_wh


# -- colour --------------------------------------------------------------------------------------------------------


def hsv_gains(hgain: float, sgain: float, vgain: float, rng: np.random.Generator) -> np.ndarray:
    """Draw three factors around 1: ``1 + gain * U(-1, 1)`` each."""
    return 1 + rng.uniform(-1, 1, 3) * (hgain, sgain, vgain)


def shift_hsv(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Multiply hue (on its circle), saturation and value (clipped) of an image; returns a new one.

    Args:
        image: (H, W, 3) uint8 BGR, or (H, W, 4), of which the last channel is left out.
        factors: (3,) of hue, saturation and value.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    hue, saturation, value = map(float, factors)
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    if not 0 <= hue * (_HUE_STEPS - 1) < 256:  # OpenCV goes round the circle by itself, as far as 8 bits go
        hues = (np.arange(256) * hue % _HUE_STEPS).astype(np.uint8)
        cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), hues), hsv, 0)
        hue = 1.0
    # takes a third of the time of a table for triples, and clips to 0 ... 255 as well
    scales = np.array([[hue, 0, 0, _CUT_OFF], [0, saturation, 0, _CUT_OFF], [0, 0, value, _CUT_OFF]])
    return cv2.cvtColor(cv2.transform(hsv, scales, dst=hsv), cv2.COLOR_HSV2BGR)


def augment_hsv(
    im: np.ndarray,
    hgain: float = 0.5,
    sgain: float = 0.5,
    vgain: float = 0.5,
    rng: np.random.Generator | None = None,
) -> None:
    """Change hue, saturation and value of a BGR image at random, in place; gains of 0 leave it alone."""
    if hgain or sgain or vgain:
        im[:] = shift_hsv(im, hsv_gains(hgain, sgain, vgain, _generator(rng)))


@cache
def optional_effects() -> Callable[[np.ndarray, int], np.ndarray] | None:
    """The rare blur, grey and contrast effects of Albumentations, or None where it is not installed.

    Returns:
        A function of an image and a seed that returns the image, changed in about one case in twenty-five. A version
        that cannot be seeded is left out with a warning: training would no longer be repeatable.
    """
    if find_spec("albumentations") is None:
        return None
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for its newest version otherwise
    import albumentations  # noqa: PLC0415 - optional package

    names = ("Blur", "MedianBlur", "ToGray", "CLAHE")
    effects = albumentations.Compose([getattr(albumentations, name)(p=0.01) for name in names])
    if not hasattr(effects, "set_random_seed"):
        LOGGER.warning("albumentations is too old to be seeded and is left out: pip install -U albumentations")
        return None

    def apply(image: np.ndarray, seed: int) -> np.ndarray:
        effects.set_random_seed(seed)
        return effects(image=image)["image"]

    return apply


# -- geometry ------------------------------------------------------------------------------------------------------


def random_perspective(
    im: np.ndarray,
    targets: np.ndarray | Sequence = (),
    segments: Sequence[np.ndarray] = (),
    degrees: float = 10,
    translate: float = 0.1,
    scale: float = 0.1,
    shear: float = 10,
    perspective: float = 0.0,
    border: tuple[int, int] = (0, 0),
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray | Sequence]:
    """Rotate, scale, shear, shift and tilt an image with its labels, all at random.

    Args:
        im: (H, W, 3) uint8.
        targets: (N, 5) class and corners in pixels.
        segments: polygons (n, 2) in pixels, used when there is one for each target.
        degrees: largest turn to either side.
        translate: largest shift, as a share of the output.
        scale: scale factors lie in 1 - scale ... 1 + scale.
        shear: largest shear, degrees.
        perspective: largest tilt, per pixel; 0.001 is a lot.
        border: rows and columns added on each side; negative ones cut.
        rng: source of randomness.

    Returns:
        The image and those targets, (M, 5), that are still worth having; empty targets come back as they are.
    """
    ranges = WarpRanges(degrees, translate, scale, shear, perspective)
    image, kept = warp_sample(im, np.asarray(targets), segments, ranges, border, _generator(rng))
    return image, kept if len(targets) else targets


def flip(image: np.ndarray, targets: np.ndarray, upside_down: bool, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    """Turn an image upside down and / or mirror it, together with (N, 5) class and corner targets in pixels."""
    if not (upside_down or mirrored):
        return image, targets
    flipped = targets.copy()
    height, width = image.shape[:2]
    if upside_down:
        flipped[:, [2, 4]] = height - flipped[:, [4, 2]]
    if mirrored:
        flipped[:, [1, 3]] = width - flipped[:, [3, 1]]
    direction = -1 if upside_down and mirrored else int(mirrored)  # OpenCV: both axes, left-right, top-bottom
    return cv2.flip(image, direction), flipped


# -- mixing images -------------------------------------------------------------------------------------------------


def mixup(
    im: np.ndarray,
    labels: np.ndarray,
    im2: np.ndarray,
    labels2: np.ndarray,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Lay two images of equal shape over each other, about half and half; labels of both count in full."""
    ratio = float(_generator(rng).beta(_MIXUP_BETA, _MIXUP_BETA))
    return blend(im, im2, ratio), np.concatenate([labels, labels2])


def blend(image: np.ndarray, other: np.ndarray, ratio: float) -> np.ndarray:
    """``ratio`` of one image plus the rest of another, fractions cut off."""
    # OpenCV rounds to the nearest level, so just under half a level less cuts off instead
    return cv2.addWeighted(image, ratio, other, 1 - ratio, -0.49)


def _covered(box_xyxy: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
    """Share of each of (N, 4) boxes that one box hides."""
    low = np.maximum(boxes_xyxy[:, :2], box_xyxy[:2])
    high = np.minimum(boxes_xyxy[:, 2:], box_xyxy[2:])
    area = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)
    return np.clip(high - low, 0, None).prod(axis=1) / np.maximum(area, 1e-7)


def copy_paste(
    im: np.ndarray,
    labels: np.ndarray,
    segments: Sequence[np.ndarray],
    p: float = 0.5,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Add mirrored copies of some outlined objects where they hide little of what is there.

    Args:
        im: (H, W, 3) uint8.
        labels: (N, 5) class and corners in pixels.
        segments: one polygon (n, 2) in pixels per label; empty ones belong to plain boxes and are never copied.
        p: share of the polygons to try.
        rng: source of randomness.

    Returns:
        Image, labels and polygons with the copies added.
    """
    outlined = [row for row, polygon in enumerate(segments) if len(polygon) >= 3] if p else []
    chosen = _generator(rng).permutation(outlined)[: round(p * len(outlined))] if outlined else []
    width = im.shape[1]
    mirrored_labels, mirrored_polygons = [labels], list(segments)
    pasted = np.zeros(im.shape[:2], np.uint8)
    for row in map(int, chosen):
        class_id, x_low, y_low, x_high, y_high = labels[row]
        copy = np.array([[class_id, width - x_high, y_low, width - x_low, y_high]], dtype=labels.dtype)
        if (_covered(copy[0, 1:], np.concatenate(mirrored_labels)[:, 1:]) < _MAX_COVERED).all():
            polygon = np.stack([width - segments[row][:, 0], segments[row][:, 1]], axis=1)
            cv2.fillPoly(pasted, [polygon.round().astype(np.int32)], 1)
            mirrored_labels.append(copy)
            mirrored_polygons.append(polygon.astype(segments[row].dtype))
    if len(mirrored_labels) > 1:
        im = np.where(pasted[..., None].astype(bool), cv2.flip(im, 1), im)
    return im, np.concatenate(mirrored_labels), mirrored_polygons
