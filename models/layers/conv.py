"""Convolutions with their norm and activation, and what is made of a few of them."""

from __future__ import annotations

import math

import torch
from torch import nn

from models.registry import register_layer


def autopad(k: int | tuple[int, int], p: int | tuple | None = None, d: int = 1) -> int | tuple[int, int]:
    """Padding that keeps the size at stride 1: half of the effective kernel, for each side of a pair."""
    if p is not None:
        return p
    if isinstance(k, int):
        return (d * (k - 1) + 1) // 2
    return tuple(autopad(side, None, d) for side in k)


@register_layer(width="scaled")
class Conv(nn.Module):
    """Convolution without bias, batch norm, activation: (B, c1, H, W) -> (B, c2, H/s, W/s).

    ``act``: True takes the model's default activation, a module is used as it is, anything else means none.
    """

    def __init__(self, c1, c2, k=1, s=1, p=None, g=1, d=1, act=True):
        super().__init__()
        padding = autopad(k, p, d)
        self.conv = nn.Conv2d(c1, c2, kernel_size=k, stride=s, padding=padding, dilation=d, groups=g, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.default_act = act is True  # the builder gives these the activation that the YAML names
        self.act = _activation(act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, normalise (an identity after fusing), activate."""
        normed = self.bn(self.conv(x))
        return self.act(normed)

    def forward_fuse(self, x: torch.Tensor) -> torch.Tensor:
        """The same without the norm, for a convolution that has it folded in."""
        convolved = self.conv(x)
        return self.act(convolved)


def _activation(act: bool | nn.Module) -> nn.Module:
    """What a block's ``act`` stands for; see :class:`Conv`."""
    if act is True:
        return nn.SiLU()
    return act if isinstance(act, nn.Module) else nn.Identity()


@register_layer(width="scaled")
class DWConv(Conv):
    """Depth-wise convolution: as many groups as both widths allow."""

    def __init__(self, c1, c2, k=1, s=1, d=1, act=True):
        groups = math.gcd(c1, c2)
        super().__init__(c1, c2, k=k, s=s, g=groups, d=d, act=act)


@register_layer(width="scaled")
class DWConvTranspose2d(nn.ConvTranspose2d):
    """Depth-wise transposed convolution; p1 is the padding, p2 the output padding."""

    def __init__(self, c1, c2, k=1, s=1, p1=0, p2=0):
        groups = math.gcd(c1, c2)
        super().__init__(c1, c2, kernel_size=k, stride=s, padding=p1, output_padding=p2, groups=groups)


@register_layer(width="scaled")
class Focus(nn.Module):
    """Moves each 2x2 block of pixels into channels, then convolves: (B, c1, H, W) -> (B, c2, H/2, W/2)."""

    def __init__(self, c1, c2, k=1, s=1, p=None, g=1, act=True):
        super().__init__()
        self.conv = Conv(4 * c1, c2, k=k, s=s, p=p, g=g, act=act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Phases in the order (row, column) = (0,0), (1,0), (0,1), (1,1)."""
        phases = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(phases, 1))  # (B, 4*c1, H/2, W/2)


@register_layer(width="scaled")
class GhostConv(nn.Module):
    """Half of the channels by a convolution, the other half by a cheap depth-wise one on top.

    Source: "GhostNet: More Features from Cheap Operations", Han et al., CVPR 2020, section 3.1.
    """

    def __init__(self, c1, c2, k=1, s=1, g=1, act=True):
        super().__init__()
        hidden = c2 // 2
        self.cv1 = Conv(c1, hidden, k=k, s=s, g=g, act=act)
        self.cv2 = Conv(hidden, hidden, k=5, g=hidden, act=act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c1, H, W) -> (B, c2, H/s, W/s)."""
        primary = self.cv1(x)
        cheap = self.cv2(primary)
        return torch.cat([primary, cheap], dim=1)


@register_layer(width="scaled")
class GhostBottleneck(nn.Module):
    """Two ghost convolutions around an optional depth-wise stride, with a residual (GhostNet, section 3.2)."""

    def __init__(self, c1, c2, k=3, s=1):
        super().__init__()
        hidden = c2 // 2
        squeeze = GhostConv(c1, hidden)
        between = _strided(hidden, k, s)
        widen = GhostConv(hidden, c2, act=False)
        self.conv = nn.Sequential(squeeze, between, widen)
        self.shortcut = nn.Identity()
        if s == 2:
            self.shortcut = nn.Sequential(_strided(c1, k, s), Conv(c1, c2, act=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c1, H, W) -> (B, c2, H/s, W/s)."""
        bypass = self.shortcut(x)
        return bypass + self.conv(x)


def _strided(c: int, k: int, s: int) -> nn.Module:
    """A depth-wise convolution at stride 2, else nothing."""
    return DWConv(c, c, k, s, act=False) if s == 2 else nn.Identity()


@register_layer(width="scaled")
class CrossConv(nn.Module):
    """A k x k convolution as a 1 x k followed by a k x 1."""

    def __init__(self, c1, c2, k=3, s=1, g=1, e=1.0, shortcut=False):
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, k=(1, k), s=(1, s))
        self.cv2 = Conv(hidden, c2, k=(k, 1), s=(s, 1), g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c1, H, W) -> (B, c2, H/s, W/s)."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


@register_layer(width="scaled")
class MixConv2d(nn.Module):
    """Several kernel sizes side by side, each giving a part of the output channels.

    Source: "MixConv: Mixed Depthwise Convolutional Kernels", Tan and Le, BMVC 2019.
    """

    def __init__(self, c1, c2, k=(1, 3), s=1, equal_ch=True):
        super().__init__()
        widths = _even_split(c2, len(k)) if equal_ch else _equal_parameter_split(c2, k)
        self.m = nn.ModuleList(
            nn.Conv2d(c1, width, side, stride=s, padding=side // 2, bias=False, groups=math.gcd(c1, width))
            for side, width in zip(k, widths, strict=True)
        )
        self.bn = nn.BatchNorm2d(c2)
        self.act = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c1, H, W) -> (B, c2, H/s, W/s)."""
        joined = torch.cat([branch(x) for branch in self.m], dim=1)
        return self.act(self.bn(joined))


def _even_split(total: int, parts: int) -> list[int]:
    """Channels per branch when channel i of ``total`` goes to the branch that lies at its share of the way."""
    last = max(total - 1, 1)
    owner = [max(channel * parts - 1, 0) // last for channel in range(total)]
    return [owner.count(part) for part in range(parts)]


def _equal_parameter_split(total: int, kernels: tuple[int, ...]) -> list[int]:
    """Channels per branch so that each has about the same number of weights: inverse to the kernel's area."""
    shares = [1 / kernel**2 for kernel in kernels]
    return [round(total * share / sum(shares)) for share in shares]
