"""What may happen to the processes that load images: signals, death, no memory, and errors that torch wraps up."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from utils.datasets.items import Batch, Item, collate
from utils.errors import BackendError, DatasetError, ProjectError, first_line

_DEAD = re.compile(r"DataLoader worker \(pid")
_RAISED_IN_WORKER = "Caught "  # what torch puts in front of errors that a worker has sent
_NO_SHARED_MEMORY = re.compile(r"shared memory|</torch_|shm_open", re.I)
_NO_MEMORY = re.compile(r"not enough memory|can(no|')t allocate|insufficient memory|bad_alloc|out of memory", re.I)
_SECONDS_TO_BE_SEEN = 0.2  # of a process that has just died, until the system says so
_LESS_SHARED_MEMORY = "give it more (docker run --shm-size 2g), or take fewer --workers (0 needs none)"


def outlive_ctrl_c() -> None:
    """Let a worker process stay when Ctrl-C reaches all processes of a terminal: its training ends it, after saving."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def quiet_deaths() -> Iterator[None]:
    """Keep torch from raising, in the middle of whatever runs, when a worker dies.

    It notices as well, within five seconds, when the next batch is asked for: then the state of a training is whole.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def collate_shared(items: Sequence[Item]) -> Batch:
    """A batch that already lies where other processes can read it.

    torch would move it there in a thread of its own, whose errors nobody hears of: on a full /dev/shm the training
    would wait for ever.
    """
    images, targets, paths, shapes = collate(items)
    return images.share_memory_(), targets.share_memory_(), paths, shapes


@contextmanager
def explained_faults(workers: Sequence[BaseProcess] = ()) -> Iterator[None]:
    """Raise what goes wrong inside, while a loader gives a batch, as an error that says what to do.

    Args:
        workers: the loader's processes.
    """
    try:
        yield
    except Exception as error:  # torch wraps up what a worker raises, whatever that is
        known = loading_fault(error, workers)
        if known is None:
            raise
        raise known from error


def loading_fault(error: Exception, workers: Sequence[BaseProcess] = ()) -> ProjectError | None:
    """What to tell the user when a batch could not be had; None for what is not known here.

    Args:
        error: as the loader raised it.
        workers: its processes.
    """
    text = str(error)
    if isinstance(error, ProjectError):  # from a worker, the message stands at the end of its traceback
        return type(error)(text.strip().rpartition(f"{type(error).__name__}: ")[2])
    cut_off = isinstance(error, (ConnectionError, EOFError)) and not text.startswith(_RAISED_IN_WORKER)
    if _DEAD.search(text) or cut_off:  # it died before, or while it handed a batch over
        return _death(text or type(error).__name__, workers)
    if isinstance(error, (RuntimeError, OSError)) and _NO_SHARED_MEMORY.search(text):
        return BackendError(f"the loader processes have too little shared memory (/dev/shm); {_LESS_SHARED_MEMORY}")
    if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
        said = first_line(MemoryError(text.strip().splitlines()[-1] if text.strip() else "no memory"))
        return BackendError(
            f"out of memory while loading images ({said}); take fewer --workers, no --cache, or smaller images"
        )
    return None


def _death(text: str, workers: Sequence[BaseProcess]) -> ProjectError:
    """Of a worker process: what ended it."""
    for worker in workers:
        worker.join(_SECONDS_TO_BE_SEEN)
    ended = next((worker for worker in workers if worker.exitcode), None)
    if ended is None or ended.exitcode > 0:
        code = f" with exit code {ended.exitcode}" if ended else ""
        return DatasetError(f"a loader process ended{code} ({first_line(RuntimeError(text))}); --workers 0 shows more")
    name = signal.Signals(-ended.exitcode).name
    if name == "SIGBUS":
        return BackendError(f"a loader process has run out of shared memory (/dev/shm); {_LESS_SHARED_MEMORY}")
    if name == "SIGKILL":
        why = "a person or, mostly, the system for want of memory (dmesg says so): take fewer --workers, or no --cache"
        return BackendError(f"loader process {ended.pid} was killed (SIGKILL), by {why}")
    return BackendError(f"loader process {ended.pid} died ({name}), maybe over a damaged image: --workers 0 shows more")
