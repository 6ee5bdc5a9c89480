"""A file that BiFormer's authors published, as the start of a detector's training.

Such a file is a dict with the state dict of an ImageNet classifier under ``model`` (of a detector, under
``state_dict``). Its tensors become those of the backbone rows of ``yolov5-biformer-{t,s,b}.yaml``, whose stem
normalises images as the classifier was trained with; the neck and the head start fresh.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.attention.released import released_to_rows
from models.checkpoint import Checkpoint, ModelMeta
from models.config import load_model_yaml
from utils.errors import CheckpointError
from utils.weights_file import load_plain

RELEASED_SUFFIX = ".pth"
NORM_ROWS = {1: 8, 2: 9, 3: 10}  # stage -> row of its norm before the neck; files of detectors have these

# (blocks of each stage, channels of the first) -> the YAML with this backbone
YAML_OF_SIZE = {
    ((2, 2, 8, 2), 64): "yolov5-biformer-t.yaml",
    ((4, 4, 18, 4), 64): "yolov5-biformer-s.yaml",
    ((4, 4, 18, 4), 96): "yolov5-biformer-b.yaml",
}


def read_released(path: str | Path) -> Checkpoint:
    """Read a published BiFormer; nothing in the file can run code.

    Args:
        path: the file.

    Returns:
        A checkpoint with the tensors of the backbone rows, 0 to 10, alone. ``meta.yaml`` is the detector of this size,
        and empty for a size that was never published; ``meta.names`` and ``meta.stride`` are empty.

    Raises:
        CheckpointError: when the file is missing, damaged or holds no BiFormer.
    """
    with torch.serialization.safe_globals([argparse.Namespace]):  # their files keep the command line's settings too
        content = load_plain(path)
    state = _state_dict(content)
    if state is None:
        raise CheckpointError(f"{path}: is a PyTorch file, but holds no state dict, neither alone nor under 'model'")
    try:
        rows = released_to_rows(state, norms=NORM_ROWS)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    name = YAML_OF_SIZE.get(_size(state))
    config = load_model_yaml(name)[0] if name else {}
    return Checkpoint(model=rows, meta=ModelMeta(yaml=config, names={}, nc=config.get("nc", 0), stride=[]))


def _state_dict(content: Any) -> dict[str, Tensor] | None:
    """The tensors of a file's content, wherever they are kept."""
    if not isinstance(content, Mapping):
        return None
    found = next((content[key] for key in ("model", "state_dict") if isinstance(content.get(key), Mapping)), content)
    tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    return tensors or None


def _size(state: Mapping[str, Tensor]) -> tuple[tuple[int, ...], int]:
    """Blocks of each stage, and channels of the first."""
    places = [re.search(r"(?:^|\.)stages\.(\d+)\.(\d+)\.", key) for key in state]
    blocks = {(int(place[1]), int(place[2])) for place in places if place}
    depths = tuple(sum(stage == wanted for stage, _ in blocks) for wanted in range(4))
    stem = next((value for key, value in state.items() if key.endswith("downsample_layers.0.3.weight")), None)
    return depths, 0 if stem is None else len(stem)
