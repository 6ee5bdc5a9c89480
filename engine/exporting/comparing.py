"""Whether a file gives what PyTorch gives: every file is loaded again by what will run it, and asked."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.exporting.network import Detector
from models.backends.multi import DetectMultiBackend
from utils.errors import BackendError

EXACT, HALF, INT8 = 1e-4, 2e-2, 5e-2  # largest difference; for int8, of which single numbers may be far off, the mean
# Rounding alone decides between boxes of equal scores, so some finished detections have no partner on the other side
_STRANGERS, _STRANGERS_WHEN_ROUGH = 0.02, 0.5


def compare(path: Path, detector: Detector, *, half: bool, int8: bool, dynamic: bool) -> float:
    """Run a file and the network it was made from on the same images.

    Args:
        path: the file or folder.
        detector: what it was made from.
        half: whether numbers in it have 16 bits.
        int8: whether its convolutions compute in 8 bits.
        dynamic: whether it takes all sizes: then two are tried.

    Returns:
        The largest difference, boxes counted as shares of the picture's longer side; for ``int8`` the mean one. Of
        finished detections that of nearly all from the most similar one, in 16 and 8 bits that of half of them.

    Raises:
        BackendError: when it is above the limit, or the file cannot be run.
    """
    shapes = [detector.shape]
    if dynamic:
        _, channels, height, width = detector.shape
        shapes.append((3, channels, height + detector.stride, width))
    try:
        backend = DetectMultiBackend(path, device=detector.device)
        worst = max(_difference(backend, detector, shape, half=half, int8=int8) for shape in shapes)
    except BackendError as error:
        reason = str(error).replace(str(path), "it")
        raise BackendError(f"{path.name}: is written but cannot be used, so it is not kept: {reason}") from error
    limit = INT8 if int8 else HALF if half else EXACT
    if not worst <= limit:  # also true of nan
        raise BackendError(f"{path.name}: differs from PyTorch by {worst:.1e}, at most {limit:.0e} was expected")
    return worst


def _difference(
    backend: DetectMultiBackend, detector: Detector, shape: tuple[int, ...], *, half: bool, int8: bool
) -> float:
    images = detector.images(shape)
    with torch.inference_mode():
        wanted, found = detector.network(images).float(), backend(images).float()
    if wanted.shape != found.shape:
        raise BackendError(f"its output has the shape {tuple(found.shape)}, in PyTorch it has {tuple(wanted.shape)}")
    unit = wanted.new_ones(wanted.shape[-1])
    unit[:4] = max(shape[2:])
    if detector.nms:
        apart = _from_partners(wanted / unit, found / unit)
        strangers = _STRANGERS_WHEN_ROUGH if half or int8 else _STRANGERS
        return float(apart.quantile(1 - strangers)) if len(apart) else 0.0
    difference = (wanted - found).abs() / unit
    return float(difference.mean() if int8 else difference.max())


def _from_partners(wanted: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """How far each finished detection, of (B, n, 6), is from the most similar one on the other side."""
    apart = torch.cdist(wanted, found, p=torch.inf)  # (B, n, n)
    return torch.cat([apart.amin(2)[wanted[..., 4] > 0], apart.amin(1)[found[..., 4] > 0]])
