"""The frame around every script: one line for a user's mistake, an honest exit code, nothing else swallowed."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from utils.errors import ProjectError
from utils.log import setup_logging

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 and the number of the signal, as shells show it for Ctrl-C
# Turns of a waiting loop of GNU's OpenMP, some tens of microseconds; milliseconds of waiting in LLVM's and Intel's
_WAITING = {"GOMP_SPINCOUNT": "30000", "KMP_BLOCKTIME": "0"}
_NO_PLACE_TO_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def run_command(command: Callable[[], object], *, quietly: bool = True) -> int:
    """Run a script's main and return its exit code.

    Args:
        command: called without arguments; a :class:`ProjectError` from it becomes one line on standard error, and so
            does a folder without permission or a full disk. SIGTERM ends it as Ctrl-C does, with files closed, but
            with the exit code 143.
        quietly: let torch's threads fall asleep soon, see :func:`wait_quietly`; False leaves them as they are.
    """
    setup_logging()
    if quietly:
        wait_quietly()
    before = _end_on_sigterm()
    try:
        command()
    except ProjectError as error:
        _say(str(error), error)
        return EXIT_USER_ERROR
    except OSError as error:
        if error.errno not in _NO_PLACE_TO_WRITE:
            raise
        where = error.filename or "a file"
        _say(f"{where}: {error.strerror}; make room there, or choose another place", error)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # once more, now that all is closed, is no traceback
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    return 0


def _end_on_sigterm() -> Any:
    """Let SIGTERM raise SystemExit; returns the handler that was there, None where nothing was changed."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    return signal.signal(signal.SIGTERM, end)


def _say(text: str, error: BaseException) -> None:
    """One line on standard error, with what was being done where the error has a note of it."""
    print("; ".join([f"error: {text}", *getattr(error, "__notes__", ())]), file=sys.stderr)


def wait_quietly() -> None:
    """Let torch's threads spin briefly while they wait for each other, then sleep; of use before torch is loaded.

    GNU's OpenMP, which torch on Linux comes with, lets them spin for milliseconds. That takes the processor from
    processes that load images, and where processors are shared it makes an epoch several times slower. Letting them
    sleep at once makes each of a network's many short operations wait for threads to wake: a quarter slower on a
    machine with nothing else to do. docs/benchmarks.md has the figures. LLVM's and Intel's OpenMP, which know whole
    milliseconds only, let them sleep at once. A setting that is there already stays.
    """
    if not {"OMP_WAIT_POLICY", *_WAITING} & os.environ.keys():
        os.environ.update(_WAITING)
