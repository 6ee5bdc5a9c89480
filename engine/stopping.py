"""Being told to stop: SIGTERM (a scheduler, ``kill``, ``docker stop``) or Ctrl-C in the middle of an epoch."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from utils.log import LOGGER

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Keeps the first signal inside until it suits, so that nothing is cut off half-way; a second one ends at once.

    Outside the main thread, where no signal can be caught, nothing changes.

    Args:
        same_wish: seconds after the first one in which others mean the same: a launcher sends on what its processes
            have got from the terminal already.

    Attributes:
        signal: number of the signal that came, 0 before.
    """

    def __init__(self, same_wish: float = 1.0) -> None:
        self.same_wish = same_wish
        self.signal = 0
        self._came = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _take(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if not self.signal:
            self.signal, self._came = number, now
            LOGGER.info(f"\n{signal.Signals(number).name}: ending after this batch; a second one ends at once")
        elif now - self._came >= self.same_wish:
            self._restore()
            raise ending(number)

    def error(self) -> BaseException | None:
        """What to raise now that it suits; None when nobody has asked."""
        return ending(self.signal) if self.signal else None


def ending(number: int) -> BaseException:
    """What ends a program as a signal would: Ctrl-C for SIGINT, else an exit with the code that shells show for it."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
