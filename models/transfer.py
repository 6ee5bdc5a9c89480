"""Trained weights into a network whose layers have other numbers.

Inserting one layer renumbers all later ones, so matching tensors by name loses most of a checkpoint. Here the two
layer sequences are aligned instead:

1. The tensors of either side are grouped by layer (``model.<number>.``), in order.
2. Two layers are alike by, in this order: the same row (module and values) in both YAMLs, where these are known; the
   number of values in the tensors that they share by name and shape; the same module; the same place. Rows come first
   because shapes alone mislead: attentions of one family have the same tensors, and layers of a network of half the
   width have the shapes of others.
3. The order-keeping pairing of largest total likeness is found by dynamic programming (the weighted form of the
   longest common subsequence: Wagner and Fischer, "The String-to-String Correction Problem", J. ACM 1974).
4. Tensors that a pair shares are copied; everything else keeps its initial value and is reported with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from models.rows import RawRow, read_rows

_LISTED = 3  # tensors that a line of the report names
Layer = dict[str, torch.Tensor]  # tensor name within the layer -> tensor
Likeness = tuple[int, int, int, int]  # same rows, values in shared tensors, same modules, same places
_NONE: Likeness = (0, 0, 0, 0)


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
    state_dict: Mapping[str, torch.Tensor],
    model: nn.Module,
    exclude: tuple[str, ...] = (),
    *,
    description: Mapping[str, Any] | None = None,
) -> TransferReport:
    """Copy the tensors of a checkpoint into a model by aligning their layers; see the module.

    Args:
        state_dict: the checkpoint's tensors, any float type.
        model: filled in place; its floats keep their type.
        exclude: tensors of the model whose name contains one of these texts are left alone.
        description: content of the model YAML that the checkpoint was built from, where there is one. Compared with the
            model's own ``yaml``, it tells layers apart that have the same tensors.

    Returns:
        How many of how many tensors were filled, and what was not and why.

    Raises:
        ConfigError: when the description is wrong, naming the row.
    """
    target = model.state_dict()
    source_layers, target_layers = _by_layer(state_dict), _by_layer(target)
    source_rows = _rows(description, "checkpoint's YAML")
    target_rows = _rows(getattr(model, "yaml", None), "model's YAML")
    pairs = _align(source_layers, target_layers, source_rows, target_rows)
    report = TransferReport(total=len(target), pairs={new: old for old, new in pairs})
    with torch.no_grad():
        for name, layer in target_layers.items():
            old = source_layers.get(report.pairs.get(name), {})
            left = []
            for key, tensor in layer.items():
                excluded = any(text in f"{name}.{key}" for text in exclude)
                obstacle = (key, "excluded") if excluded else _obstacle(key, tensor, old)
                if obstacle is None:
                    tensor.copy_(old[key])
                    report.filled.append(f"{name}.{key}")
                else:
                    left.append(obstacle)
            report.missing += _describe(name, target_rows, layer, left)
    target_of = dict(pairs)
    for name, layer in source_layers.items():
        twin = target_layers.get(target_of.get(name), {})  # what it has was filled, or is in the report already
        left = [(key, "no such tensor in the model") for key in layer if key not in twin]
        report.unused += _describe(name, source_rows, layer, left)
    return report


def _rows(description: Mapping[str, Any] | None, title: str) -> dict[str, RawRow]:
    """The row of each layer, by the layer's name in a state dict."""
    return {f"model.{row.index}": row for row in read_rows(description, title)} if description else {}


def _by_layer(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Layer]:
    """Tensors grouped by ``model.<number>``, in order; those elsewhere form a group of their first name each."""
    layers: dict[str, Layer] = {}
    for name, tensor in state_dict.items():
        parts = name.split(".")
        depth = 2 if len(parts) > 2 and parts[1].isdigit() else 1
        layers.setdefault(".".join(parts[:depth]), {})[".".join(parts[depth:])] = tensor
    return layers


def _shared_values(a: Layer, b: Layer) -> int:
    """Number of values in the tensors that two layers share by name and shape; a shared scalar counts as one."""
    return sum(max(tensor.numel(), 1) for key, tensor in a.items() if key in b and b[key].shape == tensor.shape)


def _align(
    source: dict[str, Layer], target: dict[str, Layer], source_rows: dict[str, RawRow], target_rows: dict[str, RawRow]
) -> list[tuple[str, str]]:
    """The order-keeping pairs (source layer, target layer) of largest total likeness."""
    old, new = list(source), list(target)

    def likeness(a: str, b: str) -> Likeness:
        row, other = source_rows.get(a), target_rows.get(b)
        same_module = row is not None and other is not None and row.module == other.module
        same_row = same_module and row.args == other.args
        return int(same_row), _shared_values(source[a], target[b]), int(same_module), int(a == b)

    alike = [[likeness(a, b) for b in new] for a in old]
    best = [[_NONE] * (len(new) + 1) for _ in range(len(old) + 1)]  # best[i][j]: of old[i:] against new[j:]
    for i in reversed(range(len(old))):
        for j in reversed(range(len(new))):
            paired = _add(alike[i][j], best[i + 1][j + 1]) if _may_pair(alike[i][j]) else _NONE
            best[i][j] = max(paired, best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(old) and j < len(new):
        if _may_pair(alike[i][j]) and best[i][j] == _add(alike[i][j], best[i + 1][j + 1]):
            pairs.append((old[i], new[j]))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _may_pair(likeness: Likeness) -> bool:
    same_row, shared_values, *_ = likeness
    return bool(same_row or shared_values)


def _add(a: Likeness, b: Likeness) -> Likeness:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]


def _obstacle(key: str, tensor: torch.Tensor, old: Layer) -> tuple[str, str] | None:
    """What keeps a tensor from being filled from an old layer: how the report names the tensor, and why."""
    if key not in old:
        return key, "not in the checkpoint"
    if old[key].shape != tensor.shape:
        return f"{key} {tuple(old[key].shape)} for {tuple(tensor.shape)}", "another shape"
    return None


def _describe(name: str, rows: Mapping[str, RawRow], layer: Layer, left: list[tuple[str, str]]) -> list[str]:
    """A line for each reason why tensors of a layer found no place; none when all did."""
    reasons: dict[str, list[str]] = {}
    for key, reason in left:
        reasons.setdefault(reason, []).append(key)
    title = f"{name} ({rows[name].module})" if name in rows else name
    return [f"{title}: {_listed(keys, len(layer))} ({reason})" for reason, keys in reasons.items()]


def _listed(keys: list[str], of: int) -> str:
    if len(keys) == of > 1:
        return f"all {of} tensors"
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more
