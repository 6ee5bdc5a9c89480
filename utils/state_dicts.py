"""Comparing state dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


def intersect_dicts(
    a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], exclude: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """Entries of one state dict that fit into another.

    Args:
        a: the one whose tensors are returned.
        b: the one whose names and shapes they must have.
        exclude: texts that no returned name may contain.
    """
    return {
        name: tensor
        for name, tensor in a.items()
        if name in b and tensor.shape == b[name].shape and not any(text in name for text in exclude)
    }
