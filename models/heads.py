"""The detection head: a 1x1 convolution a level, and the decoding of its raw outputs into boxes."""

from __future__ import annotations

import math

import torch
from torch import nn

from models.registry import register_layer

PRIOR_OBJECTS = 8  # objects expected in a 640 px image when training starts
PRIOR_CLASS = 0.6  # and the share of them that the class scores start from


@register_layer(width="detect")
class Detect(nn.Module):
    """Anchor-based head over several levels.

    Training returns the raw levels, each (B, A, H, W, 5 + nc): x, y, w, h, objectness, classes before the sigmoid.
    Inference returns (predictions, raw levels) with predictions (B, sum of A*H*W, 5 + nc): centre x, y, w, h in input
    pixels, then probabilities; rows ordered by level, anchor, y, x. With ``export`` set it returns (predictions,).

    ``anchors`` (levels, A, 2) is kept in units of each level's stride; ``stride`` (levels,) is set by the model.
    """

    def __init__(self, nc=80, anchors=(), ch=(), inplace=True):
        super().__init__()
        self.nl, self.na = len(anchors), len(anchors[0]) // 2 if anchors else 0
        self.nc, self.no = nc, nc + 5
        self.inplace = inplace  # kept for outside readers; decoding never overwrites its input
        self.export = False
        self.dynamic = False
        empty = torch.empty(0)
        self.grid = [empty] * self.nl  # cell offsets a level, kept between calls of the same size
        self.anchor_grid = [empty] * self.nl  # anchors in pixels, alike
        # The device is named so that a model can be built on "meta", where only these values must be real.
        pixels = torch.tensor(anchors, dtype=torch.float32, device="cpu").reshape(self.nl, self.na, 2)
        self.register_buffer("anchors", pixels)
        self.register_buffer("stride", torch.ones(self.nl, device="cpu"), persistent=False)
        self.m = nn.ModuleList(nn.Conv2d(width, self.na * self.no, 1) for width in ch)

    def forward(self, x: list[torch.Tensor]) -> list[torch.Tensor] | tuple:
        """Raw levels in training, decoded boxes and raw levels in inference; see the class."""
        raw = [self._split(conv(level)) for conv, level in zip(self.m, x, strict=True)]
        if self.training:
            return raw
        boxes = torch.cat([self._decode(level, i) for i, level in enumerate(raw)], 1)
        return (boxes,) if self.export else (boxes, raw)

    def _split(self, level: torch.Tensor) -> torch.Tensor:
        """(B, A*(5+nc), H, W) -> (B, A, H, W, 5+nc)."""
        return level.unflatten(1, (self.na, self.no)).permute(0, 1, 3, 4, 2).contiguous()

    def _decode(self, raw: torch.Tensor, i: int) -> torch.Tensor:
        """(B, A, H, W, 5+nc) raw -> (B, A*H*W, 5+nc) boxes in pixels and probabilities."""
        # Half precision resolves half a pixel near 640 px, which costs mAP at high IoU, so boxes are made in float32.
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        rows, columns = raw.shape[2:4]
        cells, anchors = self.grid[i], self.anchor_grid[i]  # another thread may replace them by those of its image size
        stale = cells.shape[2:4] != raw.shape[2:4] or cells.device != raw.device or cells.dtype != raw.dtype
        if self.dynamic or stale:
            cells, anchors = self._make_grid(rows, columns, i, raw)
            self.grid[i], self.anchor_grid[i] = cells, anchors
        share = raw.sigmoid()
        centre = (share[..., 0:2] * 2 + cells) * self.stride[i]
        size = (share[..., 2:4] * 2) ** 2 * anchors
        return torch.cat((centre, size, share[..., 4:]), -1).flatten(1, 3)

    def _make_grid(self, rows: int, columns: int, i: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cell corners less the half cell of the decoding formula, and anchors in pixels."""
        y = torch.arange(rows, device=like.device, dtype=like.dtype)
        x = torch.arange(columns, device=like.device, dtype=like.dtype)
        corner = torch.stack((x.expand(rows, columns), y[:, None].expand(rows, columns)), -1)  # (H, W, 2)
        pixels = (self.anchors[i] * self.stride[i]).to(like)
        return corner[None, None] - 0.5, pixels.view(1, self.na, 1, 1, 2)

    def forget_grids(self) -> None:
        """Drop the kept grids, after the anchors or strides have changed."""
        empty = torch.empty(0)
        self.grid, self.anchor_grid = [empty] * self.nl, [empty] * self.nl

    def initialize_biases(self) -> None:
        """Start objectness and classes near the share of cells that hold an object.

        The idea is that of "Focal Loss for Dense Object Detection", Lin et al., ICCV 2017, section 3.3.
        """
        with torch.no_grad():
            for conv, stride in zip(self.m, self.stride.tolist(), strict=True):
                bias = conv.bias.view(self.na, self.no)
                bias[:, 4] += math.log(PRIOR_OBJECTS / (640 / stride) ** 2)
                bias[:, 5 : 5 + self.nc] += math.log(PRIOR_CLASS / (self.nc - 0.99999))
