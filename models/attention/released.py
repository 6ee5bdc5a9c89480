"""Layers and keys of the checkpoints that BiFormer's authors published.

Their models keep the projections of bi-level routing attention as Linear layers under ``qkv.qkv`` and ``wo``, and end
in a stage of full attention. The classes here have those keys, so that such a file loads as it is; the functions
translate its keys for layers that are arranged otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from models.attention.bra import OLDER_KEYS, BiLevelRoutingAttention
from models.attention.ops.regions import in_format_of
from utils.errors import CheckpointError, ConfigError


class CheckpointBRA(BiLevelRoutingAttention):
    """Bi-level routing attention under the keys of the published BiFormers: ``lepe``, ``qkv.qkv``, ``wo``.

    The arguments are those of :class:`models.attention.bra.BiLevelRoutingAttention`; its keys are loaded too.
    """

    def _add_projections(self) -> None:
        self.qkv = nn.ModuleDict({"qkv": nn.Linear(self.dim, 3 * self.dim)})
        self.wo = nn.Linear(self.dim, self.dim)

    def _project_in(self, x: Tensor) -> Tensor:
        return self.qkv["qkv"](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _project_out(self, x: Tensor, like: Tensor) -> Tensor:
        return in_format_of(self.wo(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), like)

    def _other_keys(self) -> dict[str, str]:
        return {ours: older for older, ours in OLDER_KEYS.items()}


class FullAttentionWithLocalTerm(nn.Module):
    """Multi-head attention over the whole map plus a depth-wise convolution of its input; BiFormer's last stage.

    The scale is that of the head width and ``qkv`` has no bias, unlike in bi-level routing attention.

    Args:
        dim: C, channels in and out.
        num_heads: heads, a divisor of C.
        side_dwconv: odd kernel of the convolution.

    Raises:
        ConfigError: when the heads do not divide the channels.
    """

    def __init__(self, dim: int, num_heads: int = 8, side_dwconv: int = 5) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ConfigError(f"full attention of {dim} channels cannot have {num_heads} heads")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.lepe = nn.Conv2d(dim, dim, side_dwconv, padding=side_dwconv // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        batch, channels, height, width = x.shape
        split = self.qkv(x.flatten(2).transpose(1, 2)).unflatten(-1, (3, self.num_heads, -1))  # (B, HW, 3, M, D)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # (B, M, HW, D) each
        mixed = F.scaled_dot_product_attention(q, k, v).permute(0, 1, 3, 2)  # (B, M, D, HW)
        with_local = mixed.reshape(batch, channels, height, width) + self.lepe(x)
        return self.proj(with_local.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def released_to_ours(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the attention entries of a published state dict to those of ``BiLevelRoutingAttention``.

    Args:
        state_dict: of a layer, a block or a whole BiFormer; not changed.

    Returns:
        The same tensors in the same order; ``qkv.qkv`` and ``wo`` have become the 1x1 convolutions ``qkv_linear`` and
        ``output_linear``.
    """
    ours = {}
    for key, value in state_dict.items():
        older = next((end for end in OLDER_KEYS if key == end or key.endswith("." + end)), None)
        if older is None:
            ours[key] = value
        else:
            new_key = key[: len(key) - len(older)] + OLDER_KEYS[older]
            ours[new_key] = value[:, :, None, None] if value.ndim == 2 else value
    return ours


def released_to_rows(
    state_dict: Mapping[str, Tensor], first: int = 0, norms: Mapping[int, int] | None = None, prefix: str = "model."
) -> dict[str, Tensor]:
    """Rename a published BiFormer's state dict to the rows of a detector's YAML.

    The YAML has the stem, stage 0, a down-sampling row, stage 1 and so on in rows ``first`` to ``first + 7``. The
    classifier's own norm and head are left out.

    Args:
        state_dict: what a published file holds under ``model`` (or, of a detector, under ``state_dict``); not changed.
        first: row of the stem.
        norms: row of the output norm of each stage that has one, for files of published detectors.
        prefix: what comes before the row number.

    Returns:
        Tensors by the detector's keys, in the order of its rows, ready for ``transfer_weights`` or
        ``load_state_dict(..., strict=False)``.

    Raises:
        CheckpointError: when nothing in the state dict belongs to a BiFormer.
    """
    patterns = {"downsample_layers": 0, "stages": 1}
    pattern = re.compile(r"(?:backbone\.)?(downsample_layers|stages|extra_norms)\.(\d+)\.(.+)")
    rows: dict[int, dict[str, Tensor]] = {}
    for key, value in state_dict.items():
        found = pattern.fullmatch(key)
        if found is None:
            continue
        part, stage, rest = found[1], int(found[2]), found[3]
        row = (norms or {}).get(stage) if part == "extra_norms" else first + 2 * stage + patterns[part]
        if row is not None:
            rows.setdefault(row, {})[f"{prefix}{row}.{rest}"] = value
    if not rows:
        raise CheckpointError(
            "this is no BiFormer state dict: it has no keys downsample_layers.* or stages.*; "
            "a published file keeps its state dict under 'model'"
        )
    return {key: value for row in sorted(rows) for key, value in rows[row].items()}
