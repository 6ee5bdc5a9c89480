"""What no file may bring about: writing elsewhere, running code or programs, talking to a network, taking for ever."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LONGEST = 5.0  # seconds of the processor that a case may take
_DEADLY = 60.0  # seconds after which a process stuck outside of Python ends
_MEMORY = 2 << 30  # bytes beyond what a worker has when it begins

_NEVER = (
    *("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "pty."),
    *("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.", "pickle.find_class", "os.putenv", "os.kill"),
)
_IN_FOLDER_ONLY = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.chown",
                   "os.truncate", "os.utime", "shutil.")  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class TooSlow(BaseException):
    """A case has used up its time; no ``except Exception`` may hide it."""


class Watch:
    """Notes what the interpreter reports of a case; one a process, as audit hooks stay for ever.

    Attributes:
        seen: what was done that must not be done.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._folder: str | None = None  # while a case runs
        sys.addaudithook(self._hear)

    @contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """Note what is done inside; only files below the folder may be written."""
        self.seen.clear()
        self._folder = f"{folder.resolve()}{os.sep}"
        try:
            yield
        finally:
            self._folder = None

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._folder is None:
            return
        wrong = event.startswith(_NEVER)
        if event == "open":
            path, mode, flags = arguments
            writes = set(mode or "") & set("wax+") or (flags or 0) & _WRITES
            wrong = bool(writes) and not self._is_inside(path)
        elif event.startswith(_IN_FOLDER_ONLY):
            wrong = not all(self._is_inside(path) for path in arguments if isinstance(path, (str, bytes, os.PathLike)))
        elif event == "exec":
            wrong = not _is_of_a_file(arguments[0])
        if wrong:
            self.seen.append(f"{event} {arguments!r:.200}")

    def _is_inside(self, path: Any) -> bool:
        if isinstance(path, int) or os.fspath(path) == os.devnull:
            return True
        return os.path.realpath(os.fsdecode(path)).startswith(self._folder or "")


def _is_of_a_file(code: Any) -> bool:
    """Whether code is that of a module, which importing runs, rather than made on the spot."""
    name = getattr(code, "co_filename", "")
    return name.startswith("<frozen ") or Path(name).suffix == ".py"


@contextmanager
def time_limit(seconds: float = LONGEST, deadly: bool = False) -> Iterator[None]:
    """Raise :class:`TooSlow` when the block takes more time of the processor.

    Args:
        seconds: allowed.
        deadly: also end the process when it does not come back to Python to hear of it.
    """

    def expire(*_: Any) -> None:
        raise TooSlow(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, expire)
    if deadly:
        signal.setitimer(signal.ITIMER_VIRTUAL, _DEADLY)  # its signal is not handled, and so ends the process
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGPROF, before)


def limit_memory() -> None:
    """Let this process take little more memory than it has; on Linux alone, which says how much that is."""
    table = Path("/proc/self/statm")
    if not table.exists():
        return
    pages = int(table.read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
