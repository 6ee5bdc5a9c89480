"""Random problems for bi-level routing attention, and one way to run a backend on them."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from models.attention.ops.dispatch import bi_level_routing_attention
from models.attention.ops.regions import RegionGrid, to_regions
from models.attention.ops.routing import route_regions


@dataclass(frozen=True)
class Problem:
    """Shapes of one problem: maps with and without padding, smaller than the regions asked for, heads of any width."""

    batch: int
    heads: int
    channels: int
    grid: RegionGrid
    topk: int
    mask_padding: bool = True

    def qkv(self, seed: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[torch.Tensor]:
        """Queries, keys and values (B, C, H, W), each a leaf that wants a gradient."""
        shape = (3, self.batch, self.channels, self.grid.height, self.grid.width)
        numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return [part.to(device, dtype).requires_grad_() for part in numbers]

    def route(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        """The routing index of maps."""
        return route_regions(to_regions(torch.cat([q, k], dim=1).detach(), self.grid), self.grid, self.topk)

    def run(self, inputs: list[torch.Tensor], idx: torch.Tensor, backend: str) -> list[torch.Tensor]:
        """Output and the gradients of q, k and v under a fixed random probe."""
        for x in inputs:
            x.grad = None
        out = bi_level_routing_attention(
            *inputs,
            idx,
            self.grid,
            num_heads=self.heads,
            scale=self.channels**-0.5,
            mask_padding=self.mask_padding,
            backend=backend,
        )
        probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.device)
        (out.float() * probe).sum().backward()
        return [out.detach(), *(x.grad for x in inputs)]


def draw_problem(seed: int, largest: int = 20, widths: tuple[int, ...] = (1, 4, 8, 16)) -> Problem:
    """A problem from a seed.

    Args:
        seed: every third problem has the released cut, regions rounded down, and lets padding take part.
        largest: side of the largest map.
        widths: head widths to draw from.
    """
    draw = random.Random(seed)
    heads = draw.choice((1, 2, 3, 4))
    batch = draw.choice((1, 1, 2, 3))
    channels = heads * draw.choice(widths)
    height, width = draw.randint(1, largest), draw.randint(1, largest)
    n_win = draw.randint(1, 8)
    released = seed % 3 == 0
    if released:
        grid = RegionGrid.of_region_size(height, width, max(1, height // n_win), max(1, width // n_win))
    else:
        grid = RegionGrid.of(height, width, n_win)
    return Problem(batch, heads, channels, grid, draw.randint(1, 10), mask_padding=not released)


def assert_backend_agrees(
    problem: Problem, seed: int, backend: str, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> None:
    """Compare a backend with the float32 reference, forward and backward: to 1e-4, and to 2e-2 in half precision."""
    inputs = problem.qkv(seed, dtype, device)
    exact = [x.detach().float().requires_grad_() for x in inputs]
    idx = problem.route(inputs[0], inputs[1])
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    wanted = problem.run(exact, idx, "reference")
    for ours, reference in zip(problem.run(inputs, idx, backend), wanted, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float(), reference, rtol=tolerance, atol=tolerance)
