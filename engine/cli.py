"""The frame around every script: one line for a user's mistake, an honest exit code, nothing else swallowed."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from utils.errors import ProjectError
from utils.log import setup_logging

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # the shell's convention for Ctrl-C
_NO_PLACE_TO_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def run_command(command: Callable[[], object]) -> int:
    """Run a script's main and return its exit code.

    Args:
        command: called without arguments; a :class:`ProjectError` from it becomes one line on standard error, and so
            does a folder without permission or a full disk.
    """
    setup_logging()
    wait_quietly()
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
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _say(text: str, error: BaseException) -> None:
    """One line on standard error, with what was being done where the error has a note of it."""
    print("; ".join([f"error: {text}", *getattr(error, "__notes__", ())]), file=sys.stderr)


def wait_quietly() -> None:
    """Let torch's threads sleep rather than spin while they wait for each other; of use before torch is loaded.

    Spinning threads take the processor from those that load images. Where processors are shared this makes an epoch
    several times slower. A setting that is there already stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
