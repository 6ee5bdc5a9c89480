"""The part of the ``sdpa`` backend that runs on a CPU: chunks that fit its caches, and no work done twice.

Copying the keys and values of all regions at once costs more than attending to them, as every page of such a copy is
new memory. Here a few regions at a time are copied, which stays in the caches, and head by head, so that the tokens of
a head lie side by side: small products are up to half again as fast then. The backward pass copies them again, but goes
on from the softmax sums of the forward pass instead of attending a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention.ops.regions import RegionGrid, is_recorded

CHUNK_BYTES_PER_THREAD = 2 * 2**20  # keys and values of one chunk: about the second-level cache of a core
# What torch's own scaled_dot_product_attention calls on a CPU. It keeps the sums that the backward pass needs to itself
_FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
_BACKWARD = f"{_FORWARD}_backward"


def serves(packed: Tensor) -> bool:
    """Whether this file's functions are the ones to use: on a CPU, run as it is and not recorded for a graph."""
    return packed.device.type == "cpu" and not is_recorded() and hasattr(torch.ops.aten, _BACKWARD)


def attend_rows_cpu(
    packed: Tensor, routed: Tensor, mask: Tensor | None, scale: float, chunk_bytes: int | None = None
) -> Tensor:
    """Attention of every row's queries to the keys and values of the rows it is routed to.

    Args:
        packed: (rows, T, 3, M, D), queries, keys and values of T tokens in M heads.
        routed: (rows, topk), the rows that each row looks at.
        mask: (rows, 1, 1, topk*T), True where there is a key; None for everywhere.
        scale: factor on the logits.
        chunk_bytes: most bytes of keys and values copied at a time; None for what the caches hold.

    Returns:
        (rows, T, M, D).
    """
    packed = packed.contiguous()  # the kernels below take the numbers of a head to be neighbours, and do not check
    step = _rows_at_once(packed, routed, chunk_bytes)
    if torch.is_grad_enabled() and packed.requires_grad:
        return _RoutedRows.apply(packed, routed, mask, scale, step)
    return torch.cat(list(_attended(packed, routed, mask, scale, _chunks(len(packed), step))))


def add_attention_(
    total: Tensor, packed: Tensor, routed: Tensor, mask: Tensor | None, scale: float, grid: RegionGrid
) -> None:
    """Add what :func:`attend_rows_cpu` gives to a map: row by row of regions, while they are still in the caches.

    ``total`` is (B, C, H, W) and changed in place; no gradients reach it. ``grid`` says how the regions, each a row of
    ``packed``, lie on it. The others are those of :func:`attend_rows_cpu`.
    """
    packed = packed.contiguous()
    strips = min(grid.rows, max(1, _rows_at_once(packed, routed) // grid.cols))  # rows of regions at a time
    chunks = [
        slice(image * grid.regions + here.start * grid.cols, image * grid.regions + here.stop * grid.cols)
        for image in range(len(total))
        for here in _chunks(grid.rows, strips)
    ]
    total = total.permute(0, 2, 3, 1)  # (B, H, W, C)
    for here, mixed in zip(chunks, _attended(packed, routed, mask, scale, chunks), strict=True):
        image, first = divmod(here.start, grid.regions)
        top = first // grid.cols * grid.region_h
        # (n, T, M, D) -> (n / cols, h, cols, w, C)
        cut = mixed.reshape(-1, grid.cols, grid.region_h, grid.region_w, total.shape[3]).transpose(1, 2)
        strip = total[image, top : top + len(cut) * grid.region_h]  # (at most n / cols * h, W, C)
        if grid.is_padded:
            strip += cut.reshape(-1, grid.cols * grid.region_w, total.shape[3])[: len(strip), : grid.width]
        else:
            strip.view(cut.shape).add_(cut)


def _rows_at_once(packed: Tensor, routed: Tensor, chunk_bytes: int | None = None) -> int:
    """How many rows to work on, so that the keys and values they look at take no more than ``chunk_bytes``."""
    a_row = routed.shape[1] * packed[0, :, 1:].numel() * packed.element_size()
    budget = CHUNK_BYTES_PER_THREAD * torch.get_num_threads() if chunk_bytes is None else chunk_bytes
    return max(1, budget // max(a_row, 1))


def _attended(
    packed: Tensor, routed: Tensor, mask: Tensor | None, scale: float, chunks: list[slice]
) -> Iterator[Tensor]:
    """Attention of each chunk of rows (n, T, M, D), without gradients."""
    heads, places = _by_head(packed), _places_by_head(routed, packed.shape[3])
    most = max(here.stop - here.start for here in chunks)
    room = heads.new_empty(most * places[0].numel(), heads.shape[1])  # for all chunks: new memory costs time
    for here in chunks:
        keys, values = _near(heads, places[here], packed.shape[4], room)
        mask_here = None if mask is None else mask[here]
        queries = packed[here, :, 0].transpose(1, 2)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask_here, scale=scale)
        yield mixed.transpose(1, 2)


class _RoutedRows(torch.autograd.Function):
    """:func:`attend_rows_cpu` with a backward pass of its own; keeps the packed rows, the result and its sums."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, routed: Tensor, mask: Tensor | None, scale: float, step: int) -> Tensor:
        attend = getattr(torch.ops.aten, _FORWARD)
        heads, places = _by_head(packed), _places_by_head(routed, packed.shape[3])
        bias = None if mask is None else _as_bias(mask, torch.promote_types(packed.dtype, torch.float32))
        parts, sums = [], []
        for here in _chunks(len(packed), step):
            queries, keys, values = map(_wide, (packed[here, :, 0], *_near(heads, places[here], packed.shape[4])))
            bias_here = None if bias is None else bias[here]
            mixed, logsumexp = attend(queries.transpose(1, 2), keys, values, attn_mask=bias_here, scale=scale)
            parts.append(mixed.transpose(1, 2).to(packed.dtype))
            sums.append(logsumexp)
        out = torch.cat(parts)
        ctx.save_for_backward(packed, places, bias, out, torch.cat(sums))
        ctx.scale, ctx.step = scale, step
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Torch's operator below has no derivative and says so where a second one is asked for
        packed, places, bias, out, sums = ctx.saved_tensors
        differentiate = getattr(torch.ops.aten, _BACKWARD)
        heads, grad = _by_head(packed), grad.contiguous()
        # Keys and values gather sums over many regions: not in half precision
        gathered = _wide(torch.zeros_like(heads))
        result = torch.empty_like(packed)
        for here in _chunks(len(packed), ctx.step):
            queries, mixed, grad_here = (_wide(x).transpose(1, 2) for x in (packed[here, :, 0], out[here], grad[here]))
            keys, values = map(_wide, _near(heads, places[here], packed.shape[4]))
            bias_here = None if bias is None else bias[here]
            grad_queries, *grad_near = differentiate(
                grad_here, queries, keys, values, mixed, sums[here], 0.0, False, attn_mask=bias_here, scale=ctx.scale
            )
            result[here, :, 0] = grad_queries.transpose(1, 2)
            # twice (n, M, topk*T, D) -> (n*2*M*topk, T*D), as the places count
            source = torch.stack([part.contiguous() for part in grad_near], dim=1).reshape(-1, heads.shape[1])
            gathered.index_add_(0, places[here].flatten(), source)
        rows, tokens, _, num_heads, width = packed.shape
        result[:, :, 1:] = gathered.view(rows, 2, num_heads, tokens, width).permute(0, 3, 1, 2, 4)
        return result, None, None, None, None


def _by_head(packed: Tensor) -> Tensor:
    """Keys and values of every row with a head's tokens side by side: (rows, T, 3, M, D) -> (rows*2*M, T*D)."""
    rows, tokens, _, heads, width = packed.shape
    return packed[:, :, 1:].permute(0, 2, 3, 1, 4).contiguous().view(rows * 2 * heads, tokens * width)


def _places_by_head(routed: Tensor, heads: int) -> Tensor:
    """Where :func:`_by_head` puts the keys and values that each row looks at: (rows, topk) -> (rows, 2*M, topk)."""
    return routed[:, None] * (2 * heads) + torch.arange(2 * heads, device=routed.device)[:, None]


def _near(heads: Tensor, places: Tensor, width: int, room: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Keys and values of the rows that n rows look at, each (n, M, topk*T, D), in one copy; ``room`` is for that."""
    count, parts, _ = places.shape
    out = None if room is None else room[: places.numel()]
    near = torch.index_select(heads, 0, places.flatten(), out=out)  # (n*2*M*topk, T*D)
    keys, values = near.view(count, 2, parts // 2, -1, width).unbind(1)
    return keys, values


def _wide(x: Tensor) -> Tensor:
    """Half precision as float32: torch's backward pass for halves is the slower one on CPUs, and rounds more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _as_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what is added to the logits."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))


def _chunks(rows: int, step: int) -> list[slice]:
    return [slice(row, min(row + step, rows)) for row in range(0, rows, step)]
