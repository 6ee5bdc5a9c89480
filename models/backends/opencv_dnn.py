"""ONNX files, run by OpenCV's DNN module on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import torch

from models.backends.protocol import FileFacts, existing
from utils.environment import import_optional
from utils.errors import BackendError, first_line


class OpenCVBackend:
    """An ``.onnx`` file of fixed sizes. See :class:`models.backends.protocol.Backend`."""

    def __init__(self, path: str | Path) -> None:
        """Load.

        Raises:
            BackendError: when the file is damaged, no detector, or holds what OpenCV cannot run.
        """
        source = existing(path)
        self.facts = _read_facts(source)
        if self.facts.hw is None or self.facts.batch is None or self.facts.nms or self.facts.half:
            raise BackendError(
                f"{source}: OpenCV (--dnn) takes files of fixed sizes in float32, without suppression inside: "
                "export without --dynamic, --nms and --half"
            )
        try:
            with _silent():
                self.model = cv2.dnn.readNetFromONNX(str(source))
        except cv2.error as error:
            raise BackendError(f"{source}: OpenCV cannot read it ({_reason(error)}); leave out --dnn") from error
        self._origin = str(source)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """See the protocol."""
        try:
            with _silent():
                self.model.setInput(images.contiguous().cpu().numpy())
                found = self.model.forward()
        except cv2.error as error:
            raise BackendError(f"{self._origin}: OpenCV cannot run it ({_reason(error)}); leave out --dnn") from error
        return torch.from_numpy(found.copy()).to(images.device)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep OpenCV from writing about an error that it raises as well."""
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def _read_facts(source: Path) -> FileFacts:
    """Sizes and metadata, which OpenCV does not tell, of a graph that is whole: on others OpenCV may crash."""
    onnx = import_optional("onnx", f"{source.name} with --dnn")
    decode_error = import_optional("google.protobuf.message", "onnx").DecodeError
    invalid = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)
    try:
        content = onnx.load(str(source), load_external_data=False)
        onnx.checker.check_model(content, full_check=True)
    except (decode_error, *invalid, OSError, ValueError) as error:
        raise BackendError(f"{source}: damaged, or no ONNX file ({first_line(error)})") from error
    if len(content.graph.input) != 1 or not content.graph.output:
        raise BackendError(f"{source}: expected one input, the images; found {len(content.graph.input)}")
    given, found = content.graph.input[0].type.tensor_type, content.graph.output[0].type.tensor_type
    shapes = [[dim.dim_value or dim.dim_param for dim in kind.shape.dim] for kind in (given, found)]
    notes = {entry.key: entry.value for entry in content.metadata_props}
    facts = FileFacts.of_metadata(notes, str(source)).with_shapes(*shapes, str(source))
    return replace(facts, half=given.elem_type == onnx.TensorProto.FLOAT16)


def _reason(error: cv2.error) -> str:
    """OpenCV's own sentence, without the file and line in front of it."""
    return first_line(ValueError(str(error).replace("\n", " "))).partition("error: ")[2] or first_line(error)
