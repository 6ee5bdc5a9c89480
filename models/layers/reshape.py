"""Layers without weights that move values between space and channels, and torch's own layers for YAML use."""

from __future__ import annotations

import torch
from torch import nn

from models.registry import register_layer


@register_layer(width="sum")
class Concat(nn.Module):
    """Joins a list of maps of equal size along one dimension."""

    def __init__(self, dimension=1):
        super().__init__()
        self.dimension = dimension

    def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
        """[(B, C_i, H, W), ...] -> (B, sum of C_i, H, W)."""
        return torch.cat(x, dim=self.dimension)


@register_layer(width="shrunk")
class Contract(nn.Module):
    """Space to channels: (B, C, H, W) -> (B, C s^2, H/s, W/s); channel (i s + j) C + c is pixel offset (i, j)."""

    def __init__(self, gain=2):
        super().__init__()
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Inverse of :class:`Expand`."""
        s = self.gain
        blocks = x.unflatten(3, (-1, s)).unflatten(2, (-1, s))  # (B, C, H/s, s, W/s, s)
        return blocks.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)  # (B, s*s*C, H/s, W/s)


@register_layer(width="spread")
class Expand(nn.Module):
    """Channels to space, the inverse of :class:`Contract`: (B, C, H, W) -> (B, C / s^2, H s, W s)."""

    def __init__(self, gain=2):
        super().__init__()
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Inverse of :class:`Contract`."""
        s = self.gain
        blocks = x.unflatten(1, (s, s, -1))  # (B, s, s, C/s^2, H, W)
        return blocks.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)  # (B, C/s^2, H*s, W*s)


# torch's layers that a YAML may name, each under the name that torch gives it.
register_layer("nn.ConvTranspose2d", width="scaled")(nn.ConvTranspose2d)
register_layer("nn.BatchNorm2d", width="normed")(nn.BatchNorm2d)
for _layer in (
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.MaxPool2d, nn.AvgPool2d, nn.ZeroPad2d, nn.Identity,
    nn.Dropout, nn.Dropout2d, nn.SiLU, nn.ReLU, nn.LeakyReLU, nn.Hardswish, nn.GELU, nn.Mish,
):  # fmt: skip
    register_layer(f"nn.{_layer.__name__}", width="same")(_layer)
