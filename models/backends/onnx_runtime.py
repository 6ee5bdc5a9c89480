"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from models.backends.protocol import FileFacts, existing
from utils.environment import import_optional
from utils.errors import BackendError, first_line
from utils.log import LOGGER

_SILENT = 4  # of ONNX Runtime's log levels; its errors are raised as well


class ONNXRuntimeBackend:
    """An ``.onnx`` file. See :class:`models.backends.protocol.Backend`."""

    def __init__(self, path: str | Path, device: torch.device) -> None:
        """Load; on a GPU where this ONNX Runtime can, else on the CPU with as many threads as torch has.

        Raises:
            BackendError: when ONNX Runtime is not installed, or the file is damaged or no detector.
        """
        source = existing(path)
        runtime = import_runtime(source.name)
        settings = runtime.SessionOptions()
        settings.log_severity_level = _SILENT
        settings.intra_op_num_threads = torch.get_num_threads()
        try:
            self.model = runtime.InferenceSession(
                str(source),
                settings,
                providers=_providers(runtime, device),
                enable_fallback=0,  # which prints
            )
        except _errors() as error:
            raise BackendError(f"{source}: damaged, or no ONNX file ({first_line(error)})") from error
        inputs, outputs = self.model.get_inputs(), self.model.get_outputs()
        if len(inputs) != 1 or not outputs:
            raise BackendError(f"{source}: expected one input, the images; found {len(inputs)}; it is no detector")
        self._name, self._output = inputs[0].name, outputs[0].name
        notes = self.model.get_modelmeta().custom_metadata_map
        facts = FileFacts.of_metadata(notes, str(source)).with_shapes(inputs[0].shape, outputs[0].shape, str(source))
        self.facts = replace(facts, half=inputs[0].type == "tensor(float16)")
        self._origin = str(source)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """See the protocol."""
        try:
            found = self.model.run([self._output], {self._name: images.contiguous().cpu().numpy()})
        except _errors() as error:
            raise BackendError(
                f"{self._origin}: cannot take images {tuple(images.shape)} ({first_line(error)})"
            ) from error
        return torch.from_numpy(found[0]).to(images.device)


def import_runtime(purpose: str) -> ModuleType:
    """ONNX Runtime, told to report to nobody: on Windows its maker's files do.

    Args:
        purpose: who needs it, for the error.

    Raises:
        BackendError: when it is not installed.
    """
    runtime = import_optional("onnxruntime", purpose)
    runtime.disable_telemetry_events()
    return runtime


def _providers(runtime: Any, device: torch.device) -> list[str]:
    available = runtime.get_available_providers()
    if device.type == "cuda" and "CUDAExecutionProvider" in available:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    if device.type != "cpu":
        LOGGER.warning("this ONNX Runtime knows no %s: it runs on the CPU (pip install onnxruntime-gpu)", device.type)
    return ["CPUExecutionProvider"]


def _errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; its exceptions have no common base of their own."""
    raised = vars(import_optional("onnxruntime.capi.onnxruntime_pybind11_state", "ONNX Runtime"))
    own = [kind for kind in raised.values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError)
