"""Bottlenecks and the cross-stage-partial blocks built from them.

Source: "CSPNet: A New Backbone that can Enhance Learning Capability of CNN", Wang et al., CVPRW 2020.
"""

from __future__ import annotations

import torch
from torch import nn

from models.layers.conv import Conv, CrossConv, GhostBottleneck
from models.layers.pooling import SPP
from models.layers.transformer import TransformerBlock
from models.registry import register_layer


@register_layer(width="scaled")
class Bottleneck(nn.Module):
    """1x1 down to the hidden width, 3x3 up to c2, added to the input where the widths allow."""

    def __init__(self, c1, c2, shortcut=True, g=1, e=0.5):
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(hidden, c2, 3, g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c1, H, W) -> (B, c2, H, W)."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


@register_layer(width="scaled", repeats=True)
class C3(nn.Module):
    """CSP block of three convolutions: half of the channels pass ``n`` Bottlenecks, the other half pass by."""

    def __init__(self, c1, c2, n=1, shortcut=True, g=1, e=0.5):
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(c1, hidden)
        self.cv3 = Conv(2 * hidden, c2)
        self.m = self.inner(hidden, n, shortcut, g)

    def inner(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        """What the first branch goes through, (B, c, H, W) -> (B, c, H, W); subclasses put other blocks here."""
        return _bottlenecks(c, n, shortcut, g)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c1, H, W) -> (B, c2, H, W)."""
        worked = self.m(self.cv1(x))
        passed = self.cv2(x)
        return self.cv3(torch.cat([worked, passed], dim=1))


def _bottlenecks(c: int, n: int, shortcut: bool, g: int) -> nn.Sequential:
    """``n`` Bottlenecks of full hidden width in a row: (B, c, H, W) -> (B, c, H, W)."""
    row = [Bottleneck(c, c, shortcut=shortcut, g=g, e=1.0) for _ in range(n)]
    return nn.Sequential(*row)


@register_layer(width="scaled", repeats=True)
class C3x(C3):
    """C3 with cross convolutions."""

    def inner(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        """``n`` CrossConv."""
        row = [CrossConv(c, c, g=g, shortcut=shortcut) for _ in range(n)]
        return nn.Sequential(*row)


@register_layer(width="scaled", repeats=True)
class C3TR(C3):
    """C3 with a transformer over the whole map."""

    def inner(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        """A TransformerBlock of 4 heads and ``n`` layers."""
        return TransformerBlock(c, c, num_heads=4, num_layers=n)


@register_layer(width="scaled", repeats=True)
class C3Ghost(C3):
    """C3 with ghost bottlenecks; shortcut and groups have no effect on them."""

    def inner(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        """``n`` GhostBottleneck."""
        row = [GhostBottleneck(c, c) for _ in range(n)]
        return nn.Sequential(*row)


@register_layer(width="scaled")
class C3SPP(C3):
    """C3 with spatial pyramid pooling. Its first argument after the width is the kernels, not a repeat count."""

    def __init__(self, c1, c2, k=(5, 9, 13), n=1, shortcut=True, g=1, e=0.5):
        super().__init__(c1, c2, n=n, shortcut=shortcut, g=g, e=e)
        width = self.cv1.conv.out_channels
        self.m = SPP(width, width, k)


@register_layer(width="scaled", repeats=True)
class BottleneckCSP(nn.Module):
    """The CSP block of the first YOLOv5 releases: the branches join before a norm and an activation of their own."""

    def __init__(self, c1, c2, n=1, shortcut=True, g=1, e=0.5):
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = nn.Conv2d(c1, hidden, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c2)
        self.bn = nn.BatchNorm2d(2 * hidden)
        self.act = nn.SiLU()
        self.m = _bottlenecks(hidden, n, shortcut, g)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c1, H, W) -> (B, c2, H, W)."""
        worked = self.cv3(self.m(self.cv1(x)))
        normed = self.bn(torch.cat([worked, self.cv2(x)], dim=1))
        return self.cv4(self.act(normed))
