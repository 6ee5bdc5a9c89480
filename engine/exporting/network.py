"""A detector as it is exported: one input, one output, nothing that only training needs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.options.export import ExportOptions
from models.graph_nms import DetectorWithNMS
from models.loading import attempt_load
from utils.errors import CheckpointError, OptionError
from utils.sizes import check_img_size, grid_size

RGB = 3  # channels
_SEED = 0  # of the images that a graph is traced and compared with


class _PredictionsAlone(nn.Module):
    """A detector without its raw levels: (B, 3, H, W) -> (B, rows, 5 + classes)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.network(images)[0]


@dataclass(frozen=True)
class Detector:
    """A loaded detector and the form in which it is wanted.

    Attributes:
        network: gives one tensor; float32, in evaluation mode.
        names: class names by index.
        stride: px, what image sizes divide by.
        shape: (B, 3, H, W) of the input.
        nms: whether the network gives finished detections.
    """

    network: nn.Module
    names: dict[int, str]
    stride: int
    shape: tuple[int, int, int, int]
    nms: bool

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def metadata(self) -> dict[str, Any]:
        """What every format carries along."""
        notes: dict[str, Any] = {"stride": self.stride, "names": self.names}
        return {**notes, "nms": True} if self.nms else notes

    def images(self, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """Noise in 0..1, always the same; of the detector's own shape unless told otherwise."""
        generator = torch.Generator().manual_seed(_SEED)
        return torch.rand(shape or self.shape, generator=generator).to(self.device)

    def copied(self, *, half: bool = False, dynamic: bool = False) -> nn.Module:
        """A network of its own for an exporter, which may leave its marks in it.

        Args:
            half: in float16.
            dynamic: with cell offsets made anew for each image, so that its size may stay open.
        """
        network = copy.deepcopy(self.network)
        for module in network.modules():
            if hasattr(module, "forget_grids"):
                module.forget_grids()
                module.dynamic = dynamic
        return network.half() if half else network


def load_detector(weights: str | Path, options: ExportOptions, device: torch.device) -> Detector:
    """Load a checkpoint in the form that the options ask for.

    Args:
        weights: a ``.pt`` file.
        options: the command's options.
        device: where to trace.

    Raises:
        OptionError: when it is no ``.pt`` file.
        CheckpointError: when it cannot be used.
    """
    if Path(weights).suffix.lower() != ".pt":
        raise OptionError(f"--weights {weights}: expected the .pt file that the others are made from")
    model = attempt_load(weights, device).requires_grad_(False)
    channels = model.yaml.get("ch", RGB)
    if channels != RGB:
        raise CheckpointError(
            f"{weights}: takes images of {channels} channels; only detectors of RGB images are exported"
        )
    model.model[-1].export = True
    stride = grid_size(model.stride)
    height, width = check_img_size(options.image_size(), stride)
    form = DetectorWithNMS(model, options.conf_thres, options.iou_thres) if options.nms else _PredictionsAlone(model)
    names = {int(index): str(name) for index, name in model.names.items()}
    return Detector(form.eval(), names, stride, (options.batch_size, RGB, height, width), options.nms)
