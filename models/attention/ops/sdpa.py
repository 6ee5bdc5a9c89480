"""Bi-level routing attention on torch's fused attention, with bounded memory, on any device.

Maps are laid out region by region, so that a routed region is one row: keys and values come by ``index_select`` of
whole rows rather than by gathers over copies. Regions are worked on in chunks; where there is more than one, training
recomputes a chunk in its backward pass instead of keeping the copies of its keys and values, so that memory does not
grow with ``topk``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.attention.ops.regions import RegionGrid, from_regions, real_tokens, to_regions

CHUNK_BYTES = 256 * 2**20  # keys, values and (should torch not avoid them) logits of one chunk


def attend_sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    idx: Tensor,
    region: RegionGrid,
    *,
    num_heads: int,
    scale: float,
    mask_padding: bool,
    chunk_bytes: int = CHUNK_BYTES,
) -> Tensor:
    """Attention over routed regions by ``scaled_dot_product_attention``.

    Arguments and result are those of
    :func:`models.attention.ops.dispatch.bi_level_routing_attention`; ``chunk_bytes`` bounds the working memory.
    """
    batch, channels = q.shape[:2]
    rows, topk = batch * region.regions, idx.shape[-1]
    queries, keys, values = (
        to_regions(x, region).reshape(rows, region.tokens, num_heads, channels // num_heads) for x in (q, k, v)
    )
    first_row = torch.arange(batch, device=idx.device)[:, None, None] * region.regions
    routed = (idx + first_row).reshape(rows, topk)
    mask = None
    if mask_padding and region.is_padded:
        mask = real_tokens(region, q.device)[idx].reshape(rows, 1, 1, topk * region.tokens)

    if region.is_symbolic:  # the number of chunks cannot be known
        out = _attend_rows(queries, keys, values, routed, mask, scale)
        return from_regions(out.reshape(batch, region.regions, region.tokens, channels), region)
    row_step, token_step = _chunk_sizes(rows, region.tokens, topk, num_heads, channels * q.element_size(), chunk_bytes)
    recompute = (row_step < rows or token_step < region.tokens) and _needs_backward(q, k, v)
    row_chunks = []
    for row in range(0, rows, row_step):
        here = slice(row, row + row_step)
        mask_here = None if mask is None else mask[here]
        token_chunks = []
        for token in range(0, region.tokens, token_step):
            part = queries[here, token : token + token_step]
            inputs = (part, keys, values, routed[here], mask_here, scale)
            token_chunks.append(
                checkpoint(_attend_rows, *inputs, use_reentrant=False, preserve_rng_state=False)
                if recompute
                else _attend_rows(*inputs)
            )
        row_chunks.append(_joined(token_chunks))
    return from_regions(_joined(row_chunks, dim=0).reshape(batch, region.regions, region.tokens, channels), region)


def _attend_rows(
    queries: Tensor, keys: Tensor, values: Tensor, routed: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Attention of n regions' queries (n, t, M, D) to rows ``routed`` (n, topk) of keys and values (rows, T, M, D)."""
    count, topk = routed.shape
    near = routed.reshape(-1)
    # (n*topk, T, M, D) -> (n, topk*T, M, D) -> (n, M, topk*T, D); the last step is a view
    near_keys, near_values = (
        x.index_select(0, near).reshape(count, topk * x.shape[1], *x.shape[2:]).transpose(1, 2) for x in (keys, values)
    )
    mixed = F.scaled_dot_product_attention(
        queries.transpose(1, 2), near_keys, near_values, attn_mask=mask, scale=scale
    )  # (n, M, t, D)
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


def _needs_backward(*inputs: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs)


def _joined(parts: list[Tensor], dim: int = 1) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)
