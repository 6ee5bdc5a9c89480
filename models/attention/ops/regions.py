"""Cutting a map into regions and putting it together again.

Shape letters: B images, C channels, H x W tokens of the map, R regions, T tokens of a region.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def ceil_div(value: int, divisor: int) -> int:
    """Whole-number division, rounded up."""
    return (value + divisor - 1) // divisor


@dataclass(frozen=True)
class RegionGrid:
    """How a map of ``height`` x ``width`` tokens lies in ``rows`` x ``cols`` equal regions.

    Regions count row by row from the top left. Together they may reach beyond the map at the bottom and the right;
    what lies there is padding.
    """

    height: int
    width: int
    rows: int
    cols: int
    region_h: int
    region_w: int

    @classmethod
    def of(cls, height: int, width: int, n_win: int) -> RegionGrid:
        """``n_win`` regions a side, their size rounded up; a side below ``n_win`` tokens gets a region per token."""
        rows = n_win if height >= n_win else height
        cols = n_win if width >= n_win else width
        return cls(height, width, rows, cols, ceil_div(height, rows), ceil_div(width, cols))

    @classmethod
    def of_region_size(cls, height: int, width: int, region_h: int, region_w: int) -> RegionGrid:
        """As many regions of the given size as it takes to cover the map."""
        return cls(height, width, ceil_div(height, region_h), ceil_div(width, region_w), region_h, region_w)

    @property
    def regions(self) -> int:
        """R, regions in all, those of padding alone included."""
        return self.rows * self.cols

    @property
    def tokens(self) -> int:
        """T, tokens of one region, padding included."""
        return self.region_h * self.region_w

    @property
    def padded_hw(self) -> tuple[int, int]:
        """Height and width of all regions together."""
        return self.rows * self.region_h, self.cols * self.region_w

    @property
    def is_symbolic(self) -> bool:
        """Whether the map's size stays open, as in an export with dynamic shapes: no decision may hang on it then."""
        return isinstance(self.height, torch.SymInt) or isinstance(self.width, torch.SymInt)

    @property
    def is_padded(self) -> bool:
        """Whether the regions reach, or for an open size may reach, beyond the map."""
        return self.is_symbolic or self.padded_hw != (self.height, self.width)

    @property
    def filled_regions(self) -> int:
        """Regions with at least one token of the map; for an open size all, as any might have one."""
        if self.is_symbolic:
            return self.regions
        return ceil_div(self.height, self.region_h) * ceil_div(self.width, self.region_w)

    @property
    def has_empty_regions(self) -> bool:
        """Whether some regions are, or for an open size may be, padding alone."""
        return self.is_symbolic or self.filled_regions < self.regions


def to_regions(x: Tensor, grid: RegionGrid) -> Tensor:
    """Cut a map into regions, padding it with zeros where it does not fill them.

    Args:
        x: (B, C, H, W); quickest with the channels last in memory.
        grid: the regions of an H x W map.

    Returns:
        (B, R, T, C); the inverse is :func:`from_regions`.
    """
    batch, channels = x.shape[:2]
    if grid.is_padded:
        padded_h, padded_w = grid.padded_hw
        x = F.pad(x, (0, padded_w - grid.width, 0, padded_h - grid.height))
    cut = x.unflatten(3, (grid.cols, grid.region_w)).unflatten(2, (grid.rows, grid.region_h))
    # (B, C, rows, h, cols, w) -> (B, rows, cols, h, w, C) -> (B, R, T, C)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, grid.regions, grid.tokens, channels)


def from_regions(regions: Tensor, grid: RegionGrid) -> Tensor:
    """Put regions together to a map and cut the padding off.

    Args:
        regions: (B, R, T, C), as :func:`to_regions` gives them.
        grid: the regions of an H x W map.

    Returns:
        (B, C, H, W), the channels last in memory.
    """
    batch, channels = regions.shape[0], regions.shape[-1]
    if grid.is_symbolic:  # merging axes of open size is refused by torch.export, picking tokens one by one is not
        tokens = regions.reshape(batch, grid.regions * grid.tokens, channels).index_select(
            1, _token_places(grid, regions.device)
        )
        return tokens.reshape(batch, grid.height, grid.width, channels).permute(0, 3, 1, 2)
    laid = regions.reshape(batch, grid.rows, grid.cols, grid.region_h, grid.region_w, channels)
    # (B, rows, cols, h, w, C) -> (B, rows, h, cols, w, C) -> (B, H, W, C): whole rows of w * C numbers are moved
    whole = laid.transpose(2, 3).reshape(batch, *grid.padded_hw, channels)
    return whole[:, : grid.height, : grid.width].permute(0, 3, 1, 2)


def is_recorded() -> bool:
    """Whether a graph is made of what runs, or torch.func transforms it: then only common operations will do."""
    transformed = torch._C._are_functorch_transforms_active()
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or transformed


def in_format_of(x: Tensor, like: Tensor) -> Tensor:
    """Lay a map out in memory as another one is: channels last, or else channels first.

    Args:
        x: (B, C, H, W).
        like: a map whose memory format is wanted.
    """
    last = like.is_contiguous(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def is_turned_slowly(x: Tensor, like: Tensor) -> bool:
    """Whether :func:`in_format_of` would copy number by number, as torch does on the CPU from channels last to first.

    Args:
        x: (B, C, H, W), channels last in memory.
        like: a map whose memory format is wanted.
    """
    return x.device.type == "cpu" and not is_recorded() and not like.is_contiguous(memory_format=torch.channels_last)


def _token_places(grid: RegionGrid, device: torch.device) -> Tensor:
    """Where each token of the map, row by row, stands among all tokens region by region: (H*W,) int64."""
    y = torch.arange(grid.height, device=device)[:, None]
    x = torch.arange(grid.width, device=device)[None, :]
    row, col = y // grid.region_h, x // grid.region_w
    # Remainders written out, as ONNX has none by a number that stays open
    slot = (y - row * grid.region_h) * grid.region_w + (x - col * grid.region_w)
    return ((row * grid.cols + col) * grid.tokens + slot).flatten()


def real_tokens(grid: RegionGrid, device: torch.device) -> Tensor:
    """Which tokens of which region belong to the map: (R, T) bool, False for padding."""
    padded_h, padded_w = grid.padded_hw
    in_rows = torch.arange(padded_h, device=device) < grid.height
    in_cols = torch.arange(padded_w, device=device) < grid.width
    inside = in_rows[:, None] & in_cols[None, :]
    cut = inside.reshape(grid.rows, grid.region_h, grid.cols, grid.region_w)
    return cut.permute(0, 2, 1, 3).reshape(grid.regions, grid.tokens)
