"""Random affine and perspective warps of an image together with its boxes and polygons.

A warp is drawn once (:class:`WarpDraw`), turned into one 3x3 matrix, and that matrix moves pixels and labels alike.
Polygons are mapped corner by corner and cut exactly at the border of the output; a straight edge stays straight under
these maps, so no resampling of the outline is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

FILL = (114, 114, 114)  # the grey that stands for "no image here" in every recipe of this family
_HORIZON = 1e-3  # points whose homogeneous coordinate is below this lie behind, or all but behind, the viewer
_MARGIN = 2  # pixels around a place between which OpenCV interpolates
_BOX_AREA_KEPT, _POLYGON_AREA_KEPT = 0.1, 0.01


@dataclass(frozen=True)
class WarpRanges:
    """How far a random warp may go: degrees, shares of the output size, scale 1 +- ``scale``, perspective per pixel."""

    degrees: float = 10.0
    translate: float = 0.1
    scale: float = 0.1
    shear: float = 10.0
    perspective: float = 0.0


@dataclass(frozen=True)
class WarpDraw:
    """The eight numbers of one warp; ``translate`` is where the image's centre lands, in shares of the output."""

    perspective_x: float = 0.0
    perspective_y: float = 0.0
    angle_degrees: float = 0.0
    scale: float = 1.0
    shear_x_degrees: float = 0.0
    shear_y_degrees: float = 0.0
    translate_x_fraction: float = 0.5
    translate_y_fraction: float = 0.5

    @classmethod
    def sample(cls, ranges: WarpRanges, rng: np.random.Generator) -> WarpDraw:
        """Draw each number uniformly from its range, in the order of the fields."""
        tilt, shear, shift = ranges.perspective, ranges.shear, ranges.translate
        spreads = (tilt, tilt, ranges.degrees, ranges.scale, shear, shear, shift, shift)
        middles = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.5, 0.5)
        draws = rng.uniform(-1, 1, 8).tolist()
        return cls(*(middle + spread * draw for middle, spread, draw in zip(middles, spreads, draws, strict=True)))

    def matrix(self, input_hw: tuple[int, int], output_hw: tuple[int, int]) -> np.ndarray:
        """The (3, 3) map of input to output pixels: centre, perspective, rotate and scale, shear, translate."""
        middle_x, middle_y = input_hw[1] / 2, input_hw[0] / 2
        tilt_x, tilt_y = self.perspective_x, self.perspective_y
        depth = 1 - tilt_x * middle_x - tilt_y * middle_y  # of the input's origin
        cosine = self.scale * math.cos(math.radians(self.angle_degrees))
        sine = self.scale * math.sin(math.radians(self.angle_degrees))
        slope_x, slope_y = math.tan(math.radians(self.shear_x_degrees)), math.tan(math.radians(self.shear_y_degrees))
        target_x, target_y = self.translate_x_fraction * output_hw[1], self.translate_y_fraction * output_hw[0]
        # multiplied out by hand: this runs for every image, and NumPy takes long over small matrices
        xx, xy = cosine - slope_x * sine, sine + slope_x * cosine
        yx, yy = slope_y * cosine - sine, slope_y * sine + cosine
        return np.array(
            [
                [xx + target_x * tilt_x, xy + target_x * tilt_y, target_x * depth - xx * middle_x - xy * middle_y],
                [yx + target_y * tilt_x, yy + target_y * tilt_y, target_y * depth - yx * middle_x - yy * middle_y],
                [tilt_x, tilt_y, depth],
            ]
        )


def warp_image(image: np.ndarray, matrix: np.ndarray, output_hw: tuple[int, int]) -> np.ndarray:
    """Move pixels by a (3, 3) matrix; what the image does not cover becomes grey. The identity returns the input.

    Args:
        image: (H, W, 3) uint8, (H, W, 4) with one channel that nobody reads, or whatever else OpenCV can warp.
        matrix: input to output pixels.
        output_hw: height and width of the result.

    Returns:
        As many channels as the image has.
    """
    height, width = output_hw
    if image.shape[:2] == (height, width) and np.array_equal(matrix, np.eye(3)):
        return image
    # OpenCV interpolates pixels of four channels more than twice as fast as those of three, to the same values
    coloured = image.dtype == np.uint8 and image.shape[2:] == (3,)
    padded = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA) if coloured else image
    if _is_affine(matrix):
        warped = cv2.warpAffine(padded, matrix[:2], (width, height), borderValue=FILL)
    else:
        warped = cv2.warpPerspective(padded, matrix, (width, height), borderValue=FILL)
    return cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR) if coloured else warped


def _is_affine(matrix: np.ndarray) -> bool:
    return matrix[2].tolist() == [0, 0, 1]


def map_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Map (..., 2) pixel points; those behind the viewer become NaN."""
    moved = points @ matrix[:, :2].T + matrix[:, 2]  # (..., 3) homogeneous
    depth = moved[..., 2:]
    visible = depth > _HORIZON
    return np.where(visible, moved[..., :2] / np.where(visible, depth, 1), np.nan)


def map_boxes(boxes_xyxy: np.ndarray, matrix: np.ndarray, output_hw: tuple[int, int]) -> np.ndarray:
    """Bounding boxes, clipped to the output, of (N, 4) mapped corner boxes.

    A box with a corner behind the viewer has no bounding box and becomes empty. All numbers are finite.
    """
    if _is_affine(matrix):
        bounds = _affine_bounds(boxes_xyxy, matrix)
    else:
        corners = boxes_xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)  # (N, corner, xy), clockwise
        moved = map_points(corners, matrix)
        bounds = np.nan_to_num(np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1), nan=0.0)
    height, width = output_hw
    return np.minimum(np.maximum(bounds, 0), (width, height, width, height))


def _affine_bounds(boxes_xyxy: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Bounding boxes (N, 4) of mapped boxes: x and y add up independently, so the extremes of each do too."""
    # (N, 2 of the input, 2 of the output)
    one, other = boxes_xyxy[:, :2, None] * matrix[:2, :2].T, boxes_xyxy[:, 2:, None] * matrix[:2, :2].T
    low, high, shift = np.minimum(one, other), np.maximum(one, other), matrix[:2, 2]
    return np.concatenate([low[:, 0] + low[:, 1] + shift, high[:, 0] + high[:, 1] + shift], axis=1)


def _cut(points: np.ndarray, axis: int, limit: float, keep_below: bool) -> np.ndarray:
    """Cut an (n, 2) polygon along one axis-parallel line and return the part on the wanted side."""
    if not len(points):
        return points
    inside = points[:, axis] <= limit if keep_below else points[:, axis] >= limit
    if inside.all():
        return points
    following = np.roll(points, -1, axis=0)
    crosses = inside != np.roll(inside, -1)
    run = np.where(crosses, following[:, axis] - points[:, axis], 1)  # never 0 where the edge crosses
    meeting = points + ((limit - points[:, axis]) / run)[:, None] * (following - points)
    # every corner that stays, each followed by the point where its edge leaves or enters
    return np.stack([points, meeting], axis=1)[np.stack([inside, crosses], axis=1)]


def polygon_bounds(polygon: np.ndarray, output_hw: tuple[int, int]) -> np.ndarray:
    """Bounding box (4,) of the part of an (n, 2) polygon that lies in the output; zeros when none does."""
    height, width = output_hw
    if not np.isfinite(polygon).all():
        return np.zeros(4)
    part = polygon
    for axis, limit, keep_below in ((0, 0, False), (0, width, True), (1, 0, False), (1, height, True)):
        part = _cut(part, axis, limit, keep_below)
    return np.concatenate([part.min(axis=0), part.max(axis=0)]) if len(part) else np.zeros(4)


def box_candidates(
    box1: np.ndarray,
    box2: np.ndarray,
    wh_thr: float = 2,
    ar_thr: float = 100,
    area_thr: float | np.ndarray = 0.1,
    eps: float = 1e-16,
) -> np.ndarray:
    """Which boxes are still worth learning from after a warp.

    Args:
        box1: boxes before, (4, N) corners, already at the scale of the output.
        box2: boxes after, (4, N) corners.
        wh_thr: both sides must be above this, pixels.
        ar_thr: the longer side must be below this many times the shorter one.
        area_thr: share of the area before that must be left; a number, or one for each box.
        eps: guards the divisions.

    Returns:
        (N,) bool.
    """
    width_before, height_before = np.asarray(box1)[2:] - np.asarray(box1)[:2]  # (N,) each
    width, height = np.asarray(box2)[2:] - np.asarray(box2)[:2]
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    area_left = width * height / (width_before * height_before + eps)
    return (shorter > wh_thr) & (area_left > area_thr) & (longer / (shorter + eps) < ar_thr)


def warp_labels(
    targets: np.ndarray,
    polygons: Sequence[np.ndarray],
    matrix: np.ndarray,
    scale: float,
    output_hw: tuple[int, int],
) -> np.ndarray:
    """Map labels and drop those that the warp has made too small, too thin or mostly invisible.

    Args:
        targets: (N, 5) class and corners, input pixels.
        polygons: one (n, 2) outline in input pixels per target, empty where a target is just a box; or nothing at all.
        matrix: (3, 3) from :meth:`WarpDraw.matrix`.
        scale: the warp's scale, by which areas before and after are compared.
        output_hw: height and width of the output.

    Returns:
        (M, 5) float32, M <= N, clipped to the output.
    """
    before = np.asarray(targets, dtype=np.float64).reshape(-1, 5)
    after = map_boxes(before[:, 1:], matrix, output_hw)
    share_kept: float | np.ndarray = _BOX_AREA_KEPT
    if len(before) and len(polygons) == len(before):
        share_kept = np.full(len(before), _BOX_AREA_KEPT)
        for row, polygon in enumerate(polygons):
            if len(polygon) >= 3:
                after[row] = polygon_bounds(map_points(polygon, matrix), output_hw)
                share_kept[row] = _POLYGON_AREA_KEPT
    kept = box_candidates(before[:, 1:].T * scale, after.T, area_thr=share_kept)
    return np.concatenate([before[kept, :1], after[kept]], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Warp:
    """One warp of images of one size: of their pixels and of their labels.

    Attributes:
        matrix: (3, 3) map of input to output pixels.
        scale: by which areas before and after are compared.
        input_hw: height and width of the images.
        output_hw: height and width of what they become.
    """

    matrix: np.ndarray
    scale: float
    input_hw: tuple[int, int]
    output_hw: tuple[int, int]

    @classmethod
    def sample(
        cls, ranges: WarpRanges, input_hw: tuple[int, int], border_hw: tuple[int, int], rng: np.random.Generator
    ) -> Warp:
        """Draw a warp.

        Args:
            ranges: how far it may go.
            input_hw: height and width of the images.
            border_hw: added above and below, left and right; negative to cut a mosaic back to one image.
            rng: source of randomness.
        """
        output_hw = (input_hw[0] + 2 * border_hw[0], input_hw[1] + 2 * border_hw[1])
        draw = WarpDraw.sample(ranges, rng)
        return cls(draw.matrix(input_hw, output_hw), draw.scale, input_hw, output_hw)

    def seen(self) -> tuple[slice, slice]:
        """Rows and columns of the input that hold every pixel the output is made of."""
        whole = slice(0, self.input_hw[0]), slice(0, self.input_hw[1])
        if not _is_affine(self.matrix):
            return whole
        rightmost, lowest = self.output_hw[1] - 1, self.output_hw[0] - 1
        backwards = cv2.invertAffineTransform(self.matrix[:2]).tolist()  # plain numbers: quicker than tiny arrays
        seen = []  # columns, rows
        for (per_x, per_y, origin), side in zip(backwards, self.input_hw[::-1], strict=True):
            across, down = per_x * rightmost, per_y * lowest
            low, high = origin + min(across, 0) + min(down, 0), origin + max(across, 0) + max(down, 0)
            if not math.isfinite(high - low):
                return whole
            begin, end = math.floor(low) - _MARGIN, math.ceil(high) + _MARGIN + 1
            seen.append(slice(min(max(begin, 0), side), min(max(end, 0), side)))
        return seen[1], seen[0]

    def image(self, image: np.ndarray) -> np.ndarray:
        """The pixels of an image, moved; see :func:`warp_image`."""
        return warp_image(image, self.matrix, self.output_hw)

    def labels(self, targets: np.ndarray, polygons: Sequence[np.ndarray]) -> np.ndarray:
        """The labels of an image, moved; see :func:`warp_labels`."""
        return warp_labels(targets, polygons, self.matrix, self.scale, self.output_hw)


def warp_sample(
    image: np.ndarray,
    targets: np.ndarray,
    polygons: Sequence[np.ndarray],
    ranges: WarpRanges,
    border_hw: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Warp an image and its labels by one random draw.

    Args:
        image: (H, W, 3) uint8.
        targets: (N, 5) class and corners in pixels.
        polygons: see :func:`warp_labels`.
        ranges: how far the warp may go.
        border_hw: added above and below, left and right; negative cuts.
        rng: source of randomness.

    Returns:
        The warped image and (M, 5) float32 targets.
    """
    warp = Warp.sample(ranges, image.shape[:2], border_hw, rng)
    return warp.image(image), warp.labels(targets, polygons)
