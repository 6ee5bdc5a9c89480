"""Weights files into networks ready to predict, one or several at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from models.checkpoint import model_from_checkpoint, read_checkpoint
from models.yolo import DetectionModel
from utils.errors import CheckpointError
from utils.paths import find_weights


class Ensemble(nn.ModuleList):
    """Several detectors as one: each predicts, and their rows are joined for NMS to merge."""

    def forward(self, x: torch.Tensor, augment: bool = False, profile: bool = False, visualize: bool = False):
        """(B, C, H, W) -> (predictions of all models joined along the rows, None)."""
        return torch.cat([model(x, augment, profile, visualize)[0] for model in self], 1), None


def attempt_load(
    weights: str | Path | Sequence[str | Path],
    device: torch.device | str | None = None,
    inplace: bool = True,
    fuse: bool = True,
) -> DetectionModel | Ensemble:
    """Load one weights file, or several as an ensemble.

    Args:
        weights: a path, or a list of them; bare names are also looked up beside the project and in ``weights/``.
        device: where to put the result.
        inplace: accepted for older callers; decoding here never overwrites its input.
        fuse: fold batch norms into their convolutions.

    Returns:
        The network in float32 and evaluation mode, with the moving average's weights where there is one. An ensemble
        takes ``names``, ``nc`` and ``yaml`` from its first member and the largest ``stride``.

    Raises:
        ConfigError: when a file is not found.
        CheckpointError: when it cannot be used, or the members' class counts differ.
    """
    paths = [weights] if isinstance(weights, (str, Path)) else list(weights)
    models = [_load_one(path, device, inplace, fuse) for path in paths]
    if len(models) == 1:
        return models[0]
    if not models:
        raise CheckpointError("no weights given: name at least one file")
    counts = {str(path): model.nc for path, model in zip(paths, models, strict=True)}
    if len(set(counts.values())) > 1:
        raise CheckpointError(f"models of an ensemble must have the same number of classes, found {counts}")
    ensemble = Ensemble(models)
    first = models[0]
    ensemble.names, ensemble.nc, ensemble.yaml = first.names, first.nc, first.yaml
    ensemble.stride = max((model.stride for model in models), key=lambda stride: float(stride.max()))
    return ensemble.eval()


def _load_one(path: str | Path, device: torch.device | str | None, inplace: bool, fuse: bool) -> DetectionModel:
    found = find_weights(path)
    try:
        model = model_from_checkpoint(read_checkpoint(found))
    except CheckpointError as error:
        text = str(error)
        raise CheckpointError(text if str(found) in text else f"{found}: {text}") from error
    model.inplace = inplace
    if fuse:
        model.fuse()
    return model.to(device) if device is not None else model
