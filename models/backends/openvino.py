"""OpenVINO folders, run by OpenVINO on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from models.backends.protocol import FileFacts, existing
from utils.environment import import_optional
from utils.errors import BackendError, first_line
from utils.yaml_io import yaml_load


class OpenVINOBackend:
    """A folder with an ``.xml``, its ``.bin`` and a ``.yaml``. See :class:`models.backends.protocol.Backend`."""

    def __init__(self, path: str | Path) -> None:
        """Load and compile, for single images as soon as possible and with as many threads as torch has.

        Args:
            path: the folder, or the ``.xml`` in it.

        Raises:
            BackendError: when OpenVINO is not installed, or the folder is incomplete, damaged or no detector.
        """
        xml = _find_xml(existing(path))
        openvino = import_optional("openvino", xml.name)
        _check_xml(xml)
        # Without this hint a CPU that knows bfloat16 computes in it, and mAP is another
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        try:
            network = openvino.Core().read_model(str(xml))
            shapes = [_shape(port) for port in (network.input(0), network.output(0))]
            self.model = openvino.compile_model(network, "CPU", settings)
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"{xml}: damaged, or no OpenVINO model ({first_line(error)})") from error
        notes = next(iter(sorted(xml.parent.glob("*.yaml"))), None)
        metadata = yaml_load(notes) if notes else {}
        facts = FileFacts.of_metadata(metadata, str(notes or xml)).with_shapes(*shapes, str(xml))
        self.facts = replace(facts, half=network.input(0).get_element_type().get_type_name() == "f16")
        self._origin = str(xml)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """See the protocol."""
        try:
            found = self.model(images.contiguous().cpu().numpy())[0]
        except (RuntimeError, ValueError) as error:
            raise BackendError(
                f"{self._origin}: cannot take images {tuple(images.shape)} ({first_line(error)})"
            ) from error
        return torch.from_numpy(found.copy()).to(images.device)  # the runtime uses its memory again


def _find_xml(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*.xml"))
    if len(found) != 1:
        raise BackendError(f"{path}: expected a folder with one .xml file, found {len(found)}")
    return found[0]


def _check_xml(path: Path) -> None:
    """Refuse what is cut off or another thing: OpenVINO itself would try it as files of many programs, aloud."""
    try:
        found = ElementTree.parse(path).getroot().tag
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise BackendError(f"{path}: damaged, or no OpenVINO model ({first_line(error)})") from error
    if found != "net":
        raise BackendError(f"{path}: no OpenVINO model (expected <net> in it, found <{found}>)")


def _shape(port: Any) -> list[int | None]:
    return [size.get_length() if size.is_static else None for size in port.get_partial_shape()]
