"""One wrapper around a trained detector, whatever file it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import nn

from models.backends.choice import kind_of, load_backend
from utils.datasets.config import dataset_names
from utils.errors import BackendError

_UNNAMED = 999  # classes are given numbers as names up to here, where a file does not tell how many there are


class DetectMultiBackend(nn.Module):
    """A trained detector ready for images: (B, 3, H, W) in 0..1 -> predictions (B, rows, 5 + classes).

    A file of fixed sizes takes images of ``hw`` only, but any number of them: they go in portions of its batch.

    Args:
        weights: a ``.pt``, ``.torchscript`` or ``.onnx`` file or a folder ``*_openvino_model``; a list of ``.pt`` for
            an ensemble.
        device: where to run.
        dnn: run ONNX through OpenCV instead of ONNX Runtime.
        data: a data set YAML whose class names replace numbers, for weights that carry none.
        fp16: half precision, for ``.pt``; on the CPU a warning, and single precision. In other files it is fixed.
        fuse: fold batch norms.

    Attributes:
        model: the network, or what runs it. stride: px, at least 32. names: class index -> name. fp16: takes float16.
        pt, jit, onnx, xml, dnn: True for what it is: PyTorch, TorchScript, ONNX Runtime, OpenVINO, OpenCV. The flags
        of formats that are not supported are False. hw: height and width that it takes, px; None for any. nms: gives
        finished detections, see :class:`models.backends.protocol.FileFacts`. nc: number of classes.

    Raises:
        ProjectError: when a file cannot be used, or a package for it is missing.
    """

    def __init__(
        self,
        weights: str | Path | Sequence[str | Path] = "yolov5s.pt",
        device: torch.device | str = "cpu",
        dnn: bool = False,
        data: str | Path | None = None,
        fp16: bool = False,
        fuse: bool = True,
    ):
        super().__init__()
        paths = [weights] if isinstance(weights, (str, Path)) else list(weights)
        self.device = torch.device(device)
        self.backend = load_backend(paths, self.device, dnn=dnn, half=fp16, fuse=fuse)
        self.model = self.backend.model
        facts = self.backend.facts
        self.fp16, self.stride, self.hw, self.nms = facts.half, facts.stride, facts.hw, facts.nms
        given = dataset_names(data) if data is not None else {}
        self.names = _names(facts.names, given, facts.classes)
        self.nc = facts.classes or len(self.names)
        kind = kind_of(paths[0])
        self.pt, self.jit, self.xml = kind == "pt", kind == "torchscript", kind == "openvino"
        self.dnn, self.onnx = dnn, kind == "onnx" and not dnn
        self.engine = self.coreml = self.saved_model = self.pb = self.tflite = self.edgetpu = False
        self.tfjs = self.paddle = self.triton = self.nhwc = False
        self.eval()  # who evaluates it puts it back into the mode found, and modules are born training

    def forward(
        self, im: torch.Tensor, augment: bool = False, visualize: bool | str | Path = False
    ) -> list | torch.Tensor:
        """Predict.

        Args:
            im: (B, 3, H, W) in 0..1.
            augment: test-time augmentation, for ``.pt``.
            visualize: accepted for callers of old.

        Returns:
            For ``.pt`` [predictions, raw levels], see :class:`models.heads.Detect`; otherwise the predictions.

        Raises:
            BackendError: when the file cannot take such images.
        """
        images = im.to(torch.float16) if self.fp16 else im.float()
        if self.pt:
            return self.backend.with_levels(images, augment)
        if augment:
            raise BackendError("--augment needs .pt weights: an exported file has no room for images of other sizes")
        if self.hw is not None and tuple(images.shape[2:]) != self.hw:
            sizes = ["x".join(map(str, pair)) for pair in (self.hw, tuple(images.shape[2:]))]
            raise BackendError(f"this file takes images of {sizes[0]} px, not {sizes[1]}; export one for these")
        batch = self.backend.facts.batch
        return self.backend(images) if batch is None else _in_portions(self.backend, images, batch)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """What ``.half()``, ``.to(device)`` and the like come down to: an exported file stays as it was written."""
        return super()._apply(fn, recurse) if self.pt else self

    def warmup(self, imgsz: tuple[int, int, int, int] = (1, 3, 640, 640)) -> None:
        """Run once on a black image, so that a GPU has compiled and allocated; on the CPU there is nothing to warm."""
        if self.device.type != "cpu":
            dtype = torch.half if self.fp16 else torch.float
            self.forward(torch.zeros(*imgsz, dtype=dtype, device=self.device))


def _in_portions(run: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, size: int) -> torch.Tensor:
    """Run on portions of exactly ``size`` images, the last filled up with black ones; their rows are cut off."""
    found = []
    for portion in images.split(size):
        missing = size - len(portion)
        whole = torch.cat([portion, portion.new_zeros(missing, *portion.shape[1:])]) if missing else portion
        found.append(run(whole)[: len(portion)])
    return found[0] if len(found) == 1 else torch.cat(found)


def _names(own: dict[int, str] | None, given: dict[int, str], count: int | None) -> dict[int, str]:
    """A file's own names; the given ones where it has none or numbers only; else ``class0``, ``class1``, ..."""
    if own and not (given and all(name == str(index) for index, name in own.items())):
        return own
    return given or {index: f"class{index}" for index in range(count or _UNNAMED)}
