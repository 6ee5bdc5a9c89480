"""Does the memory of a training grow? ``python -m tools.memory --data shapes.yaml --cfg yolov5n.yaml --weights ''``.

For maintainers, on Linux. Takes the flags of ``train.py``, trains in a process of its own, and after every epoch notes
the memory of that process and of each of its loader workers. At the end comes a table and, for each process, the growth
from the end of epoch 1 to that of the last. (Epoch 0 does not count: the workers of validation only start at its end,
and the free memory that they share with the main process at first is used there again one epoch later.)

Two figures are noted, in MB. *resident* is what ``ps`` and ``top`` show; pages that several processes share count in
full for each of them. *share* divides the pages without a file behind them among those who share them, so that the
figures of all processes add up to what the machine lacks: a worker that copies what it once shared, page by page, shows
there and nowhere else. The C library keeps freed memory for a while, now more and now less: before the share is read,
the main process gives that back. (With ``--nbs`` at the batch size no gradients wait for their step when an epoch ends,
which otherwise makes a difference of one copy of the weights from epoch to epoch.)
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: python tools/memory.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train
from engine.callbacks import Callback
from engine.cli import run_command
from engine.options.train import TrainOptions
from utils.devices import select_device
from utils.errors import BackendError, TrainingError

_MEGABYTE = 1024  # kB, the kernel's unit


@dataclass(frozen=True)
class Sample:
    """Memory of one process at the end of an epoch.

    Attributes:
        epoch: number of the epoch.
        process: "main" or "worker <number>".
        resident: MB that it can reach.
        share: MB of memory without a file behind it, what several processes share divided among them.
    """

    epoch: int
    process: str
    resident: float
    share: float


def read_process(pid: int) -> tuple[float, float]:
    """Resident memory of a process and its share of memory without a file behind it, MB.

    Raises:
        BackendError: on a system that does not tell.
    """
    file = Path(f"/proc/{pid}/smaps_rollup")
    try:
        rows = [line.split() for line in file.read_text().splitlines()]
        kilobytes = {row[0].rstrip(":"): int(row[1]) for row in rows if row[-1] == "kB"}
        return kilobytes["Rss"] / _MEGABYTE, (kilobytes["Pss_Anon"] + kilobytes["Pss_Shmem"]) / _MEGABYTE
    except (OSError, KeyError) as error:
        raise BackendError(f"{file}: expected what Linux 5.3 or newer says about memory ({error!r})") from error


def measure(**options: Any) -> list[Sample]:
    """Train, and take a sample of every process after every epoch.

    Args:
        **options: keywords of ``train.run``.

    Returns:
        Samples by epoch, the main process first, then its workers by age.

    Raises:
        OptionError: when a keyword is wrong.
        BackendError: on a system that does not tell about memory.
        TrainingError: when the training fails; its own words are on standard error.
    """
    TrainOptions.from_kwargs(**options)
    read_process(os.getpid())
    context = multiprocessing.get_context("spawn")  # a fresh process: nothing of this one is counted
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(options, sender, multiprocessing.get_start_method()))
    process.start()
    sender.close()
    samples: list[Sample] = []
    while True:
        try:
            samples += receiver.recv()
        except EOFError:
            break
    process.join()
    if process.exitcode or not samples:
        raise TrainingError(f"the training ended with exit code {process.exitcode} and {len(samples)} samples")
    return samples


class _Sampler(Callback):
    """Notes memory after every epoch, inside the training process."""

    def __init__(self, sender: Connection) -> None:
        self._sender = sender

    def on_fit_epoch_end(self, epoch: int, values: Sequence[float], fitness: float | None) -> None:
        workers = sorted(process.pid for process in multiprocessing.active_children())
        resident, _ = read_process(os.getpid())
        _give_back()
        _, share = read_process(os.getpid())
        samples = [Sample(epoch, "main", resident, share)]
        samples += [Sample(epoch, f"worker {number}", *read_process(pid)) for number, pid in enumerate(workers, 1)]
        self._sender.send(samples)


def _give_back() -> None:
    """Return freed memory to the system, where the C library is GNU's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _train(options: dict[str, Any], sender: Connection, start_method: str) -> None:
    """The training process, whose own workers start as they do when nothing is measured."""
    multiprocessing.set_start_method(start_method, force=True)
    chosen = TrainOptions.from_kwargs(**options)
    listener = _Sampler(sender)
    sys.exit(run_command(lambda: train.train(chosen.hyp, chosen, select_device(chosen.device), callbacks=listener)))


def growth(samples: Sequence[Sample], since: int = 1) -> dict[str, tuple[float, float]]:
    """Growth of each process up to the last epoch.

    Args:
        samples: of several epochs.
        since: the epoch whose end is compared with.

    Returns:
        By process, percent of resident memory and of the share.

    Raises:
        TrainingError: when no later epoch was measured.
    """
    last_epoch = max(sample.epoch for sample in samples)
    if last_epoch <= since:
        raise TrainingError(f"the last epoch is {last_epoch}: growth since epoch {since} takes --epochs {since + 2}")
    before = {sample.process: sample for sample in samples if sample.epoch == since}
    after = {sample.process: sample for sample in samples if sample.epoch == last_epoch}
    return {
        process: (_percent(old.resident, after[process].resident), _percent(old.share, after[process].share))
        for process, old in before.items()
        if process in after
    }


def _percent(before: float, after: float) -> float:
    return 100 * (after / before - 1)


def report(samples: Sequence[Sample]) -> str:
    """A table: a row an epoch, resident memory and share of each process, and their growth below."""
    grown = growth(samples)
    lines = ["MB resident / share" + "".join(f"{name:>20}" for name in grown)]
    for epoch in sorted({sample.epoch for sample in samples}):
        row = {sample.process: sample for sample in samples if sample.epoch == epoch}
        cells = (f"{row[name].resident:.1f} / {row[name].share:.1f}" if name in row else "" for name in grown)
        lines.append(f"epoch {epoch:<13}" + "".join(f"{cell:>20}" for cell in cells))
    cells = (f"{resident:+.1f} % / {share:+.1f} %" for resident, share in grown.values())
    lines.append(f"{'since epoch 1':<19}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    """Train with the flags given, print the table."""
    options = TrainOptions.parse(description=__doc__.split(":")[0])
    print(report(measure(**{name: getattr(options, name) for name in options.given})))


if __name__ == "__main__":
    sys.exit(run_command(main))
