"""Random number generators: seeding all of them, and taking their state along in a checkpoint."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch

_NUMPY_SEEDS = 1 << 32  # as many as NumPy knows


def init_seeds(seed: int = 0, deterministic: bool = False) -> None:
    """Seed Python, NumPy and torch; called by entry points.

    Args:
        seed: any whole number from 0.
        deterministic: also ask torch for reproducible algorithms; where it has none it warns and goes on.
    """
    random.seed(seed)
    np.random.seed(seed % _NUMPY_SEEDS)
    torch.manual_seed(seed)  # covers every CUDA device as well
    if deterministic:
        set_determinism(None)


def set_determinism(wanted: bool | None) -> None:
    """Choose between repeatable and possibly faster algorithms of torch; called by entry points.

    Args:
        wanted: True: an operation without a repeatable implementation is an error. None: such an operation is only
            named in a warning. False: whatever is fastest, cuDNN trying out its algorithms.
    """
    repeatable = wanted is not False
    if repeatable:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = not repeatable
    torch.backends.cudnn.deterministic = repeatable
    torch.use_deterministic_algorithms(repeatable, warn_only=wanted is None)
    # Writing NaN into every new tensor finds bugs, not differences between runs, and costs time in each layer.
    torch.utils.deterministic.fill_uninitialized_memory = False


def random_state() -> dict[str, Any]:
    """State of all generators, made of tensors, numbers and tuples, so that it loads without pickled classes."""
    kind, keys, position, has_gauss, cached_gauss = np.random.get_state()
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached_gauss)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put all generators back to a state of :func:`random_state`."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached_gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached_gauss))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([entry.cpu() for entry in state["cuda"]][: torch.cuda.device_count()])
