"""Attention inside tiles of a map, each a rectangle of tokens side by side or a constant distance apart.

Windows, stripes and dilated windows are all cut this way, one axis at a time: blocks of ``tile * step`` tokens follow
each other, and inside a block every ``step``-th token belongs to the same tile. Where blocks reach beyond the map,
what lies there is padding, which no query sees.

Shapes: B images, H x W tokens of a map, N tiles of T tokens, M heads of D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention.ops.regions import ceil_div


@dataclass(frozen=True)
class Cut:
    """How one side of a map is cut: ``length`` tokens into tiles of ``tile`` tokens that lie ``step`` apart.

    The first block begins ``before`` tokens outside the map.
    """

    length: int
    tile: int
    step: int = 1
    before: int = 0

    @property
    def blocks(self) -> int:
        """Blocks of ``tile * step`` tokens that it takes to cover the side."""
        return ceil_div(self.before + self.length, self.tile * self.step)

    @property
    def padded(self) -> int:
        """Tokens of all blocks together."""
        return self.blocks * self.tile * self.step

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The axis as three: block, place in the tile, tile of the block."""
        return self.blocks, self.tile, self.step

    @property
    def is_open(self) -> bool:
        """Whether the length stays open, as in an export with dynamic shapes: no decision may hang on it then."""
        return isinstance(self.length, torch.SymInt)

    @property
    def fits(self) -> bool:
        """Whether the blocks hold no padding; False for an open length, which may need some."""
        return not self.is_open and self.padded == self.length


def at_most(tile: int, length: int) -> int:
    """A tile's side, not above that of the map; as it is where an export leaves the map's open."""
    return tile if isinstance(length, torch.SymInt) else min(tile, length)


def attend_in_tiles(qkv: Tensor, rows: Cut, cols: Cut, scale: float) -> Tensor:
    """Let each token attend to the tokens of its tile.

    Args:
        qkv: (B, H, W, 3, M, D): queries, keys and values.
        rows: how the H rows are cut.
        cols: how the W columns are cut.
        scale: factor on the logits.

    Returns:
        (B, H, W, M, D).
    """
    batch, heads = qkv.shape[0], qkv.shape[4]
    tiles = to_tiles(qkv.flatten(3), rows, cols)  # (B, N, T, 3C)
    q, k, v = tiles.flatten(0, 1).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # (B*N, M, T, D) each
    mask = None
    if not (rows.fits and cols.fits):
        mask = visible_keys(rows, cols, qkv.device).repeat(batch, 1)[:, None, None, :]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    mixed = mixed.transpose(1, 2).flatten(2).unflatten(0, (batch, tiles.shape[1]))  # (B, N, T, C)
    return from_tiles(mixed, rows, cols).unflatten(3, (heads, -1))


def to_tiles(x: Tensor, rows: Cut, cols: Cut) -> Tensor:
    """Cut a map into tiles: (B, H, W, K) -> (B, N, T, K). Padding holds zeros; in open sizes, copies of the border."""
    if rows.is_open or cols.is_open:
        return _picked_tiles(x, rows, cols)
    if not (rows.fits and cols.fits):
        below, right = (cut.padded - cut.before - cut.length for cut in (rows, cols))
        x = F.pad(x, (0, 0, cols.before, right, rows.before, below))
    cut = x.unflatten(2, cols.sizes).unflatten(1, rows.sizes)
    # (B, rows: block, place, tile, cols: block, place, tile, K) -> (B, block, tile, block, tile, place, place, K)
    return cut.permute(0, 1, 3, 4, 6, 2, 5, 7).flatten(5, 6).flatten(1, 4)


def from_tiles(tiles: Tensor, rows: Cut, cols: Cut) -> Tensor:
    """Put tiles together to a map and cut the padding off; the inverse of :func:`to_tiles`."""
    if rows.is_open or cols.is_open:
        return _picked_map(tiles, rows, cols)
    apart = tiles.unflatten(2, (rows.tile, cols.tile)).unflatten(1, (rows.blocks, rows.step, cols.blocks, cols.step))
    whole = apart.permute(0, 1, 5, 2, 3, 6, 4, 7).flatten(4, 6).flatten(1, 3)  # (B, padded H, padded W, K)
    return whole[:, rows.before : rows.before + rows.length, cols.before : cols.before + cols.length]


def visible_keys(rows: Cut, cols: Cut, device: torch.device) -> Tensor:
    """Which tokens of which tile are keys: (N, T) bool.

    Those of the map are. In a tile of padding alone all are, as a softmax over nothing is not a number and would reach
    the gradients; its result is cut off.
    """
    if rows.is_open or cols.is_open:
        y, x = _token_of_slot(rows, cols, device)
        inside = (y >= 0) & (y < rows.length) & (x >= 0) & (x < cols.length)
        real = inside.reshape(rows.blocks * rows.step * cols.blocks * cols.step, rows.tile * cols.tile)
    else:
        real = to_tiles(torch.ones(1, rows.length, cols.length, 1, device=device), rows, cols)[0, :, :, 0] > 0
    return real | ~real.any(dim=1, keepdim=True)


# torch.export refuses to split and merge axes of open size. Picking tokens one by one does the same, only slower.


def _picked_tiles(x: Tensor, rows: Cut, cols: Cut) -> Tensor:
    y, column = _token_of_slot(rows, cols, x.device)
    token = y.clamp(0, rows.length - 1) * cols.length + column.clamp(0, cols.length - 1)
    tiles, tokens = rows.blocks * rows.step * cols.blocks * cols.step, rows.tile * cols.tile
    return x.flatten(1, 2).index_select(1, token).reshape(x.shape[0], tiles, tokens, x.shape[3])


def _picked_map(tiles: Tensor, rows: Cut, cols: Cut) -> Tensor:
    y, x = _divided(torch.arange(rows.length * cols.length, device=tiles.device), cols.length)
    tile_row, place_row = _slot_of_token(y, rows)
    tile_col, place_col = _slot_of_token(x, cols)
    tile = tile_row * (cols.blocks * cols.step) + tile_col
    slot = tile * (rows.tile * cols.tile) + place_row * cols.tile + place_col
    return tiles.flatten(1, 2).index_select(1, slot).reshape(tiles.shape[0], rows.length, cols.length, tiles.shape[3])


def _token_of_slot(rows: Cut, cols: Cut, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of what each place of each tile holds, also outside the map: (N*T,) each."""
    tiles, tokens = rows.blocks * rows.step * cols.blocks * cols.step, rows.tile * cols.tile
    tile, place = _divided(torch.arange(tiles * tokens, device=device), tokens)
    coordinates = []
    for cut, tile_on_axis, place_on_axis in zip(
        (rows, cols), _divided(tile, cols.blocks * cols.step), _divided(place, cols.tile), strict=True
    ):
        block, of_block = _divided(tile_on_axis, cut.step)
        coordinates.append((block * cut.tile + place_on_axis) * cut.step + of_block - cut.before)
    return coordinates[0], coordinates[1]


def _slot_of_token(token: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
    """Tile and place in it of tokens on one axis."""
    far, of_block = _divided(token + cut.before, cut.step)
    block, place = _divided(far, cut.tile)
    return block * cut.step + of_block, place


def _divided(value: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Quotient and rest; ONNX knows no remainder by an open size."""
    quotient = value // by
    return quotient, value - quotient * by
