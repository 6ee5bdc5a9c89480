"""Trained weights into a network whose layers have other numbers.

Inserting one layer renumbers all later ones, so matching tensors by name loses most of a checkpoint. Here the two
layer sequences are aligned instead:

1. The tensors of either side are grouped by layer (``model.<number>.``), in order.
2. Two layers are alike as far as they share tensors: names within the layer, and shapes. The likeness of a pair is
   the number of values in the tensors that they share.
3. The order-keeping pairing of largest total likeness is found by dynamic programming (the weighted form of the
   longest common subsequence: Wagner and Fischer, "The String-to-String Correction Problem", J. ACM 1974). At equal
   likeness, a pair of layers at the same place in their sequence is preferred.
4. Tensors that a pair shares are copied; everything else keeps its initial value and is reported with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

Layer = dict[str, torch.Tensor]  # tensor name within the layer -> tensor


@dataclass
class TransferReport:
    """What :func:`transfer_weights` did.

    Attributes:
        filled: names of the model's tensors that were filled.
        total: tensors of the model.
        missing: a line for each layer of the model with tensors left at their initial value, and why.
        unused: a line for each layer of the checkpoint with tensors that found no place.
        pairs: which layer of the checkpoint each layer of the model was aligned with.
    """

    filled: list[str] = field(default_factory=list)
    total: int = 0
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    pairs: dict[str, str] = field(default_factory=dict)

    @property
    def transferred(self) -> int:
        """How many of the model's tensors were filled."""
        return len(self.filled)

    def __str__(self) -> str:
        lines = [f"Transferred {self.transferred}/{self.total} items"]
        lines += [f"  not filled: {line}" for line in self.missing]
        lines += [f"  not used: {line}" for line in self.unused]
        return "\n".join(lines)


def transfer_weights(
    state_dict: Mapping[str, torch.Tensor], model: nn.Module, exclude: tuple[str, ...] = ()
) -> TransferReport:
    """Copy the tensors of a checkpoint into a model by aligning their layers; see the module.

    Args:
        state_dict: the checkpoint's tensors, any float type.
        model: filled in place; its floats keep their type.
        exclude: tensors of the model whose name contains one of these texts are left alone.

    Returns:
        How many of how many tensors were filled, and what was not and why.
    """
    target = model.state_dict()
    source_layers, target_layers = _by_layer(state_dict), _by_layer(target)
    pairs = _align(source_layers, target_layers)
    report = TransferReport(total=len(target), pairs={new: old for old, new in pairs})
    partner_of = dict(report.pairs)
    with torch.no_grad():
        for name, layer in target_layers.items():
            old = source_layers.get(partner_of.get(name), {})
            left = []
            for key, tensor in layer.items():
                if any(text in f"{name}.{key}" for text in exclude):
                    left.append((key, "excluded"))
                elif key not in old:
                    left.append((key, "not in the checkpoint"))
                elif old[key].shape != tensor.shape:
                    left.append((key, f"shape {tuple(old[key].shape)} does not fit {tuple(tensor.shape)}"))
                else:
                    tensor.copy_(old[key])
                    report.filled.append(f"{name}.{key}")
            report.missing += _describe(name, layer, left)
    target_of = dict(pairs)
    for name, layer in source_layers.items():
        twin = target_layers.get(target_of.get(name), {})  # what it has was filled, or is in the report already
        left = [(key, "no such tensor in the model") for key in layer if key not in twin]
        report.unused += _describe(name, layer, left)
    return report


def _by_layer(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Layer]:
    """Tensors grouped by ``model.<number>``, in order; those elsewhere form a group of their first name each."""
    layers: dict[str, Layer] = {}
    for name, tensor in state_dict.items():
        parts = name.split(".")
        depth = 2 if len(parts) > 2 and parts[1].isdigit() else 1
        layers.setdefault(".".join(parts[:depth]), {})[".".join(parts[depth:])] = tensor
    return layers


def _likeness(a: Layer, b: Layer) -> int:
    """Number of values in the tensors that two layers share by name and shape; a shared scalar counts as one."""
    return sum(max(tensor.numel(), 1) for key, tensor in a.items() if key in b and b[key].shape == tensor.shape)


def _align(source: dict[str, Layer], target: dict[str, Layer]) -> list[tuple[str, str]]:
    """The order-keeping pairs (source layer, target layer) of largest total likeness."""
    old, new = list(source), list(target)
    # best[i][j]: largest (likeness, pairs that kept their name) of old[i:] against new[j:]
    best = [[(0, 0)] * (len(new) + 1) for _ in range(len(old) + 1)]
    gain = [[(_likeness(source[a], target[b]), int(a == b)) for b in new] for a in old]
    for i in reversed(range(len(old))):
        for j in reversed(range(len(new))):
            paired = _add(gain[i][j], best[i + 1][j + 1]) if gain[i][j][0] else (0, 0)
            best[i][j] = max(paired, best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(old) and j < len(new):
        if gain[i][j][0] and best[i][j] == _add(gain[i][j], best[i + 1][j + 1]):
            pairs.append((old[i], new[j]))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return a[0] + b[0], a[1] + b[1]


def _describe(name: str, layer: Layer, left: list[tuple[str, str]]) -> list[str]:
    """One line for a layer, tensors grouped by reason; nothing when all found their place."""
    reasons: dict[str, list[str]] = {}
    for key, reason in left:
        reasons.setdefault(reason, []).append(key)
    return [
        f"{name}: {f'all {len(keys)} tensors' if len(keys) == len(layer) > 1 else ', '.join(keys)} ({reason})"
        for reason, keys in reasons.items()
    ]
