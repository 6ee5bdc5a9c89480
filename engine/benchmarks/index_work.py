"""The pieces of work that ``benchmark.py index`` measures, each in a process of its own so that nothing else counts."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from utils.datasets.cache import scan_images
from utils.datasets.columns import Column, PackedTexts
from utils.datasets.images import MIN_SIDE, iter_images
from utils.datasets.label_index import ImageRecord, LabelIndex, open_index
from utils.datasets.labels import LabelFile
from utils.errors import BackendError

_SAMPLED_EVERY = 0.01  # seconds
_MEGABYTE = 1024  # kB, the kernel's unit
_POOL = 1000  # different boxes of the made records
_MANNERS = ("fork", "spawn")


@dataclass(frozen=True)
class Memory:
    """MB of one process.

    Attributes:
        private: pages that no other process has, of files too.
        share: private ones, and of those shared a share each.
    """

    private: float
    share: float


@dataclass(frozen=True)
class Growth:
    """MB that a further process costs.

    Attributes:
        private: by which its own pages grew, in the one that grew most.
        total: by which the memory of all processes together grew, for each further one.
    """

    private: float
    total: float


@dataclass
class PeakMemory:
    """Most MB without a file behind them that this process had at a time, above what it had before."""

    megabytes: float = 0.0


def kernel_figures(file: str) -> dict[str, float]:
    """The lines ``name: number kB`` of a file below ``/proc``, in MB.

    Raises:
        BackendError: on a system that has no such file.
    """
    try:
        lines = Path(file).read_text().splitlines()
    except OSError as error:
        raise BackendError(f"{file}: expected what Linux 5.0 or newer says about memory ({error.strerror})") from error
    rows = (line.split() for line in lines)
    return {row[0].rstrip(":"): int(row[1]) / _MEGABYTE for row in rows if row[-1] == "kB" and len(row) == 3}


def own_memory() -> Memory:
    """Memory of this process."""
    figures = kernel_figures("/proc/self/smaps_rollup")
    return Memory(figures["Private_Clean"] + figures["Private_Dirty"], figures["Pss"])


@contextmanager
def watched_memory() -> Iterator[PeakMemory]:
    """Watch the memory of this process inside."""
    before, peak, done = kernel_figures("/proc/self/status")["RssAnon"], PeakMemory(), threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLED_EVERY):
            grown = kernel_figures("/proc/self/status")["RssAnon"] - before
            peak.megabytes = max(peak.megabytes, grown)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def in_fresh_process(work: Callable[..., Any], *given: Any) -> Any:
    """What a function of a module gives in a new interpreter.

    Raises:
        BackendError: when it fails; its own words are on standard error.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, work, given))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise BackendError(f"measuring failed in {work.__name__}; its process says why above") from None
    finally:
        process.join()


def _send_result(sender: Connection, work: Callable[..., Any], given: Sequence[Any]) -> None:
    sender.send(work(*given))


@dataclass(frozen=True)
class MadeReader:
    """Stands for reading an image and its label file; both are made up, so that a million of them need no disk.

    Attributes:
        boxes: of each image.
    """

    boxes: int
    _pool: np.ndarray = field(default_factory=lambda: np.random.default_rng(0).random((_POOL, 5), np.float32))

    def __call__(self, image_file: str) -> ImageRecord:
        """The record of an image, which follows from the number in its name."""
        number = int(image_file[-14:-4])
        labels = self._pool[(number + np.arange(self.boxes)) % _POOL]
        labels[:, 0] = np.floor(80 * labels[:, 0])
        lines = np.arange(1, self.boxes + 1, dtype=np.int32)
        label = LabelFile(labels, (np.zeros((0, 2), np.float32),) * self.boxes, lines)
        return ImageRecord((640, 480), label, states=(150_000, number, 38 * self.boxes, number))


def made_files(images: int) -> Iterator[str]:
    """As many paths of images."""
    return (f"/data/sets/made/images/train2026/{number:010d}.jpg" for number in range(images))


def build_made(place: Path, images: int, boxes: int) -> tuple[float, float]:
    """Seconds that building an index of made records takes, and peak memory in MB; listing the paths counts."""
    with watched_memory() as peak:
        begun = time.perf_counter()
        scan_images(PackedTexts(made_files(images)), place, quiet=True, read=MadeReader(boxes))
        seconds = time.perf_counter() - begun
    return seconds, peak.megabytes


def load_twice(place: Path) -> tuple[float, float]:
    """Seconds to open an index: mapping, every checksum, every value within its range.

    Args:
        place: the file.

    Returns:
        When the system has nothing of the file in memory, and right afterwards.
    """
    with place.open("rb") as stream:
        os.fsync(stream.fileno())  # what is not on disk yet cannot be forgotten
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return _seconds_to_open(place), _seconds_to_open(place)


def _seconds_to_open(place: Path) -> float:
    begun = time.perf_counter()
    open_index(place)
    return time.perf_counter() - begun


def further_processes(place: Path, processes: int) -> dict[str, Growth]:
    """What several processes need more, forked and spawned, when they are sent the columns and look at all of them.

    Args:
        place: the index.
        processes: that live at the same time, beside this one.

    Returns:
        By manner, the growth of one of them.
    """
    columns = _columns(open_index(place))
    return {manner: _growth(manner, columns, processes) for manner in _MANNERS}


def _columns(index: LabelIndex) -> tuple[Sequence[Any], ...]:
    """What a data set has over its images: columns of the index in an order, sizes, batches."""
    rows = np.arange(len(index), dtype=np.int32)
    looked_up = (Column(entry, rows) for entry in (index.image_file, index.labels_of, index.outlines_of))
    return (*looked_up, index.sizes_wh.astype(np.int64), np.arange(len(index)) // 16)


def _growth(manner: str, columns: tuple[Sequence[Any], ...], processes: int) -> Growth:
    context = multiprocessing.get_context(manner)
    pipes, children = [], []
    for _ in range(processes):
        pipe, other = context.Pipe()
        inherited = columns if manner == "fork" else None
        children.append(context.Process(target=_look_at_all, args=(other, inherited)))
        children[-1].start()
        other.close()
        pipes.append(pipe)
    before = _all_memory(pipes)
    for pipe in pipes:
        pipe.send(columns if manner == "spawn" else None)
    for pipe in pipes:
        pipe.recv()
    for pipe in pipes:
        pipe.send("all have looked")
    after = _all_memory(pipes)
    for pipe, child in zip(pipes, children, strict=True):
        pipe.send("end")
        child.join()
    private = max(new.private - old.private for old, new in zip(before[1:], after[1:], strict=True))
    total = sum(memory.share for memory in after) - sum(memory.share for memory in before)
    return Growth(private, total / processes)


def _all_memory(pipes: Sequence[Connection]) -> list[Memory]:
    """Memory of this process and of those at the other ends, which tell when they are ready."""
    others = [pipe.recv() for pipe in pipes]
    return [own_memory(), *others]


def _look_at_all(pipe: Connection, columns: tuple[Sequence[Any], ...] | None) -> None:
    """What a loader's worker does in an epoch, as far as the index goes; tells its memory before and after."""
    gc.freeze()
    pipe.send(own_memory())
    sent = pipe.recv()
    for column in columns or sent:
        for entry in column:
            if isinstance(entry, np.ndarray):
                entry.tobytes()  # until now it was only said where it lies
    pipe.send("looked")
    pipe.recv()
    pipe.send(own_memory())
    pipe.recv()


def make_files(folder: Path, count: int) -> Path:
    """As many tiny images, each with a label file; returns the folder of the images."""
    images, labels = folder / "images" / "train", folder / "labels" / "train"
    for kind in (images, labels):
        kind.mkdir(parents=True)
    pixels = _bitmap(MIN_SIDE)
    for number in range(count):
        (images / f"{number:010d}.bmp").write_bytes(pixels)
        (labels / f"{number:010d}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    return images


def _bitmap(side: int) -> bytes:
    """A black image, a file of the kind that is quickest to make."""
    row = -(-3 * side // 4) * 4
    head = b"BM" + np.array([54 + row * side, 0, 54, 40, side, side], "<u4").tobytes()
    return head + np.array([1, 24], "<u2").tobytes() + bytes(24 + row * side)


class _Read(Exception):
    """An image is read again."""


def check_files(images: Path, place: Path) -> dict[str, float]:
    """Seconds of a first and a second start over real files: building, listing, finding nothing changed.

    Raises:
        BackendError: when a changed label file is not noticed.
    """
    begun = time.perf_counter()
    files = PackedTexts(iter_images(images))
    listed = time.perf_counter()
    scan_images(files, place, quiet=True)
    built = time.perf_counter()
    scan_images(files, place, quiet=True, read=_refuse_to_read)
    checked = time.perf_counter()
    changed = images.parents[1] / "labels" / "train" / f"{len(files) // 2:010d}.txt"
    changed.write_text("1 0.5 0.5 0.2 0.2\n1 0.4 0.5 0.2 0.2\n")
    try:
        scan_images(files, place, quiet=True, read=_refuse_to_read)
    except _Read:
        return {"list": listed - begun, "build": built - listed, "check": checked - built}
    raise BackendError(f"{changed} was changed, and the index did not notice")


def _refuse_to_read(image_file: str) -> ImageRecord:
    raise _Read(image_file)
