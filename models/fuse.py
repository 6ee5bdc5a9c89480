"""Folding the batch norms of a whole model into its convolutions, for inference."""

from __future__ import annotations

from torch import nn

from models.layers.conv import Conv
from utils.fuse import fuse_conv_and_bn


def fuse_convs_(model: nn.Module) -> None:
    """Fuse every Conv and DWConv of a model in place; norms elsewhere stay."""
    for module in model.modules():
        if isinstance(module, Conv) and isinstance(module.bn, nn.BatchNorm2d):
            module.conv = fuse_conv_and_bn(module.conv, module.bn)
            module.bn = nn.Identity()
