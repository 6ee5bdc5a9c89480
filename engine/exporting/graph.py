"""Questions about an ONNX graph."""

from __future__ import annotations

from typing import Any


def nodes_behind_convolutions(graph: Any) -> tuple[list[str], list[str]]:
    """What stands at the end of a detector's graph: the decoding of boxes, and the convolutions that it reads.

    Args:
        graph: of an ONNX model; every node has a name of its own.

    Returns:
        Names of the nodes behind the last convolutions, and of these convolutions.
    """
    makers = {name: node for node in graph.node for name in node.output}
    decoding: list[str] = []
    last: list[str] = []
    waiting, seen = [output.name for output in graph.output], set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type == "Conv":
            last.append(node.name)
        else:
            decoding.append(node.name)
            waiting += list(node.input)
    return decoding, last
