"""Folding a batch norm into the convolution before it."""

from __future__ import annotations

import torch
from torch import nn


def fuse_conv_and_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution that does what a convolution and its norm do in evaluation mode.

    With the norm y = gamma (x - mean) / sqrt(var + eps) + beta, the weights scale by gamma / sqrt(var + eps) a channel.

    Returns:
        A new layer with bias, on the same device, without gradient; the given ones stay as they are.
    """
    fused = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        bias=True,
        padding_mode=conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    ).requires_grad_(False)
    with torch.no_grad():
        gain = bn.weight * (bn.running_var + bn.eps).rsqrt()  # (C,)
        before = torch.zeros_like(bn.running_mean) if conv.bias is None else conv.bias
        fused.weight.copy_(conv.weight * gain.view(-1, 1, 1, 1))
        fused.bias.copy_(bn.bias + (before - bn.running_mean) * gain)
    return fused.train(conv.training)
