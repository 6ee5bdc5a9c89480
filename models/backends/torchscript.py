"""TorchScript files, run by PyTorch."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

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
        noted = self._read_notes(notes[NOTES])
        facts = FileFacts.of_metadata(noted, self._origin)
        batch, _, *hw = noted["shape"]
        half = noted.get("half") is True or any(one.dtype == torch.float16 for one in self.model.parameters())
        classes = len(facts.names) if facts.names else None
        self.facts = replace(facts, batch=batch, hw=tuple(hw), half=half, classes=classes)

    def _read_notes(self, text: str | bytes) -> dict[str, Any]:
        """The notes, in which ``shape`` (B, 3, H, W) is what the file was traced for."""
        try:
            notes = json.loads(text)
            shape = [int(side) for side in notes["shape"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            shape = []
        if len(shape) != 4 or min(shape) < 1:
            raise BackendError(
                f"{self._origin}: expected {NOTES} with shape, stride and names in it, as export.py writes"
            )
        return {**notes, "shape": shape}

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
