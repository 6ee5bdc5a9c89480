"""ONNX, by the one of torch's two exporters that can do what is asked.

The older one records a run of the network; sizes become constants, graphs are small, and it is quick. The newer one
(``torch.export``) keeps sizes open, also where attention cuts a map into regions, and knows the newest opsets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.exporting.network import Detector
from engine.exporting.quiet import quiet
from models.backends.onnx_runtime import import_runtime
from utils.environment import import_optional
from utils.errors import BackendError, first_line
from utils.log import LOGGER

NEEDS = "--include onnx"
_RECORDER_OPSET = 20  # the newest that the older exporter writes
_OPEN_SIDE = 256  # cells of the largest stride up to which a side may grow
_OPEN_BATCH = 4096


def write_onnx(detector: Detector, path: Path, *, opset: int, dynamic: bool = False, simplify: bool = False) -> None:
    """Write a detector as ONNX: input ``images``, output ``output0``, metadata ``stride`` and ``names``.

    Args:
        detector: what to write.
        path: where.
        opset: version of the operations, which the file then has.
        dynamic: batch, height and width stay open.
        simplify: fold what is constant.

    Raises:
        BackendError: when a package is missing, or the exporter cannot write this network or opset.
    """
    onnx = import_optional("onnx", NEEDS)
    network = detector.copied(dynamic=dynamic)
    try:
        with quiet():
            if dynamic or opset > _RECORDER_OPSET:
                import_optional("onnxscript", NEEDS)
                _export_program(network, detector, path, opset, dynamic=dynamic)
            else:
                _record(network, detector, path, opset)
    except (RuntimeError, ValueError, TypeError, torch.onnx.OnnxExporterError) as error:
        raise BackendError(f"ONNX: torch cannot write this network at opset {opset} ({first_line(error)})") from error
    if simplify:
        _fold(path)
    content = onnx.load(str(path))
    written = next(entry.version for entry in content.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:
        raise BackendError(f"--opset {opset}: torch writes this network at opset {written}; give --opset {written}")
    if dynamic:
        _name_open_sizes(content.graph, detector.nms)
    for key, value in detector.metadata().items():
        content.metadata_props.add(key=key, value=str(value))
    onnx.save(content, str(path))


def _record(network: nn.Module, detector: Detector, path: Path, opset: int) -> None:
    torch.onnx.export(
        network,
        (detector.images(),),
        str(path),
        dynamo=False,
        opset_version=opset,
        input_names=["images"],
        output_names=["output0"],
    )


def _export_program(network: nn.Module, detector: Detector, path: Path, opset: int, *, dynamic: bool) -> None:
    shape, sizes = detector.shape, None
    if dynamic:
        # Two sides and a batch that differ from each other and from 1, or the exporter takes them for constants
        cells = max(2, *(side // detector.stride for side in shape[2:]))
        shape = (2, 3, cells * detector.stride, (cells + 1) * detector.stride)
        rows, columns = (torch.export.Dim(name, min=1, max=_OPEN_SIDE) for name in ("rows", "columns"))
        batch = torch.export.Dim("batch", min=1, max=_OPEN_BATCH)
        sizes = {"images": {0: batch, 2: detector.stride * rows, 3: detector.stride * columns}}
    torch.onnx.export(
        network,
        (detector.images(shape),),
        str(path),
        dynamo=True,
        opset_version=opset,
        dynamic_shapes=sizes,
        input_names=["images"],
        output_names=["output0"],
        external_data=False,
        verbose=False,
    )


def _name_open_sizes(graph: Any, nms: bool) -> None:
    """Call the open sizes what others expect: the exporter's names are formulas."""
    given = graph.input[0].type.tensor_type.shape.dim
    found = graph.output[0].type.tensor_type.shape.dim
    for size, name in zip((given[0], given[2], given[3], found[0]), ("batch", "height", "width", "batch"), strict=True):
        size.dim_param = name
    if not nms:
        found[1].dim_param = "anchors"
    del graph.value_info[:]  # these speak of the old names


def _fold(path: Path) -> None:
    """Have ONNX Runtime compute what is constant and drop what nobody reads; operations stay standard ones."""
    runtime = import_runtime("--simplify")
    onnx = import_optional("onnx", "--simplify")
    before = len(onnx.load(str(path)).graph.node)
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(path)
    runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    content = onnx.load(str(path))
    used = {node.domain for node in content.graph.node} | {""}
    kept = [entry for entry in content.opset_import if entry.domain in used]
    del content.opset_import[:]
    content.opset_import.extend(kept)
    onnx.save(content, str(path))
    LOGGER.info("ONNX: simplified from %d operations to %d", before, len(content.graph.node))
