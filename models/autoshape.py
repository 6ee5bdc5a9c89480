"""A detector that takes pictures as they come: files, arrays, Pillow images, of any sizes and mixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from models.detections import Detections
from models.graph_nms import suppression_of
from utils.augmentations import letterbox, letterbox_geometry
from utils.boxes import scale_boxes
from utils.errors import OptionError
from utils.log import LOGGER
from utils.network_input import to_network
from utils.pictures import Picture, read_pictures
from utils.profiling import Profile
from utils.sizes import grid_size, make_divisible

Shape = tuple[int, int]


class AutoShape(nn.Module):
    """Reads, letterboxes, predicts, suppresses, and gives boxes in the pixels of each picture.

    Its results are those of ``detect.py``, where boxes are rounded to whole pixels.

    Attributes:
        conf: least confidence, 0..1.
        iou: overlap above which the less confident box goes, 0..1.
        agnostic: classes suppress each other.
        multi_label: a box may count for several classes.
        classes: class numbers to keep; all when None.
        max_det: most boxes a picture.
        amp: mixed precision, where the model is not on the CPU.
        model: the wrapped detector. names, stride (px, at least 32), yaml, nc: its own.
    """

    def __init__(self, model: nn.Module, verbose: bool = True) -> None:
        """Wrap a detector.

        Args:
            model: a DetectionModel, an Ensemble or a DetectMultiBackend; put into evaluation mode.
            verbose: log that it was wrapped.
        """
        super().__init__()
        if verbose:
            LOGGER.info("AutoShape: the model takes files, arrays and pictures of any size")
        self.model = model.eval()
        self.names = dict(model.names)
        self.nc = len(self.names)
        self.stride = grid_size(model.stride)
        described = model if hasattr(model, "yaml") else getattr(model, "model", None)
        self.yaml = getattr(described, "yaml", None)
        self.conf, self.iou, self.max_det = 0.25, 0.45, 1000
        self.agnostic = self.multi_label = self.amp = False
        self.classes: Sequence[int] | int | None = None

    def forward(self, ims: Any, size: int | Sequence[int] = 640, augment: bool = False, profile: bool = False) -> Any:
        """Detect.

        Args:
            ims: a path, a Pillow image or an RGB array, or a list of these; see :func:`utils.pictures.read_pictures`.
                A tensor (B, 3, H, W) goes straight to the model.
            size: px that the longer side of each picture is scaled to; of a pair the larger counts. A file of one
                input shape gets that shape.
            augment: test-time augmentation.
            profile: log the time of each layer, where PyTorch runs the network.

        Returns:
            :class:`models.detections.Detections`; for a tensor what the model gives.

        Raises:
            DatasetError: when a picture cannot be read.
            OptionError: when a size or a threshold is out of range.
        """
        options = {"augment": augment, **({"profile": True} if profile and self._in_pytorch else {})}
        device, dtype = self._place()
        if isinstance(ims, torch.Tensor):
            return self._predict(ims.to(device, dtype), options)
        longer = make_divisible(_longer_side(size), self.stride)
        prepare, infer, select = Profile(), Profile(), Profile()
        with prepare:
            pictures = read_pictures(ims)
            if not pictures:
                return Detections([], [], [], names=self.names)
            pixels = torch.from_numpy(self._letterbox(pictures, longer))
            batch = to_network(pixels, device, half=dtype == torch.float16).to(dtype)
        with infer:
            predictions = self._predict(batch, options)
        with select:
            found = self._select(predictions, batch.shape[2:], pictures)
        times = [1e3 * watch.t / len(pictures) for watch in (prepare, infer, select)]
        arrays, files = zip(*((picture.pixels, picture.file) for picture in pictures), strict=True)
        return Detections(arrays, found, files, times, self.names, batch.shape)

    @property
    def _in_pytorch(self) -> bool:
        """Whether PyTorch runs the network, rather than a file of another format."""
        return getattr(self.model, "pt", True)

    def _place(self) -> tuple[torch.device, torch.dtype]:
        """Where the model is and what it computes with; a model of another format has no parameters to tell."""
        parameter = next(self.model.parameters(), None)
        if parameter is not None:
            return parameter.device, parameter.dtype
        return torch.device(self.model.device), torch.float16 if self.model.fp16 else torch.float32

    def _letterbox(self, pictures: Sequence[Picture], side: int) -> np.ndarray:
        """(B, 3, h, w) uint8 RGB, all pictures in one shape, their longer sides ``side`` px."""
        fixed = getattr(self.model, "hw", None)  # of a file that takes one shape only
        if fixed is not None:
            exact, shape = False, fixed
        else:
            shapes = {_padded_shape(picture.pixels.shape[:2], side, self.stride) for picture in pictures}
            exact = len(shapes) == 1
            shape = (side, side) if exact else tuple(map(max, zip(*shapes, strict=True)))
        boxed = [letterbox(picture.pixels, shape, auto=exact, stride=self.stride)[0] for picture in pictures]
        return np.ascontiguousarray(np.stack(boxed).transpose(0, 3, 1, 2))

    @torch.inference_mode()
    def _predict(self, batch: torch.Tensor, options: dict[str, bool]) -> Any:
        mixed = self.amp and batch.device.type != "cpu"
        with torch.autocast(batch.device.type, enabled=mixed):
            # Past a backend's own precision: the network takes what .half() and the like have made of it
            network = self.model.model if hasattr(self.model, "pt") and self._in_pytorch else self.model
            return network(batch, **options)

    @torch.no_grad()
    def _select(self, predictions: Any, input_hw: Sequence[int], pictures: Sequence[Picture]) -> list[torch.Tensor]:
        """Suppress, then go back to each picture's own pixels."""
        found = suppression_of(self.model)(
            predictions,
            self.conf,
            self.iou,
            classes=[self.classes] if isinstance(self.classes, int) else self.classes,
            agnostic=self.agnostic,
            multi_label=self.multi_label,
            max_det=self.max_det,
        )
        for boxes, picture in zip(found, pictures, strict=True):
            scale_boxes(input_hw, boxes[:, :4], picture.pixels.shape)  # in place
        return found


def _longer_side(size: int | Sequence[int]) -> int:
    """Of one number or of two the larger."""
    try:
        sides = [int(side) for side in np.ravel(size)]
    except (TypeError, ValueError):
        sides = []
    if isinstance(size, str) or len(sides) not in (1, 2) or min(sides) < 1:
        raise OptionError(f"size={size}: expected a number of px from 1, or height and width")
    return max(sides)


def _padded_shape(shape_hw: Shape, side: int, stride: int) -> Shape:
    """Height and width of a picture whose longer side is scaled to ``side``, padded to multiples of the stride."""
    inner_hw, _, pad_wh = letterbox_geometry(shape_hw, (side, side), auto=True, stride=stride)
    return tuple(inner + round(2 * pad) for inner, pad in zip(inner_hw, reversed(pad_wh), strict=True))
