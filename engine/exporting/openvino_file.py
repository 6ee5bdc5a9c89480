"""OpenVINO, made from the ONNX file."""

from __future__ import annotations

from pathlib import Path

from engine.exporting.network import Detector
from utils.environment import import_optional
from utils.errors import BackendError, first_line
from utils.yaml_io import yaml_save


def write_openvino(detector: Detector, onnx_file: Path, folder: Path, *, half: bool = False) -> None:
    """Convert an ONNX file into a folder of ``.xml``, ``.bin`` and ``.yaml`` with stride and names.

    Args:
        detector: what is in the file.
        onnx_file: float32, or with 8 bits in its convolutions.
        folder: to be made.
        half: weights in the file in float16.

    Raises:
        BackendError: when OpenVINO is not installed or cannot convert the file.
    """
    openvino = import_optional("openvino", "--include openvino")
    folder.mkdir()
    try:
        network = openvino.Core().read_model(str(onnx_file))  # its convert_model reports to its maker, over the network
        openvino.save_model(network, str(folder / f"{onnx_file.stem}.xml"), compress_to_fp16=half)
    except (RuntimeError, ValueError) as error:
        raise BackendError(f"OpenVINO: cannot convert this network ({first_line(error)})") from error
    yaml_save(folder / f"{onnx_file.stem}.yaml", detector.metadata())
