"""From float32 to float16, on the ONNX graph: tracing a network in float16 leaves a mixture that no runtime loads."""

from __future__ import annotations

from pathlib import Path

from engine.exporting.graph import nodes_behind_convolutions
from engine.exporting.quiet import quiet
from utils.environment import import_optional


def halve(source: Path, target: Path) -> None:
    """Write an ONNX file that takes float16 images and computes in float16.

    Boxes are still made in float32, and given so: near 640 px, half precision resolves half a pixel.

    Args:
        source: float32.
        target: where to write; metadata comes along.

    Raises:
        BackendError: when a package is missing.
    """
    onnx = import_optional("onnx", "--half")
    tools = import_optional("onnxruntime.transformers.float16", "--half")
    content = onnx.load(str(source))
    decoding, _ = nodes_behind_convolutions(content.graph)
    with quiet():
        halved = tools.convert_float_to_float16(
            content, keep_io_types=[output.name for output in content.graph.output], node_block_list=decoding
        )
    onnx.save(halved, str(target))
