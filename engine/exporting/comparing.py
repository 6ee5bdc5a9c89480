"""Whether a file gives what PyTorch gives: every file is loaded again by what will run it, and asked."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.exporting.network import Detector
from models.backends.multi import DetectMultiBackend
from utils.errors import BackendError

EXACT, HALF, INT8 = 1e-4, 2e-2, 5e-2  # largest difference; for int8, of which single numbers may be far off, the mean
_MOST_STRANGERS = 0.02  # of finished detections: rounding alone decides between boxes of equal scores


def compare(path: Path, detector: Detector, *, half: bool, int8: bool, dynamic: bool) -> float:
    """Run a file and the network it was made from on the same images.

    Args:
        path: the file or folder.
        detector: what it was made from.
        half: whether numbers in it have 16 bits.
        int8: whether its convolutions compute in 8 bits.
        dynamic: whether it takes all sizes: then two are tried.

    Returns:
        The largest difference, boxes counted as shares of the picture's longer side; for ``int8`` the mean one.

    Raises:
        BackendError: when it is above the limit, or the file cannot be run.
    """
    backend = DetectMultiBackend(path, device=detector.device)
    shapes = [detector.shape]
    if dynamic:
        _, channels, height, width = detector.shape
        shapes.append((3, channels, height + detector.stride, width))
    worst = max(_difference(backend, detector, shape, int8=int8) for shape in shapes)
    limit = INT8 if int8 else HALF if half else EXACT
    if not worst <= limit:  # also true of nan
        raise BackendError(f"{path.name}: differs from PyTorch by {worst:.1e}, at most {limit:.0e} was expected")
    return worst


def _difference(backend: DetectMultiBackend, detector: Detector, shape: tuple[int, ...], *, int8: bool) -> float:
    images = detector.images(shape)
    with torch.inference_mode():
        wanted, found = detector.network(images).float(), backend(images).float()
    if wanted.shape != found.shape:
        raise BackendError(f"its output has the shape {tuple(found.shape)}, in PyTorch it has {tuple(wanted.shape)}")
    unit = wanted.new_ones(wanted.shape[-1])
    unit[:4] = max(shape[2:])
    if detector.nms:
        return _of_partners(wanted / unit, found / unit)
    difference = (wanted - found).abs() / unit
    return float(difference.mean() if int8 else difference.max())


def _of_partners(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """Largest difference of finished detections (B, n, 6) from the most similar ones on the other side."""
    apart = torch.cdist(wanted, found, p=torch.inf)  # (B, n, n)
    nearest = torch.cat([apart.amin(1), apart.amin(2)]).flatten()
    return float(nearest.quantile(1 - _MOST_STRANGERS))
