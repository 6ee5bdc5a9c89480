"""Spatial pyramid pooling: one map seen through several window sizes.

Source: "Spatial Pyramid Pooling in Deep Convolutional Networks", He et al., TPAMI 2015.
"""

from __future__ import annotations

import torch
from torch import nn

from models.layers.conv import Conv
from models.registry import register_layer


@register_layer(width="scaled")
class SPP(nn.Module):
    """Max-pools of several sizes side by side, size kept: (B, c1, H, W) -> (B, c2, H, W)."""

    def __init__(self, c1, c2, k=(5, 9, 13)):
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(hidden * (len(k) + 1), c2)
        self.m = nn.ModuleList(nn.MaxPool2d(window, stride=1, padding=window // 2) for window in k)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Join the map and its pooled forms."""
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


@register_layer(width="scaled")
class SPPF(nn.Module):
    """SPP with one small pool applied three times, which equals windows of k, 2k-1 and 3k-2."""

    def __init__(self, c1, c2, k=5):
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(hidden * 4, c2)
        self.m = nn.MaxPool2d(k, stride=1, padding=k // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c1, H, W) -> (B, c2, H, W)."""
        stages = [self.cv1(x)]
        for _ in range(3):
            stages.append(self.m(stages[-1]))
        return self.cv2(torch.cat(stages, 1))
