"""The ``triton`` backend: the kernels as an operator of torch, with its gradient.

As an operator the kernels are opaque to ``torch.compile``, which therefore neither breaks its graph at them nor looks
inside. :mod:`models.attention.ops.triton_kernels` says what they do. Nothing imports this file before it is used.

The backward pass keeps queries, keys and values, the result and one number a query and head: memory is linear in the
number of tokens, whatever ``topk`` is.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from models.attention.ops.regions import RegionGrid, ceil_div
from models.attention.ops.settings import AttentionSettings
from models.attention.ops.triton_kernels import attend_kernel, grad_keys_values_kernel, grad_queries_kernel

_MOST_TOKENS, _LEAST_TOKENS = 64, 16  # of a tile; tensor cores multiply nothing smaller than 16
# Tokens x numbers x (bytes each)^2 of a tile that the registers of a program hold. Squared, as float32 products in full
# precision, which tensor cores do not make, take twice the registers besides
_REGISTERS = 2**14
_WALKED_TOKENS = 32  # at a time; half of it for heads of more than 256 bytes
_WARPS = 4
_LOG2_E = 1 / math.log(2)

_SETTINGS = "int[] region, int num_heads, float scale, bool masked"


def attend_triton(qkv: Tensor, idx: Tensor, region: RegionGrid, settings: AttentionSettings) -> Tensor:
    """Attention over routed regions by kernels that walk them where they are.

    Arguments and result are those of :func:`models.attention.ops.dispatch.attend_regions`.
    """
    batch, regions, tokens, width = qkv.shape
    first_row = torch.arange(batch, device=idx.device)[:, None, None] * regions
    routed = (idx + first_row).flatten(0, 1)
    sides = [region.regions, region.cols, region.region_h, region.region_w, region.height, region.width]
    masked = settings.mask_padding and region.is_padded
    # Operators of torch take plain numbers
    mixed, _ = _attend(
        qkv.reshape(batch * regions, tokens, width), routed, sides, settings.num_heads, settings.scale, masked
    )
    return mixed.view(batch, regions, tokens, width // 3)


@torch.library.custom_op(
    "bi_level_routing::attend", mutates_args=(), schema=f"(Tensor qkv, Tensor routed, {_SETTINGS}) -> (Tensor, Tensor)"
)
def _attend(
    qkv: Tensor, routed: Tensor, region: list[int], num_heads: int, scale: float, masked: bool
) -> tuple[Tensor, Tensor]:
    """Attention of rows (rows, T, 3C) to those they are ``routed`` to (rows, topk): result and softmax sums."""
    qkv, routed = qkv.contiguous(), routed.contiguous()
    rows, tokens, _ = qkv.shape
    topk = routed.shape[1]
    out, sums = _like_result(qkv, num_heads)
    tiling = _tiling(qkv, num_heads, topk * tokens, masked)
    with torch.cuda.device_of(qkv):
        attend_kernel[(_programs(rows, tokens, num_heads, tiling),)](
            qkv, routed, out, sums, scale * _LOG2_E, tokens, topk, num_heads, *region, **tiling
        )  # fmt: skip
    return out, sums


@torch.library.custom_op(
    "bi_level_routing::attend_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor qkv, Tensor routed, Tensor out, Tensor sums, {_SETTINGS}) -> Tensor",
)
def _attend_backward(
    grad: Tensor,
    qkv: Tensor,
    routed: Tensor,
    out: Tensor,
    sums: Tensor,
    region: list[int],
    num_heads: int,
    scale: float,
    masked: bool,
) -> Tensor:
    """Gradient of the packed rows, (rows, T, 3C)."""
    grad, qkv, routed = grad.contiguous(), qkv.contiguous(), routed.contiguous()
    rows, tokens, _ = qkv.shape
    topk = routed.shape[1]
    deltas, grad_qkv = torch.empty_like(sums), torch.empty_like(qkv)
    lookers, bounds = lookers_of(routed)
    with torch.cuda.device_of(qkv):
        tiling = _tiling(qkv, num_heads, topk * tokens, masked)
        programs = (_programs(rows, tokens, num_heads, tiling),)
        grad_queries_kernel[programs](
            qkv, routed, out, sums, grad, deltas, grad_qkv, scale, scale * _LOG2_E, tokens, topk, num_heads, *region,
            **tiling,
        )  # fmt: skip
        tiling = _tiling(qkv, num_heads, rows * topk * tokens, masked)
        grad_keys_values_kernel[programs](
            qkv, lookers, bounds, sums, grad, deltas, grad_qkv, scale, scale * _LOG2_E, tokens, num_heads, *region,
            **tiling,
        )  # fmt: skip
    return grad_qkv


def lookers_of(routed: Tensor) -> tuple[Tensor, Tensor]:
    """Turn "which rows does a row look at" around.

    Args:
        routed: (rows, topk) int64.

    Returns:
        lookers (rows * topk,) and bounds (rows + 1,), int64: row r is looked at by the rows
        ``lookers[bounds[r]:bounds[r + 1]]``, in ascending order.
    """
    rows, topk = routed.shape
    seen, order = routed.flatten().sort(stable=True)
    return order // topk, torch.searchsorted(seen, torch.arange(rows + 1, device=routed.device))


@_attend.register_fake
def _shapes(qkv: Tensor, routed: Tensor, region: list[int], num_heads: int, *_: Any) -> tuple[Tensor, Tensor]:
    return _like_result(qkv, num_heads)


@_attend_backward.register_fake
def _backward_shapes(grad: Tensor, qkv: Tensor, *_: Any) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, routed, *ctx.settings = inputs
    ctx.save_for_backward(qkv, routed, *output)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    result = None if grad is None else _attend_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return result, None, None, None, None, None


_attend.register_autograd(_differentiate, setup_context=_keep)


def _like_result(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Room for the result (rows, T, C) and the softmax sums (rows, M, T)."""
    rows, tokens, width = qkv.shape
    return qkv.new_empty(rows, tokens, width // 3), qkv.new_empty(rows, num_heads, tokens, dtype=torch.float32)


def _tiling(qkv: Tensor, num_heads: int, walked: int, masked: bool) -> dict[str, Any]:
    """Sizes of a program's tiles: tokens it owns, tokens that it walks at a time, and what else is known beforehand."""
    head, size = qkv.shape[2] // (3 * num_heads), qkv.element_size()
    block_d = max(_LEAST_TOKENS, triton.next_power_of_2(head))
    walk = _WALKED_TOKENS if block_d * size <= 256 else _WALKED_TOKENS // 2
    return {
        "HEAD": head,
        "BLOCK_D": block_d,
        "OWN": _tile_of(qkv.shape[1], most=_REGISTERS // (block_d * size**2)),
        "WALK": max(_LEAST_TOKENS, min(walk, triton.next_power_of_2(walked))),
        "MASKED": masked,
        "PRECISION": _precision(qkv.dtype),
        "num_warps": _WARPS,
        "num_stages": 2,  # loading further ahead takes room that small GPUs do not have
        "enable_fp_fusion": True,
    }


def _tile_of(tokens: int, most: int) -> int:
    """Tokens that a program owns: as many as can be, unless the last program of a region would idle for it."""
    sizes = [size for size in (64, 32, 16) if size <= max(_LEAST_TOKENS, min(most, _MOST_TOKENS))]
    computed = {size: ceil_div(tokens, size) * size for size in sizes}
    return next(size for size in sizes if computed[size] <= 1.2 * min(computed.values()))


def _precision(dtype: torch.dtype) -> str:
    if dtype == torch.bfloat16 and not isinstance(attend_kernel, triton.JITFunction):
        return "wide"  # triton's interpreter takes bfloat16 for whole numbers when it multiplies
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"


def _programs(rows: int, tokens: int, num_heads: int, tiling: dict[str, Any]) -> int:
    return rows * num_heads * ceil_div(tokens, tiling["OWN"])
