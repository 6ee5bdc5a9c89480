"""The one entry to bi-level routing attention, and the choice of what computes it.

A new backend is a function with the arguments of :func:`attend_regions` (``backend`` apart) and a line in
``_BACKENDS``; if it serves some inputs only, :func:`choose_backend` is the place that says which.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import torch
from torch import Tensor

from models.attention.ops.reference import attend_reference
from models.attention.ops.regions import RegionGrid, from_regions, to_regions
from models.attention.ops.sdpa import add_sdpa_, attend_sdpa, can_add_sdpa
from models.attention.ops.settings import AttentionSettings
from utils.errors import BackendError

ENVIRONMENT_VARIABLE = "YOLO_BRA_BACKEND"
TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TRITON_HEAD_BYTES = 512  # at most: tiles of wider heads do not fit the shared memory of every GPU
_HAS_TRITON = importlib.util.find_spec("triton") is not None
_INTERPRETER = "TRITON_INTERPRET"  # triton's own variable: 1 runs kernels on the CPU, for tests


def _attend_triton(qkv: Tensor, idx: Tensor, region: RegionGrid, settings: AttentionSettings) -> Tensor:
    from models.attention.ops.triton_backend import attend_triton  # noqa: PLC0415 - triton is optional and slow to load

    return attend_triton(qkv, idx, region, settings)


_BACKENDS: dict[str, Callable[..., Tensor]] = {
    "reference": attend_reference,
    "sdpa": attend_sdpa,
    "triton": _attend_triton,
}


def choose_backend(qkv: Tensor, backend: str | None = None, head_width: int = 32) -> str:
    """Say which backend computes the attention of these tokens.

    Left to itself it is ``triton`` on a CUDA device where the kernels serve type and width, and ``sdpa`` elsewhere.

    Args:
        qkv: queries, keys and values; device and type decide when nobody else does.
        backend: a name, or None (or ``auto``) for the environment variable's, and failing that by device.
        head_width: D, channels of a head.

    Raises:
        BackendError: for an unknown name, or when ``triton`` is asked for where it cannot work.
    """
    wanted, source = backend, "the argument backend"
    if wanted is None or wanted == "auto":
        wanted, source = os.environ.get(ENVIRONMENT_VARIABLE, "auto"), f"the variable {ENVIRONMENT_VARIABLE}"
    if wanted in ("", "auto"):
        return _best_backend(qkv, head_width)
    if wanted not in _BACKENDS:
        raise BackendError(
            f"{source} asks for the attention backend {wanted!r}; use auto or one of {', '.join(_BACKENDS)}"
        )
    reason = why_not_triton(qkv, head_width) if wanted == "triton" else None
    if reason:
        raise BackendError(f"{source} asks for the attention backend 'triton', but {reason}; use auto or sdpa")
    return wanted


def _best_backend(qkv: Tensor, head_width: int) -> str:
    if qkv.device.type == "meta":
        return "reference"  # FLOP counts run on this device, and fused kernels hide their products
    if qkv.device.type != "cuda" or _is_exported() or why_not_triton(qkv, head_width):
        return "sdpa"
    return "triton"


def why_not_triton(qkv: Tensor, head_width: int) -> str | None:
    """Say why the Triton kernels cannot serve some tokens.

    Args:
        qkv: queries, keys and values.
        head_width: D, channels of a head.

    Returns:
        The reason, half a sentence; None where they can.
    """
    if not _HAS_TRITON:
        return "triton is not installed (pip install triton)"
    if qkv.dtype not in TRITON_DTYPES:
        return f"it computes in {', '.join(str(dtype).split('.')[1] for dtype in TRITON_DTYPES)} and not in {qkv.dtype}"
    most = TRITON_HEAD_BYTES // qkv.element_size()
    if head_width > most:
        return f"it takes heads of up to {most} channels in {qkv.dtype} and these have {head_width}"
    if qkv.device.type != "cuda":
        interpreted = qkv.device.type == "cpu" and os.environ.get(_INTERPRETER) == "1"
        return None if interpreted else f"it needs a CUDA device and the tokens are on {qkv.device.type}"
    needed = 8 if qkv.dtype == torch.bfloat16 else 7
    found = torch.cuda.get_device_properties(qkv.device).major
    return None if found >= needed else f"{qkv.dtype} takes a GPU of compute capability {needed}.0, this has {found}.x"


def _is_exported() -> bool:
    """Whether a graph is recorded that others than torch will run."""
    exporting = getattr(torch.compiler, "is_exporting", None)  # from torch 2.7
    return torch.jit.is_tracing() or (exporting is not None and exporting())


def bi_level_routing_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    idx: Tensor,
    region: RegionGrid,
    *,
    num_heads: int,
    scale: float,
    mask_padding: bool = True,
    backend: str | None = None,
) -> Tensor:
    """Let the tokens of each region attend to all tokens of the regions it is routed to.

    Per head, ``softmax(scale * q k^T) v``; head m has the channels m*C/M to (m+1)*C/M - 1.

    Args:
        q: queries (B, C, H, W).
        k: keys (B, C, H, W).
        v: values (B, C, H, W).
        idx: (B, R, topk) int64, the regions each region looks at, as
            :func:`models.attention.ops.routing.route_regions` gives them: none twice, and with ``mask_padding`` a
            region of padding alone not first.
        region: how the H x W map lies in R regions.
        num_heads: M, a divisor of C.
        scale: factor on the logits.
        mask_padding: keep keys that padding made out of the softmax; False lets them take part as zeros.
        backend: see :func:`choose_backend`.

    Returns:
        (B, C, H, W) of the inputs' type. Gradients reach q, k and v.

    Raises:
        BackendError: for an unknown backend, or one that cannot serve this input.
        ValueError: when the shapes do not fit together.
    """
    if tuple(q.shape[2:]) != (region.height, region.width):
        raise ValueError(f"queries {tuple(q.shape)} do not belong to {region}")
    qkv = to_regions(torch.cat([q, k, v], dim=1), region)
    settings = AttentionSettings(num_heads, scale, mask_padding)
    return from_regions(attend_regions(qkv, idx, region, settings, backend), region)


def attend_regions(
    qkv: Tensor, idx: Tensor, region: RegionGrid, settings: AttentionSettings, backend: str | None = None
) -> Tensor:
    """Do what :func:`bi_level_routing_attention` does on tokens that lie region by region, as all backends want them.

    Args:
        qkv: queries, keys and values of each token (B, R, T, 3C); what padding holds must be finite, and zero where
            it takes part.
        idx: (B, R, topk) int64, see :func:`bi_level_routing_attention`.
        region: how the tokens lie on the map.
        settings: heads, scale, and whether padding takes part.
        backend: see :func:`choose_backend`.

    Returns:
        (B, R, T, C) of the input's type; what stands at padding means nothing. Gradients reach ``qkv``.

    Raises:
        BackendError: for an unknown backend, or one that cannot serve this input.
        ValueError: when the shapes do not fit together.
    """
    name = _checked_backend(qkv, idx, region, settings.num_heads, backend)
    if isinstance(qkv.shape[0], int) and qkv.shape[0] == 0:
        return qkv[..., : qkv.shape[-1] // 3] * 1  # nothing to attend to; keeps type and gradients
    return _BACKENDS[name](qkv, idx, region, settings)


def add_attention(
    total: Tensor,
    qkv: Tensor,
    idx: Tensor,
    region: RegionGrid,
    settings: AttentionSettings,
    backend: str | None = None,
) -> Tensor:
    """What :func:`attend_regions` gives, put together to a map and added to ``total``.

    ``total`` is (B, C, H, W), of the type of ``qkv``, and so is the result, in the same memory format. Nobody else may
    need ``total``: where that saves time the sum is made in its memory. All else is as for :func:`attend_regions`.
    """
    if _checked_backend(qkv, idx, region, settings.num_heads, backend) == "sdpa" and can_add_sdpa(total, qkv):
        add_sdpa_(total, qkv, idx, region, settings)
        return total
    return total + from_regions(attend_regions(qkv, idx, region, settings, backend), region)


def _checked_backend(qkv: Tensor, idx: Tensor, region: RegionGrid, num_heads: int, backend: str | None) -> str:
    """The backend to use for tokens that fit their routing and heads."""
    batch, regions, tokens, width = qkv.shape
    if (regions, tokens) != (region.regions, region.tokens) or tuple(idx.shape[:2]) != (batch, regions):
        raise ValueError(f"tokens {tuple(qkv.shape)} and routing {tuple(idx.shape)} do not belong to {region}")
    if width % (3 * num_heads):
        raise ValueError(f"{width // 3} channels do not divide into {num_heads} heads")
    return choose_backend(qkv, backend, width // (3 * num_heads))
