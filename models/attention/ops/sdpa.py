"""Bi-level routing attention on torch's fused attention, with bounded memory, on any device.

A routed region is one row of region-major tokens: keys and values come by ``index_select`` of whole rows rather than by
gathers over copies. Regions are worked on in chunks; where there is more than one, training recomputes a chunk in its
backward pass instead of keeping the copies of its keys and values, so that memory does not grow with ``topk``.

Where every region looks at all others, keys and values are copied once and not ``topk`` times. And on the CPU
:mod:`models.attention.ops.sdpa_cpu` does the same with less work.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.attention.ops.regions import RegionGrid, from_regions, real_tokens
from models.attention.ops.sdpa_cpu import add_attention_, attend_rows_cpu, serves
from models.attention.ops.settings import AttentionSettings

CHUNK_BYTES = 256 * 2**20  # keys, values and (should torch not avoid them) logits of one chunk


def attend_sdpa(
    qkv: Tensor,
    idx: Tensor,
    region: RegionGrid,
    settings: AttentionSettings,
    chunk_bytes: int | None = None,
) -> Tensor:
    """Attention over routed regions by ``scaled_dot_product_attention``.

    Arguments and result are those of :func:`models.attention.ops.dispatch.attend_regions`; ``chunk_bytes`` bounds the
    working memory, by default to :data:`CHUNK_BYTES`, on the CPU to what its caches hold.
    """
    given = qkv.shape[:3]
    packed, routed, mask = _as_rows(qkv, idx, region, settings)
    if serves(packed):
        mixed = attend_rows_cpu(packed, routed, mask, settings.scale, chunk_bytes)
    elif region.is_symbolic:  # the number of chunks cannot be known
        mixed = _attend_rows(packed[:, :, 0], packed[:, :, 1:], routed, mask, settings.scale)
    else:
        mixed = _attend_in_chunks(packed, routed, mask, settings.scale, chunk_bytes or CHUNK_BYTES)
    return mixed.reshape(*given, -1)


def can_add_sdpa(total: Tensor, qkv: Tensor) -> bool:
    """Whether :func:`add_sdpa_` can serve these: inference on a CPU, with at least one image."""
    records = torch.is_grad_enabled() and (total.requires_grad or qkv.requires_grad)
    return serves(qkv) and not records and total.dtype == qkv.dtype and len(qkv) > 0


def add_sdpa_(total: Tensor, qkv: Tensor, idx: Tensor, region: RegionGrid, settings: AttentionSettings) -> None:
    """Add what :func:`attend_sdpa` gives to a map (B, C, H, W) in place, where :func:`can_add_sdpa`."""
    packed, routed, mask = _as_rows(qkv, idx, region, settings)
    # One row an image lies nowhere on the map. And whole strips of regions are worked on: with a larger topk they would
    # copy more than all keys and values
    if len(packed) == len(qkv) * region.regions and routed.shape[1] <= region.rows:
        add_attention_(total, packed, routed, mask, settings.scale, region)
    else:
        mixed = attend_rows_cpu(packed, routed, mask, settings.scale).reshape(*qkv.shape[:3], -1)
        total += from_regions(mixed, region)


def _as_rows(
    qkv: Tensor, idx: Tensor, region: RegionGrid, settings: AttentionSettings
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tokens of regions as rows (rows, T, 3, M, D), the rows each looks at (rows, topk), and where there are keys.

    That mask is (rows, 1, 1, topk*T), or None for everywhere. Where all regions look at all, an image is one row.
    """
    real = real_tokens(region, qkv.device) if settings.mask_padding and region.is_padded else None  # (R, T)
    if idx.shape[-1] >= region.filled_regions and not region.is_symbolic:
        qkv, idx = qkv.flatten(1, 2)[:, None], idx.new_zeros(len(idx), 1, 1)
        real = None if real is None else real.reshape(1, -1)
    batch, regions, tokens, _ = qkv.shape
    rows, topk = batch * regions, idx.shape[-1]
    packed = qkv.reshape(rows, tokens, 3, settings.num_heads, -1)
    first_row = torch.arange(batch, device=idx.device)[:, None, None] * regions
    mask = None if real is None else real[idx].reshape(rows, 1, 1, topk * tokens)
    return packed, (idx + first_row).reshape(rows, topk), mask


def _attend_in_chunks(packed: Tensor, routed: Tensor, mask: Tensor | None, scale: float, budget: int) -> Tensor:
    """Attention of all rows (rows, T, 3, M, D), some at a time: (rows, T, M, D)."""
    rows, tokens, _, heads, _ = packed.shape
    token_bytes = packed[0, 0, 0].numel() * packed.element_size()
    row_step, token_step = _chunk_sizes(rows, tokens, routed.shape[1], heads, token_bytes, budget)
    recompute = (row_step < rows or token_step < tokens) and torch.is_grad_enabled() and packed.requires_grad
    queries, keys_values = packed[:, :, 0], packed[:, :, 1:]
    row_chunks = []
    for row in range(0, rows, row_step):
        here = slice(row, row + row_step)
        mask_here = None if mask is None else mask[here]
        token_chunks = []
        for token in range(0, tokens, token_step):
            inputs = (queries[here, token : token + token_step], keys_values, routed[here], mask_here, scale)
            token_chunks.append(
                checkpoint(_attend_rows, *inputs, use_reentrant=False, preserve_rng_state=False)
                if recompute
                else _attend_rows(*inputs)
            )
        row_chunks.append(_joined(token_chunks))
    return _joined(row_chunks, dim=0)


def _attend_rows(queries: Tensor, keys_values: Tensor, routed: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of n regions' queries (n, t, M, D) to rows ``routed`` (n, topk) of (rows, T, 2, M, D)."""
    count, topk = routed.shape
    near = keys_values.index_select(0, routed.reshape(-1))
    # (n*topk, T, 2, M, D) -> (n, topk*T, 2, M, D) -> twice (n, M, topk*T, D), which are views
    keys, values = near.reshape(count, topk * near.shape[1], *near.shape[2:]).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(queries.transpose(1, 2), keys, values, attn_mask=mask, scale=scale)
    return mixed.transpose(1, 2)


def _chunk_sizes(rows: int, tokens: int, topk: int, num_heads: int, token_bytes: int, budget: int) -> tuple[int, int]:
    """Regions, and query tokens of each, to work on at once: whole regions, or parts of one that is too big."""
    key_tokens = topk * tokens
    copies = 2 * key_tokens * token_bytes
    logits_of_token = 4 * num_heads * key_tokens
    a_region = copies + tokens * logits_of_token
    if a_region <= budget:
        return min(rows, budget // a_region), tokens
    return 1, min(tokens, max(1, (budget - copies) // logits_of_token))


def _joined(parts: list[Tensor], dim: int = 1) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)
