"""TorchScript files, run by PyTorch."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import torch
import torchvision  # noqa: F401 - brings the operation that suppression inside a file needs

from models.backends.protocol import FileFacts, existing
from utils.errors import BackendError, first_line

NOTES = "config.txt"  # the file inside the file that holds shape, stride and names as JSON


class TorchScriptBackend:
    """A ``.torchscript`` file. See :class:`models.backends.protocol.Backend`."""

    def __init__(self, path: str | Path, device: torch.device) -> None:
        """Load onto a device.

        Raises:
            BackendError: when the file is damaged or no detector.
        """
        source = existing(path)
        notes = {NOTES: ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch recommends formats that are not asked for
                self.model = torch.jit.load(str(source), map_location=device, _extra_files=notes)
        except (RuntimeError, ValueError, OSError) as error:
            raise BackendError(f"{source}: damaged, or no TorchScript file ({first_line(error)})") from error
        self.model.eval()
        self._origin = str(source)
        kinds = [tensor.dtype for tensor in self.model.parameters()] or [torch.float32]
        facts, shape = self._read_notes(notes[NOTES], str(source))
        self.facts = replace(
            facts,
            batch=shape[0],
            hw=(shape[2], shape[3]),
            half=kinds[0] == torch.float16,
            classes=len(facts.names) if facts.names else None,
        )

    @staticmethod
    def _read_notes(text: str | bytes, origin: str) -> tuple[FileFacts, list[int]]:
        """Facts, and the shape (B, 3, H, W) that the file was traced for."""
        try:
            notes = json.loads(text)
            shape = [int(side) for side in notes["shape"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            shape = []
        if len(shape) != 4 or min(shape) < 1 or not isinstance(notes, dict):
            raise BackendError(f"{origin}: expected {NOTES} with shape, stride and names in it, as export.py writes")
        return FileFacts.of_metadata(notes, origin), shape

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """See the protocol."""
        try:
            found = self.model(images)
        except RuntimeError as error:
            reason = str(error).strip().rpartition("\n")[2]  # above it is where in the file it happened
            raise BackendError(f"{self._origin}: cannot take images {tuple(images.shape)} ({reason})") from error
        rows = found[0] if isinstance(found, (tuple, list)) and found else found
        if not isinstance(rows, torch.Tensor) or rows.dim() != 3:
            raise BackendError(f"{self._origin}: expected boxes (B, rows, 5 + classes) out; it is no detector")
        return rows
