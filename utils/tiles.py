"""Large images in tiles: where the tiles lie, and how what was found in each becomes what is there.

An object in the strip that two tiles share is found twice, and one on a tile's border is found in part. A box is *cut*
where it ends at a border of its tile that is no border of the image. Of each class, :func:`merge_tiles`

1. suppresses boxes that are not cut among themselves, by IoU, as within an image;
2. drops a cut box when one of these holds half of its area at least, and has half of its score: another tile saw the
   object whole;
3. joins cut boxes that continue each other into the box around them: one ends at its tile's right border, the other at
   its tile's left one, each reaches further to its own side, and their extents along the border have an IoU of at least
   0.5 (likewise below each other); the surest pairs come first, a side is joined once, and the highest score counts;
4. drops what is still cut when a joined box holds half of its area and score, and suppresses all that is left by IoU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torchvision.ops import batched_nms

_SLACK = 0.01  # share of a tile's side within which a box ends "at" a border: regressed edges are not exact
_INSIDE = 0.5  # share of a cut box that makes it a part of another
_SCORE = 0.5  # share of its score that the box must have that makes it a part
_ALONG = 0.5  # IoU along the border of boxes that continue each other
_CHUNK = 512  # boxes compared with all others at a time


def plan_tiles(image_hw: tuple[int, int], size: int, overlap: float) -> torch.Tensor:
    """Cover an image with tiles of one size, evenly spread.

    Args:
        image_hw: height and width, px.
        size: side of a tile, px; an image that is smaller makes its tiles smaller.
        overlap: share of a side that neighbours have in common at least, 0 to 0.9.

    Returns:
        (T, 4) int64 x1 y1 x2 y2, px, row by row; as few as do it.
    """
    lefts, tops = (_starts(side, size, overlap) for side in (image_hw[1], image_hw[0]))
    width, height = (min(size, side) for side in (image_hw[1], image_hw[0]))
    return torch.tensor([(x, y, x + width, y + height) for y in tops for x in lefts])


def _starts(side: int, size: int, overlap: float) -> list[int]:
    """Where tiles begin along a side: the first at 0, the last so that it ends with the image."""
    spare = max(side - size, 0)
    steps = math.ceil(spare / max(int(size * (1 - overlap)), 1))
    return [0] if steps == 0 else [step * spare // steps for step in range(steps + 1)]


def cut_sides(boxes: torch.Tensor, tile: Sequence[int], image_hw: tuple[int, int]) -> torch.Tensor:
    """Which sides of boxes lie at a border of their tile that is no border of the image.

    Args:
        boxes: (n, 4 or more) x1 y1 x2 y2, px of the image.
        tile: x1 y1 x2 y2, px of the image.
        image_hw: height and width, px.

    Returns:
        (n, 4) bool: left, top, right, bottom.
    """
    left, top, right, bottom = tile
    slack = _slack(tile)
    inner = torch.tensor([left > 0, top > 0, right < image_hw[1], bottom < image_hw[0]])
    borders = boxes.new_tensor([left + slack, top + slack, slack - right, slack - bottom])
    signs = boxes.new_tensor([1, 1, -1, -1])
    return (boxes[:, :4] * signs <= borders) & inner


def _slack(tile: Sequence[int]) -> float:
    return max(_SLACK * max(tile[2] - tile[0], tile[3] - tile[1]), 1.0)


def merge_tiles(
    found: Sequence[torch.Tensor],
    tiles: torch.Tensor,
    image_hw: tuple[int, int],
    *,
    iou_thres: float = 0.45,
    agnostic: bool = False,
    max_det: int = 1000,
) -> torch.Tensor:
    """Make one image's detections out of those of its tiles, by the rule at the top of this file.

    Args:
        found: for each tile (n, 6) x1 y1 x2 y2 in px of the image, score, class, by falling score; what is found in
            a single tile stays as it is.
        tiles: (T, 4) x1 y1 x2 y2, px; the image as a whole may be among them.
        image_hw: height and width, px.
        iou_thres: of two boxes that overlap more, the lower score goes, 0..1.
        agnostic: boxes of different classes are the same object too.
        max_det: most boxes.

    Returns:
        (n, 6) float32 on the CPU, by falling score.
    """
    found = [part.float().cpu() for part in found]  # few boxes, many small steps: no work for a GPU
    if len(found) == 1:
        return found[0][:max_det]
    boxes = torch.cat(found) if found else torch.zeros(0, 6)
    sides = [cut_sides(part, tile, image_hw) for part, tile in zip(found, tiles.tolist(), strict=True)]
    cut = torch.cat(sides) if sides else torch.zeros(0, 4, dtype=torch.bool)
    slack = max((_slack(tile) for tile in tiles.tolist()), default=0.0)
    is_cut = cut.any(1)
    whole = _suppressed(boxes[~is_cut], iou_thres, agnostic)
    pieces, cut = boxes[is_cut], cut[is_cut]
    lone = ~_inside(pieces, whole, agnostic)
    joined, single = _joined(pieces[lone], cut[lone], 2 * slack, agnostic)
    single = single[~_inside(single, joined, agnostic)]
    return _suppressed(torch.cat([whole, joined, single]), iou_thres, agnostic)[:max_det]


def _kinds(boxes: torch.Tensor, agnostic: bool) -> torch.Tensor:
    return torch.zeros_like(boxes[:, 5]) if agnostic else boxes[:, 5]


def _suppressed(boxes: torch.Tensor, iou_thres: float, agnostic: bool) -> torch.Tensor:
    """What non-maximum suppression leaves, by falling score."""
    return boxes[batched_nms(boxes[:, :4], boxes[:, 4], _kinds(boxes, agnostic), iou_thres)]


def _inside(parts: torch.Tensor, boxes: torch.Tensor, agnostic: bool) -> torch.Tensor:
    """Which of some boxes are parts of one box of their class: (n,) bool."""
    if len(boxes) == 0:
        return torch.zeros(len(parts), dtype=torch.bool)
    answers = [torch.zeros(0, dtype=torch.bool)]
    for some in parts.split(_CHUNK):
        low = torch.maximum(some[:, None, :2], boxes[None, :, :2])
        high = torch.minimum(some[:, None, 2:4], boxes[None, :, 2:4])
        common = (high - low).clamp_min(0).prod(-1)  # (n, N)
        area = (some[:, 2:4] - some[:, :2]).prod(-1, keepdim=True)
        holds = (common >= _INSIDE * area) & (common > 0)
        holds &= _kinds(some, agnostic)[:, None] == _kinds(boxes, agnostic)[None]
        holds &= boxes[None, :, 4] >= _SCORE * some[:, None, 4]
        answers.append(holds.any(1))
    return torch.cat(answers)


def _joined(pieces: torch.Tensor, cut: torch.Tensor, gap: float, agnostic: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes around pieces that continue each other, and the pieces that nothing continues."""
    group = list(range(len(pieces)))  # each piece's way to the one that stands for its group

    def root(number: int) -> int:
        while group[number] != number:
            number = group[number]
        return number

    for axis in (0, 1):
        for first, second in _surest(_continued(pieces, cut, axis, gap, agnostic), pieces[:, 4]):
            group[root(first)] = root(second)
    roots = torch.tensor([root(number) for number in range(len(pieces))], dtype=torch.int64)
    sizes = roots.bincount(minlength=len(pieces))
    hulls = []
    for number in (sizes > 1).nonzero()[:, 0]:
        members = pieces[roots == number]
        best = members[members[:, 4].argmax()]
        hulls.append(torch.cat([members[:, :2].amin(0), members[:, 2:4].amax(0), best[4:6]]))
    return (torch.stack(hulls) if hulls else pieces[:0]), pieces[sizes[roots] == 1]


def _surest(pairs: torch.Tensor, scores: torch.Tensor) -> list[tuple[int, int]]:
    """Of pairs (before, after) those that leave each piece one before and one after it, highest scores first."""
    order = scores[pairs].prod(1).argsort(descending=True, stable=True)
    chosen: list[tuple[int, int]] = []
    befores, afters = set(), set()
    for first, second in pairs[order].tolist():
        if first not in befores and second not in afters:
            befores.add(first)
            afters.add(second)
            chosen.append((first, second))
    return chosen


def _continued(pieces: torch.Tensor, cut: torch.Tensor, axis: int, gap: float, agnostic: bool) -> torch.Tensor:
    """Pairs (before, after) of pieces that continue each other along an axis, 0 for x: (P, 2) int64."""
    before, after = cut[:, axis + 2].nonzero()[:, 0], cut[:, axis].nonzero()[:, 0]
    found = [torch.zeros(0, 2, dtype=torch.int64)]
    other = 1 - axis
    for some in before.split(_CHUNK):
        a, b = pieces[some][:, None], pieces[after][None]  # (n, 1, 6), (1, m, 6)
        meets = (b[..., axis] - a[..., axis + 2] <= gap) & (a[..., axis] <= b[..., axis])
        meets &= a[..., axis + 2] <= b[..., axis + 2]
        meets &= _kinds(pieces[some], agnostic)[:, None] == _kinds(pieces[after], agnostic)[None]
        common = torch.minimum(a[..., other + 2], b[..., other + 2]) - torch.maximum(a[..., other], b[..., other])
        hull = torch.maximum(a[..., other + 2], b[..., other + 2]) - torch.minimum(a[..., other], b[..., other])
        meets &= (common >= _ALONG * hull) & (some[:, None] != after[None])
        places = meets.nonzero()
        found.append(torch.stack([some[places[:, 0]], after[places[:, 1]]], 1))
    return torch.cat(found)
