"""TorchScript: the operations that one run of the network was made of."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from engine.exporting.network import Detector
from engine.exporting.quiet import quiet
from models.backends.torchscript import NOTES


def write_torchscript(detector: Detector, path: Path, *, half: bool = False, frozen: bool = False) -> None:
    """Trace a detector and write it, with shape, stride and names inside.

    Args:
        detector: what to write.
        path: where.
        half: in float16.
        frozen: weights as constants of the graph.
    """
    images = detector.images()
    with quiet():  # about sizes that become constants, which is meant, and about newer formats
        traced = torch.jit.trace(detector.copied(half=half), images.half() if half else images, check_trace=False)
        graph = torch.jit.freeze(traced) if frozen else traced
        notes = json.dumps({"shape": list(detector.shape), **detector.metadata(), **({"half": True} if half else {})})
        torch.jit.save(graph, str(path), _extra_files={NOTES: notes})
