"""What attention over a map costs by formula: floating-point operations of one image's forward pass.

Counted as everywhere in the project: a multiply-add is two operations; only convolutions and matrix products count, not
softmax, means and reading between pixels. Letters: C channels, L = H * W tokens of the map, k the local term's kernel.

| attention | projections | local term | attention | choosing keys |
|---|---|---|---|---|
| full | 8 L C^2 | 2 L C k^2 | 4 L^2 C | |
| window of w x w | same | same | 4 L' w^2 C | |
| dilated window of w x w | same | same | 4 L' w^2 C | |
| axial | same | same | 2 L (H + W) C | |
| deformable, a point for s x s tokens | same | same | 4 L P C, P = L / s^2 points | P C (2 K^2 + 4) |
| bi-level routing, S^2 = R regions | 6 L' C^2 + 2 L C^2 | same | 4 L' (topk L' / R) C | 2 R^2 C |

L' is L and what padding adds where a map is not divided; deformable attention's K is the side of the kernel that moves
its points. Where maps are padded, bi-level routing makes the means of its regions by a product, 4 L' C more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.attention.ops.regions import RegionGrid, ceil_div

KERNEL = 3  # of the local term, the layers' default
WINDOW = 7  # tokens a side of a window, the layers' default
STRIDE = 4  # tokens a side for each point of deformable attention, the layer's default
TOPK = 4
_USUAL_REGIONS = 8  # a side, at the next constant's tokens
_USUAL_TOKENS = 80 * 80  # P3 of an image of 640 px


@dataclass(frozen=True)
class Cost:
    """Operations of one forward pass over one map.

    Attributes:
        projections: to queries, keys and values, and of the result.
        local: of the depth-wise convolution on the values.
        attention: of logits and weighted sums, the part that differs.
        choosing: of finding out which keys are looked at.
    """

    projections: float
    local: float
    attention: float
    choosing: float = 0.0

    @property
    def total(self) -> float:
        """All together."""
        return self.projections + self.local + self.attention + self.choosing


def full_cost(dim: int, height: int, width: int) -> Cost:
    """Every token looks at every token."""
    return _cost(dim, height * width, 4 * (height * width) ** 2 * dim)


def window_cost(dim: int, height: int, width: int) -> Cost:
    """Every token looks at the tokens of its window."""
    tiles = [min(WINDOW, side) for side in (height, width)]
    padded = math.prod(ceil_div(side, tile) * tile for side, tile in zip((height, width), tiles, strict=True))
    return _cost(dim, height * width, 4 * padded * math.prod(tiles) * dim)


def dilated_cost(dim: int, height: int, width: int) -> Cost:
    """Every token looks at a grid of tokens that spans the map."""
    steps = [ceil_div(side, WINDOW) for side in (height, width)]
    tiles = [min(WINDOW, ceil_div(side, step)) for side, step in zip((height, width), steps, strict=True)]
    blocks = [tile * step for tile, step in zip(tiles, steps, strict=True)]
    padded = math.prod(ceil_div(side, block) * block for side, block in zip((height, width), blocks, strict=True))
    return _cost(dim, height * width, 4 * padded * math.prod(tiles) * dim)


def axial_cost(dim: int, height: int, width: int) -> Cost:
    """Half of the channels looks along the rows, the other half along the columns."""
    return _cost(dim, height * width, 2 * height * width * (height + width) * dim)


def deformable_cost(dim: int, height: int, width: int) -> Cost:
    """Every token looks at all points."""
    points = ceil_div(height, STRIDE) * ceil_div(width, STRIDE)
    kernel = STRIDE + 1 + STRIDE % 2
    return _cost(dim, height * width, 4 * height * width * points * dim, points * dim * (2 * kernel**2 + 4))


def routing_cost(dim: int, height: int, width: int, n_win: int, topk: int = TOPK) -> Cost:
    """Every token looks at the tokens of the regions that its region is routed to."""
    grid = RegionGrid.of(height, width, n_win)
    padded = grid.regions * grid.tokens
    keys = min(topk, grid.filled_regions) * grid.tokens
    choosing = 2 * grid.regions**2 * dim + (4 * padded * dim if grid.is_padded else 0)
    usual = _cost(dim, height * width, 4 * padded * keys * dim, choosing)
    return replace(usual, projections=6 * padded * dim**2 + 2 * height * width * dim**2)


def growing_regions(height: int, width: int) -> int:
    """Regions a side that grow as (H*W)^(1/3); 8 on P3 of an image of 640 px.

    Attention over R regions costs (H*W)^2 / R and routing R^2: their sum grows slowest where both grow alike.
    """
    return max(1, round(_USUAL_REGIONS * (height * width / _USUAL_TOKENS) ** (1 / 3)))


def growth_exponent(tokens: Sequence[float], costs: Sequence[float]) -> float | None:
    """Exponent e of the power ``cost ~ tokens^e`` that fits best, by the logarithms; None for fewer than two maps."""
    if len(set(tokens)) < 2:
        return None
    return float(np.polyfit(np.log(tokens), np.log(costs), 1)[0])


def _cost(dim: int, tokens: int, attention: float, choosing: float = 0.0) -> Cost:
    return Cost(8 * tokens * dim**2, 2 * tokens * dim * KERNEL**2, attention, choosing)
