"""Steps that work at the same time: one thread reads ahead, the caller's detects, one writes behind.

Queues between them are short, so that a fast step waits for a slow one rather than filling the memory. An error in a
thread ends all of them and comes up in the caller's thread as it is, with a note that names the step and what it was
working on. After Ctrl-C what has been detected is still written, and the files are finished.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from engine.sinks import Frame, Sink

_AWAKE = 0.1  # seconds between looks at whether the other side is still there

Item = TypeVar("Item")


class ReadAhead(Generic[Item]):
    """Goes through items in a thread of its own, a few ahead of whoever iterates over this; a context manager."""

    def __init__(self, items: Iterable[Item], depth: int) -> None:
        """Get ready; the thread starts on entering.

        Args:
            items: gone through once, in the thread.
            depth: items that may be waiting.
        """
        self._items = items
        self._waiting: queue.Queue[Item] = queue.Queue(depth)
        self._unwanted = threading.Event()
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="read ahead", daemon=True)

    def _read(self) -> None:
        try:
            for item in self._items:
                while not self._unwanted.is_set():
                    try:
                        self._waiting.put(item, timeout=_AWAKE)
                        break
                    except queue.Full:
                        continue
                if self._unwanted.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            error.add_note("while reading the source")
            self._error = error
        finally:
            self._done.set()

    def __iter__(self) -> Iterator[Item]:
        while True:
            try:
                yield self._waiting.get(timeout=_AWAKE)
            except queue.Empty:
                if self._done.is_set() and self._waiting.empty():
                    break
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._unwanted.set()
        self._thread.join()


def write_frame(frame: Frame, sinks: Sequence[Sink]) -> None:
    """Give a frame to every sink; an error gets a note that names both."""
    for sink in sinks:
        try:
            sink.write(frame)
        except Exception as error:
            number = f", frame {frame.result.frame}" if frame.result.moving else ""
            error.add_note(f"while writing the results of {frame.result.path}{number} ({type(sink).__name__})")
            raise


class WriteBehind:
    """Gives frames to sinks in a thread of its own; a context manager that ends with everything written.

    The thread also closes the sinks, so that a second Ctrl-C does not leave half a file.
    """

    def __init__(self, sinks: Sequence[Sink], depth: int) -> None:
        """Get ready; the thread starts on entering.

        Args:
            sinks: used and closed by the thread alone.
            depth: frames that may be waiting.
        """
        self._sinks = sinks
        self._waiting: queue.Queue[Frame | None] = queue.Queue(depth)
        self._failed = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="write behind")

    def _work(self) -> None:
        try:
            while (frame := self._waiting.get()) is not None:
                write_frame(frame, self._sinks)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._error = error
            self._failed.set()
        finally:
            self._close()

    def _close(self) -> None:
        for sink in self._sinks:
            try:
                sink.close()
            except Exception as error:  # noqa: BLE001 - the others are closed all the same
                error.add_note(f"while finishing the files of {type(sink).__name__}")
                self._error = self._error or error
                self._failed.set()

    def write(self, frame: Frame) -> None:
        """Hand over a frame; waits while the queue is full.

        Raises:
            BaseException: what went wrong with an earlier frame.
        """
        if not self._hand_over(frame):
            raise self._error

    def _hand_over(self, frame: Frame | None) -> bool:
        """Put into the queue what comes next, None for the end; False when the thread has failed."""
        while not self._failed.is_set():
            try:
                self._waiting.put(frame, timeout=_AWAKE)
                return True
            except queue.Full:
                continue
        return False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hand_over(None)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error
