"""A plain transformer over all pixels of a map, as YOLOv5's C3TR uses it.

Source: "An Image is Worth 16x16 Words", Dosovitskiy et al., ICLR 2021. Differs from it in: no norms, a linear map
for position, no activation between the two linear maps of the feed-forward part.
"""

from __future__ import annotations

import torch
from torch import nn

from models.layers.conv import Conv
from models.registry import register_layer


@register_layer(width="same")
class TransformerLayer(nn.Module):
    """Self-attention and a linear feed-forward, each with a residual: (T, B, c) -> (T, B, c)."""

    def __init__(self, c, num_heads):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(c, c, bias=False) for _ in range(3))
        self.ma = nn.MultiheadAttention(c, num_heads)
        self.fc1, self.fc2 = (nn.Linear(c, c, bias=False) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens first."""
        attended, _ = self.ma(self.q(x), self.k(x), self.v(x), need_weights=False)
        x = x + attended
        return x + self.fc2(self.fc1(x))


@register_layer(width="scaled")
class TransformerBlock(nn.Module):
    """``num_layers`` transformer layers over the pixels of a map: (B, c1, H, W) -> (B, c2, H, W)."""

    def __init__(self, c1, c2, num_heads, num_layers):
        super().__init__()
        self.conv = nn.Identity() if c1 == c2 else Conv(c1, c2)
        self.linear = nn.Linear(c2, c2)
        layers = [TransformerLayer(c2, num_heads) for _ in range(num_layers)]
        self.tr = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels become tokens in row order."""
        tokens = self.conv(x).flatten(2).permute(2, 0, 1)  # (H*W, B, c2)
        mixed = self.tr(tokens + self.linear(tokens))
        return mixed.permute(1, 2, 0).unflatten(2, x.shape[-2:])  # (B, c2, H, W)
