"""Making a finished checkpoint small: from everything that training needs to what inference needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from utils.errors import CheckpointError
from utils.weights_file import load_plain, save_atomically

_CLEARED: dict[str, Any] = {"best_fitness": None, "ema": None, "updates": None, "optimizer": None, "epoch": -1}


def strip_optimizer(f: str | Path = "best.pt", s: str | Path = "") -> None:
    """Strip a checkpoint of this project down to its averaged weights in half precision.

    ``model`` becomes the EMA (the model itself where there is none), the training state is cleared, the epoch is -1.

    Args:
        f: the checkpoint.
        s: where to write; "" replaces ``f``, in one step, so that an interruption leaves the old file whole.

    Raises:
        CheckpointError: when the file cannot be read or is not written by this project.
    """
    source = Path(f)
    content = load_plain(source)
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise CheckpointError(f"{source}: not a checkpoint of this project (no weights under `model`)")
    weights = content.get("ema") or content["model"]
    if not isinstance(weights, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise CheckpointError(f"{source}: not a checkpoint of this project (its weights are no dict of tensors)")
    halved = {name: _halved(tensor) for name, tensor in weights.items()}
    save_atomically({**content, **_CLEARED, "model": halved, "extra": {}}, Path(s) if str(s) else source)


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor
