"""TensorBoard events of a run, when TensorBoard is installed."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.callbacks import Callback
from engine.results import CSV_COLUMNS
from utils.log import LOGGER

_SECONDS = re.compile(r"tfevents\.(\d+)\.")


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
        self._writer: EventFile | None = None
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
        writer.write(epoch, dict(zip(CSV_COLUMNS[1:], values, strict=True)))
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


def _open_writer(folder: Path, first_epoch: int) -> EventFile | None:
    try:
        writer = EventFile(folder, first_epoch)
    except ImportError:
        return None
    LOGGER.info(f"TensorBoard: tensorboard --logdir {folder.parent}")
    return writer


class EventFile:
    """A file of scalars that TensorBoard reads, written at once.

    TensorBoard's own writer has a thread, which on a full disk dies with a traceback.

    Args:
        folder: where to; made where it is missing.
        first_step: what earlier files of the folder hold from this step on, TensorBoard drops.

    Raises:
        ImportError: without TensorBoard.
        OSError: when the file cannot be written.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2  # noqa: PLC0415 - optional package
        from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415 - as above

        self._event, self._summary, self._session = event_pb2.Event, summary_pb2.Summary, event_pb2.SessionLog
        folder.mkdir(parents=True, exist_ok=True)
        self._stream = _new_event_file(folder).open("xb")
        self._records = RecordWriter(self._stream)
        self._put(file_version="brain.Event:2")
        self._put(step=first_step, session_log=self._session(status=self._session.START))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of one step."""
        tagged = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._put(step=step, summary=self._summary(value=tagged))

    def close(self) -> None:
        """Nothing is written afterwards."""
        self._stream.close()

    def _put(self, **content: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())
        self._records.flush()


def _new_event_file(folder: Path) -> Path:
    """A name after those that are there, whatever the clock says: TensorBoard reads files in the order of their names.

    Named as TensorBoard names them: seconds, machine, process.
    """
    earlier = [found[1] for path in folder.glob("events.out.tfevents.*") if (found := _SECONDS.search(path.name))]
    seconds = max([int(time.time()), *(int(number) + 1 for number in earlier)])
    return folder / f"events.out.tfevents.{seconds:010d}.{platform.node()}.{os.getpid()}.0"
