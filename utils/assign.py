"""Which cells and anchors answer for which target: the anchor rule of YOLOv5, in small steps.

A target belongs to an anchor when their sides differ by less than a factor. It then belongs to the cell its centre
lies in, and to the neighbours on the nearer side in x and in y: up to three cells for each fitting anchor.

Letters in shapes: ``T`` targets, ``A`` anchors of a level, ``P`` fitting pairs of anchor and target, ``M`` matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

REACH = 0.5  # cells: how near a centre must be to a neighbour for that one to answer too
# Own cell, left, up, right, down as (x, y). Matches come in this order, which decides who is last in a shared cell.
DIRECTIONS = ((0.0, 0.0), (-1.0, 0.0), (0.0, -1.0), (1.0, 0.0), (0.0, 1.0))


class LevelTargets(NamedTuple):
    """The matches of one level, ordered by direction, then anchor, then target."""

    image: torch.Tensor  # (M,) index in the batch
    anchor: torch.Tensor  # (M,) index among the level's anchors
    row: torch.Tensor  # (M,) cell
    column: torch.Tensor  # (M,) cell
    classes: torch.Tensor  # (M,) int64
    boxes: torch.Tensor  # (M, 4) centre x, y from the cell's corner, width, height; all in cells
    anchor_sizes: torch.Tensor  # (M, 2) width, height in cells

    def flat_index(self, anchors: int, height: int, width: int) -> torch.Tensor:
        """Position of each match in a (B, anchors, height, width) map laid out flat, (M,)."""
        return ((self.image * anchors + self.anchor) * height + self.row) * width + self.column


def assign_targets(
    targets: torch.Tensor, anchors: torch.Tensor, grids: Sequence[tuple[int, int]], threshold: float
) -> list[LevelTargets]:
    """Match targets with cells and anchors on every level.

    Args:
        targets: (T, 6) rows image index, class, centre x, y, width, height, the box normalised to 0..1.
        anchors: (levels, A, 2) width and height, in cells of the level.
        grids: per level (height, width) in cells.
        threshold: a side may be this many times longer or shorter than the anchor's; above 1.

    Returns:
        One :class:`LevelTargets` per level.
    """
    return [assign_level(targets, anchors[level], *grid, threshold) for level, grid in enumerate(grids)]


def assign_level(
    targets: torch.Tensor, anchors: torch.Tensor, height: int, width: int, threshold: float
) -> LevelTargets:
    """Match targets on one level; see :func:`assign_targets`.

    Args:
        targets: (T, 6).
        anchors: (A, 2) in cells.
        height: rows of the grid.
        width: columns of the grid.
        threshold: largest ratio between a side and the anchor's.
    """
    grid = targets.new_tensor([width, height])
    centres, sizes = targets[:, 2:4] * grid, targets[:, 4:6] * grid  # (T, 2) in cells

    anchor, target = fitting_pairs(sizes, anchors, threshold)  # (P,) each
    direction, pair = answering_cells(centres[target], grid)  # (M,) each
    anchor, target = anchor[pair], target[pair]

    step = targets.new_tensor(DIRECTIONS)[direction] * REACH  # (M, 2)
    cell = (centres[target] + step).long()
    cell = torch.minimum(cell.clamp_min(0), grid.long() - 1)  # a centre on the far border belongs to the last cell
    return LevelTargets(
        image=targets[target, 0].long(),
        anchor=anchor,
        row=cell[:, 1],
        column=cell[:, 0],
        classes=targets[target, 1].long(),
        boxes=torch.cat([centres[target] - cell, sizes[target]], 1),
        anchor_sizes=anchors[anchor],
    )


def fitting_pairs(sizes: torch.Tensor, anchors: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs whose sides differ by less than a factor.

    Args:
        sizes: (T, 2) widths and heights of the targets.
        anchors: (A, 2) widths and heights, same unit.
        threshold: the factor; a ratio equal to it does not fit.

    Returns:
        Anchor index and target index, (P,) each, by anchor, then target.
    """
    ratio = sizes[None] / anchors[:, None]  # (A, T, 2)
    worst = torch.maximum(ratio, 1 / ratio).amax(-1)  # (A, T)
    anchor, target = (worst < threshold).nonzero(as_tuple=True)
    return anchor, target


def answering_cells(centres: torch.Tensor, grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which cells answer for each centre: its own and the nearer neighbours inside the grid.

    Args:
        centres: (P, 2) x and y in cells.
        grid: (2,) columns and rows.

    Returns:
        Index into :data:`DIRECTIONS` and index of the centre, (M,) each, by direction, then centre.
    """
    before, after = centres, grid - centres  # distances from the left or upper border, and from the other one
    low = (before % 1 < REACH) & (before > 1)  # (P, 2): left, up
    high = (after % 1 < REACH) & (after > 1)  # (P, 2): right, down
    own = torch.ones_like(low[:, :1])
    direction, pair = torch.cat([own, low, high], 1).t().nonzero(as_tuple=True)  # (5, P)
    return direction, pair


def last_claims(keys: torch.Tensor) -> torch.Tensor:
    """Of the matches that share a place, the last one.

    Writing all of them at once would leave it to the device which value stays.

    Args:
        keys: (M,) whole numbers, equal where two matches share a place.

    Returns:
        Indices of the winners, one per distinct key.
    """
    ordered, order = keys.sort(stable=True)
    is_last = torch.ones_like(ordered, dtype=torch.bool)
    is_last[:-1] = ordered[1:] != ordered[:-1]
    return order[is_last]
