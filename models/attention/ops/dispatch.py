"""The one entry to bi-level routing attention, and the choice of what computes it.

A new backend is a function with the arguments of :func:`bi_level_routing_attention` (``backend`` apart) and a line in
``_BACKENDS``; if it serves some inputs only, :func:`choose_backend` is the place that says which.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from torch import Tensor

from models.attention.ops.reference import attend_reference
from models.attention.ops.regions import RegionGrid
from models.attention.ops.sdpa import attend_sdpa
from utils.errors import BackendError

ENVIRONMENT_VARIABLE = "YOLO_BRA_BACKEND"
_BACKENDS: dict[str, Callable[..., Tensor]] = {"reference": attend_reference, "sdpa": attend_sdpa}


def available_backends() -> tuple[str, ...]:
    """Names that ``backend`` and ``YOLO_BRA_BACKEND`` may have, besides ``auto``."""
    return tuple(_BACKENDS)


def choose_backend(q: Tensor, backend: str | None = None) -> str:
    """Say which backend computes the attention of these queries.

    Args:
        q: (B, C, H, W); its device decides when nobody else does.
        backend: a name, or None (or ``auto``) for the environment variable's, and failing that by device.

    Raises:
        BackendError: for an unknown name.
    """
    wanted, source = backend, "the argument backend"
    if wanted is None or wanted == "auto":
        wanted, source = os.environ.get(ENVIRONMENT_VARIABLE, "auto"), f"the variable {ENVIRONMENT_VARIABLE}"
    if wanted in ("", "auto"):
        # FLOP counts run on the meta device, where fused kernels hide their products
        return "reference" if q.device.type == "meta" else "sdpa"
    if wanted not in _BACKENDS:
        raise BackendError(
            f"{source} asks for the attention backend {wanted!r}; use auto or one of {', '.join(_BACKENDS)}"
        )
    return wanted


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
            :func:`models.attention.ops.routing.route_regions` gives them.
        region: how the H x W map lies in R regions.
        num_heads: M, a divisor of C.
        scale: factor on the logits.
        mask_padding: keep keys that padding made out of the softmax; False lets them take part as zeros.
        backend: see :func:`choose_backend`.

    Returns:
        (B, C, H, W) of the inputs' type. Gradients reach q, k and v.

    Raises:
        BackendError: for an unknown backend.
        ValueError: when the shapes do not fit together.
    """
    batch, channels, height, width = q.shape
    if (height, width) != (region.height, region.width) or tuple(idx.shape[:2]) != (batch, region.regions):
        raise ValueError(f"queries {tuple(q.shape)} and routing {tuple(idx.shape)} do not belong to {region}")
    if channels % num_heads:
        raise ValueError(f"{channels} channels do not divide into {num_heads} heads")
    if isinstance(batch, int) and batch == 0:
        return q * v  # nothing to attend to; keeps type, shape and gradients
    attend = _BACKENDS[choose_backend(q, backend)]
    return attend(q, k, v, idx, region, num_heads=num_heads, scale=scale, mask_padding=mask_padding)
