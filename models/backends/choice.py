"""From the name of a weights file to what runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from models.backends.onnx_runtime import ONNXRuntimeBackend
from models.backends.opencv_dnn import OpenCVBackend
from models.backends.openvino import OpenVINOBackend
from models.backends.protocol import Backend
from models.backends.pytorch import PyTorchBackend
from models.backends.torchscript import TorchScriptBackend
from utils.errors import BackendError
from utils.log import LOGGER
from utils.paths import find_weights

OPENVINO_FOLDER = "_openvino_model"
_ELSEWHERE = {
    ".engine": "TensorRT",
    ".mlmodel": "Core ML",
    ".mlpackage": "Core ML",
    ".tflite": "TensorFlow Lite",
    ".pb": "TensorFlow",
    "_saved_model": "TensorFlow",
    "_web_model": "TensorFlow.js",
    "_paddle_model": "PaddlePaddle",
}


def kind_of(path: str | Path) -> str:
    """What a weights file is, by its name: ``pt``, ``torchscript``, ``onnx`` or ``openvino``.

    Raises:
        BackendError: for all other names.
    """
    given = Path(path)
    kinds = {".pt": "pt", ".torchscript": "torchscript", ".onnx": "onnx", ".xml": "openvino"}
    if given.suffix.lower() in kinds:
        return kinds[given.suffix.lower()]
    if given.name.endswith(OPENVINO_FOLDER):
        return "openvino"
    platform = next((name for ending, name in _ELSEWHERE.items() if str(given).lower().endswith(ending)), None)
    what = f"is a file for {platform}, which runs it itself" if platform else "is no weights file by its name"
    raise BackendError(f"{path}: {what}; expected .pt, .torchscript, .onnx or a folder *{OPENVINO_FOLDER}")


def load_backend(
    weights: Sequence[str | Path], device: torch.device, *, dnn: bool = False, half: bool = False, fuse: bool = True
) -> Backend:
    """Load a detector.

    Args:
        weights: one file; several ``.pt`` make an ensemble, of other kinds the first counts.
        device: where to run.
        dnn: run ONNX by OpenCV.
        half: float16, for ``.pt``; in other files the type is fixed.
        fuse: fold batch norms, for ``.pt``.

    Raises:
        BackendError: when the file is of no known kind or cannot be used, or a package for it is missing.
        CheckpointError: as :func:`models.loading.attempt_load`.
        ConfigError: when a file is not found.
    """
    kinds = [kind_of(path) for path in weights] or ["pt"]
    if dnn and kinds[0] != "onnx":
        raise BackendError(f"--dnn {weights[0] if weights else ''}: OpenCV runs .onnx files; export one with export.py")
    if set(kinds) == {"pt"}:
        return PyTorchBackend(weights, device, half=half, fuse=fuse)
    if "pt" in kinds:
        raise BackendError(f"{', '.join(map(str, weights))}: only .pt files can vote together; give one kind")
    if len(weights) > 1:
        LOGGER.warning("%s alone is used: of exported files only one can be run at a time", weights[0])
    path = find_weights(weights[0])
    if kinds[0] == "openvino":
        return OpenVINOBackend(path)
    if kinds[0] == "torchscript":
        return TorchScriptBackend(path, device)
    return OpenCVBackend(path) if dnn else ONNXRuntimeBackend(path, device)
