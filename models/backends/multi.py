"""One wrapper around a trained detector, whatever file it comes from. For now that is a PyTorch checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from models.loading import attempt_load
from utils.datasets.config import dataset_names
from utils.errors import BackendError
from utils.log import LOGGER
from utils.sizes import grid_size


class DetectMultiBackend(nn.Module):
    """A trained detector ready for images: (B, 3, H, W) in 0..1 -> [predictions, raw levels].

    Args:
        weights: a ``.pt`` file, or a list of them for an ensemble.
        device: where to run.
        dnn: run ONNX through OpenCV (not available yet).
        data: a data set YAML whose class names replace numbers, for weights that carry none.
        fp16: half precision; on the CPU a warning, and single precision.
        fuse: fold batch norms.

    Attributes:
        model: the network. stride: px, at least 32. names: class index -> name. pt: True for PyTorch weights; the
        flags of the other formats are False.
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
        other = next((path for path in paths if Path(path).suffix.lower() != ".pt"), None)
        if other is not None or dnn:
            raise BackendError(f"{other or '--dnn'}: only .pt weights can be run so far")
        self.device = torch.device(device)
        if fp16 and self.device.type == "cpu":
            LOGGER.warning("half precision (--half) needs a GPU: going on in single precision")
            fp16 = False
        self.model = attempt_load(paths, self.device, fuse=fuse)
        self.fp16 = fp16
        self.model.half() if fp16 else self.model.float()
        self.stride = grid_size(self.model.stride)
        self.names = dict(self.model.names)
        given = dataset_names(data) if data is not None else {}
        if given and all(name == str(index) for index, name in self.names.items()):
            self.names = given
        self.pt = True
        self.jit = self.onnx = self.xml = self.engine = self.coreml = self.saved_model = self.pb = False
        self.tflite = self.edgetpu = self.tfjs = self.paddle = self.triton = self.dnn = self.nhwc = False

    def forward(self, im: torch.Tensor, augment: bool = False, visualize: bool | str | Path = False) -> list:
        """Predict; see :class:`models.heads.Detect` for what the two parts hold."""
        if self.fp16 and im.dtype != torch.float16:
            im = im.half()
        return list(self.model(im, augment=augment, visualize=visualize))

    def warmup(self, imgsz: tuple[int, int, int, int] = (1, 3, 640, 640)) -> None:
        """Run once on a black image, so that a GPU has compiled and allocated; on the CPU there is nothing to warm."""
        if self.device.type != "cpu":
            dtype = torch.half if self.fp16 else torch.float
            self.forward(torch.zeros(*imgsz, dtype=dtype, device=self.device))
