"""Feature maps: what each layer of a network gives for one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from utils.errors import OptionError


@dataclass(frozen=True)
class FeatureMap:
    """Output of one layer.

    Attributes:
        layer: its number.
        kind: its class's name.
        values: (C, H, W) float32.
    """

    layer: int
    kind: str
    values: np.ndarray


class FeatureTap:
    """Listens to the layers of a detector while it is open, as a context manager.

    With test-time augmentation the first pass, of the unchanged image, counts.
    """

    def __init__(self, model: nn.Module) -> None:
        """Choose the network.

        Args:
            model: with a Sequential ``model`` whose layers have ``i`` and ``type``.

        Raises:
            OptionError: when it is something else, such as an ensemble.
        """
        layers = getattr(model, "model", None)
        if not isinstance(layers, nn.Sequential):
            raise OptionError("--visualize needs a single PyTorch model; give one .pt file as --weights")
        self._layers = layers[:-1]  # the last one is the head, which gives boxes
        self._handles: list[Any] = []
        self._maps: dict[int, FeatureMap] = {}

    def __enter__(self) -> Self:
        self._handles = [layer.register_forward_hook(self._keep) for layer in self._layers]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _keep(self, layer: nn.Module, _: tuple, output: Any) -> None:
        is_map = isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1
        if is_map and layer.i not in self._maps:
            values = output[0].detach().float().cpu().numpy()
            self._maps[layer.i] = FeatureMap(int(layer.i), str(layer.type).split(".")[-1], values)

    def take(self) -> list[FeatureMap]:
        """The maps since the last call, by layer."""
        taken = [self._maps[number] for number in sorted(self._maps)]
        self._maps.clear()
        return taken
