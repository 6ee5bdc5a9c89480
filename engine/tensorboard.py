"""TensorBoard events of a run, when TensorBoard is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.results import CSV_COLUMNS
from utils.log import LOGGER


class CurveLog:
    """Writes each epoch's figures under the names of the csv's columns; does nothing without TensorBoard.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = _open_writer(folder)

    def run(self, event: str, **facts: Any) -> None:
        """Take note of an event of the trainer; only the end of an epoch matters here."""
        if event == "on_fit_epoch_end" and self._writer is not None:
            self._write(facts["epoch"], facts["values"])

    def _write(self, epoch: int, values: Sequence[float]) -> None:
        for name, value in zip(CSV_COLUMNS[1:], values, strict=True):
            self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        """Put everything on disk."""
        if self._writer is not None:
            self._writer.close()


def _open_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional package
    except ImportError:
        return None
    LOGGER.info(f"TensorBoard: tensorboard --logdir {folder.parent}")
    return SummaryWriter(str(folder))
