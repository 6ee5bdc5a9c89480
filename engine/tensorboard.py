"""TensorBoard events of a run, when TensorBoard is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.callbacks import Callback
from engine.results import CSV_COLUMNS
from utils.log import LOGGER


class CurveLog(Callback):
    """Writes each epoch's figures under the names of the csv's columns; does nothing without TensorBoard.

    The event file is begun by the first event of training, never by the constructor.

    Args:
        folder: the run folder.
        first_epoch: where this process begins; what the folder's events hold of it and of later epochs, TensorBoard
            drops, so that a resumed run shows every epoch once.
    """

    def __init__(self, folder: Path, first_epoch: int = 0) -> None:
        self.folder, self.first_epoch = Path(folder), first_epoch
        self._writer: Any = None
        self._opened = False

    def on_train_start(self, options: Any, save_dir: Path) -> None:
        """Begin the event file."""
        self._open()

    def on_fit_epoch_end(self, epoch: int, values: Sequence[float], fitness: float | None = None) -> None:
        """Write the figures of an epoch, and put them on disk."""
        self._open()
        writer, self._writer = self._writer, None  # given up should the lines below fail: a full disk stays full
        if writer is None:
            return
        for name, value in zip(CSV_COLUMNS[1:], values, strict=True):
            writer.add_scalar(name, value, epoch)
        writer.flush()
        self._writer = writer

    def on_train_end(self, results: Sequence[float], save_dir: Path) -> None:
        """Close the event file."""
        self.close()

    def close(self) -> None:
        """Put everything on disk; nothing is written afterwards."""
        self._opened = True
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _open(self) -> None:
        """Make the writer, once: a folder that cannot be written to is not tried again."""
        if self._opened:
            return
        self._opened = True
        self._writer = _open_writer(self.folder, self.first_epoch)


def _open_writer(folder: Path, first_epoch: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional package
    except ImportError:
        return None
    writer = SummaryWriter(str(folder), purge_step=first_epoch)
    LOGGER.info(f"TensorBoard: tensorboard --logdir {folder.parent}")
    return writer
