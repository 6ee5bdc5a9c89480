"""BiFormer-T, -S and -B: the classifiers, and their parts as rows of a detector's YAML.

"BiFormer: Vision Transformer with Bi-Level Routing Attention", Zhu et al., CVPR 2023
(https://arxiv.org/abs/2303.08810), section 3.3 and table 1. Four stages at strides 4, 8, 16 and 32; each region looks
at 1, 4 and 16 others in the first three, the last attends over the whole map.

Differs from the released code in:

- The stem of a detector normalises its input itself, as a detector's images come in 0 to 1.
- In a detector, padding is masked. The classifiers keep the released form, which pads before the projection; where
  ``n_win`` divides the maps, as 7 does for 224-pixel images, the two are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.attention.biformer import BiFormerBlock
from models.attention.released import CheckpointBRA, FullAttentionWithLocalTerm
from models.registry import register_layer

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, for images in 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)
STAGE_TOPK = (1, 4, 16, -2)
FULL_ATTENTION_HEADS = 8


class PublishedNorm(nn.BatchNorm2d):
    """BatchNorm with torch's eps and momentum, which the published weights were trained with.

    A class of its own, so that a detector can tell it from the norms that it gives other settings.
    """


@register_layer(width="scaled", row=("normalize",))
class BiFormerStem(nn.Sequential):
    """Two 3x3 convolutions of stride 2, each with a BatchNorm, a GELU between: (B, c1, H, W) to (B, c2, H/4, W/4).

    Args:
        c1: channels in.
        c2: channels out.
        normalize: subtract ImageNet's mean and divide by its deviation first, for RGB images in 0..1 and the published
            weights; for images of other than three channels nothing is done.
    """

    def __init__(self, c1: int, c2: int, normalize: bool = True) -> None:
        super().__init__(
            nn.Conv2d(c1, c2 // 2, 3, stride=2, padding=1),
            PublishedNorm(c2 // 2),
            nn.GELU(),
            nn.Conv2d(c2 // 2, c2, 3, stride=2, padding=1),
            PublishedNorm(c2),
        )
        self.normalize = normalize and c1 == 3
        # No part of the state dict: the published files do not have them
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W), RGB in 0..1 when normalising, to (B, c2, H/4, W/4)."""
        return super().forward((x - self.mean) / self.std if self.normalize else x)


@register_layer(width="scaled", row=())
class BiFormerDown(nn.Sequential):
    """A 3x3 convolution of stride 2 with a BatchNorm: (B, c1, H, W) to (B, c2, H/2, W/2).

    Args:
        c1: channels in.
        c2: channels out.
    """

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__(nn.Conv2d(c1, c2, 3, stride=2, padding=1), PublishedNorm(c2))


@register_layer(width="same", row=("depth", "n_win", "topk", "num_heads", "drop_path", "recompute"))
class BiFormerStage(nn.Sequential):
    """BiFormer blocks in a row under the published keys: (B, C, H, W) to the same shape.

    Args:
        dim: C, channels in and out.
        depth: blocks.
        n_win: regions a side.
        topk: regions that each region looks at; 0 or less (-2 in the released code) for full attention with 8 heads.
        num_heads: heads of routed attention; 0 for ``dim / 32``.
        drop_path: probability to skip a branch in training: one number for all blocks, or those of the first and the
            last block, between which it rises evenly.
        recompute: keep only the input of each block for the backward pass and compute the rest again there (gradient
            checkpointing): the same gradients with less memory, for about a third more time. May be set later as well.
        padding: see :class:`models.attention.bra.BiLevelRoutingAttention`.
        backend: likewise.
    """

    def __init__(
        self,
        dim: int,
        depth: int = 2,
        n_win: int = 7,
        topk: int = 4,
        num_heads: int = 0,
        drop_path: float | Sequence[float] = 0.0,
        recompute: bool = False,
        *,
        padding: str = "masked",
        backend: str | None = None,
    ) -> None:
        first, last = drop_path if isinstance(drop_path, Sequence) else (drop_path, drop_path)
        step = (last - first) / max(depth - 1, 1)
        blocks = []
        for place in range(depth):
            attn = (
                CheckpointBRA(dim, num_heads, n_win, topk=topk, side_dwconv=5, padding=padding, backend=backend)
                if topk > 0
                else FullAttentionWithLocalTerm(dim, FULL_ATTENTION_HEADS)
            )
            blocks.append(BiFormerBlock(dim, drop_path=first + place * step, attn=attn))
        super().__init__(*blocks)
        self.recompute = recompute

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        recompute = self.recompute and self.training and torch.is_grad_enabled()
        for block in self:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x


@register_layer(width="normed")
class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map: (B, C, H, W) to the same shape; between a BiFormer stage and a neck.

    Args:
        dim: C.
        eps: added to the variance.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class BiFormer(nn.Module):
    """A BiFormer classifier, with the keys of the published checkpoints.

    Args:
        depths: blocks of each stage.
        widths: channels of each stage.
        num_classes: logits.
        n_win: regions a side.
        drop_path: probability to skip a branch in training, rising evenly over all blocks from 0 to this.
        recompute: see :class:`BiFormerStage`.
        padding: see :class:`models.attention.bra.BiLevelRoutingAttention`; the published form is ``legacy``.
        backend: likewise.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        *,
        num_classes: int = 1000,
        n_win: int = 7,
        drop_path: float = 0.0,
        recompute: bool = False,
        padding: str = "legacy",
        backend: str | None = None,
    ) -> None:
        super().__init__()
        stem = BiFormerStem(3, widths[0], normalize=False)
        downs = [BiFormerDown(before, after) for before, after in pairwise(widths)]
        self.downsample_layers = nn.ModuleList([stem, *downs])
        self.stages = nn.ModuleList(
            BiFormerStage(
                width, depth, n_win, topk, drop_path=rates, recompute=recompute, padding=padding, backend=backend
            )
            for width, depth, topk, rates in zip(
                widths, depths, STAGE_TOPK, stage_drop_paths(depths, drop_path), strict=True
            )
        )
        self.norm = PublishedNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Maps of the four stages, strides 4 to 32, of images (B, 3, H, W) normalised with ImageNet's statistics."""
        maps = []
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, H, W), RGB normalised with ImageNet's mean and deviation."""
        return self.head(self.norm(self.forward_features(x)[-1]).mean(dim=(2, 3)))


def stage_drop_paths(depths: Sequence[int], last: float) -> list[tuple[float, float]]:
    """Drop-path rates of each stage's first and last block, when they rise evenly from 0 to ``last`` over all blocks.

    Args:
        depths: blocks of each stage.
        last: rate of the very last block.
    """
    step = last / max(sum(depths) - 1, 1)
    ends = [sum(depths[: stage + 1]) for stage in range(len(depths))]
    return [((end - depth) * step, (end - 1) * step) for end, depth in zip(ends, depths, strict=True)]


def biformer_tiny(num_classes: int = 1000, drop_path: float = 0.0, **settings: object) -> BiFormer:
    """BiFormer-T: 13.1 M parameters; ``settings`` go to :class:`BiFormer`."""
    return BiFormer((2, 2, 8, 2), (64, 128, 256, 512), num_classes=num_classes, drop_path=drop_path, **settings)


def biformer_small(num_classes: int = 1000, drop_path: float = 0.15, **settings: object) -> BiFormer:
    """BiFormer-S: 25.5 M parameters; ``settings`` go to :class:`BiFormer`."""
    return BiFormer((4, 4, 18, 4), (64, 128, 256, 512), num_classes=num_classes, drop_path=drop_path, **settings)


def biformer_base(num_classes: int = 1000, drop_path: float = 0.3, **settings: object) -> BiFormer:
    """BiFormer-B: 56.8 M parameters; ``settings`` go to :class:`BiFormer`."""
    return BiFormer((4, 4, 18, 4), (96, 192, 384, 768), num_classes=num_classes, drop_path=drop_path, **settings)
