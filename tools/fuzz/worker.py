"""A process for each target: files may end it, fill its memory, or keep it busy, and only it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.fuzz.loop import Report


def work(name: str, cases: int, seed: str, seconds: float, folder: Path, answer: Connection) -> None:
    """Fuzz one target in a process of its own; sends the report."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from tools.fuzz.guard import Watch, limit_memory  # noqa: PLC0415 - --help must not wait for torch
    from tools.fuzz.loop import fuzz  # noqa: PLC0415 - likewise
    from tools.fuzz.targets import make_targets  # noqa: PLC0415 - likewise

    os.environ["OPENCV_TEMP_PATH"] = str(folder)  # some of its decoders need a file
    target = make_targets()[name]
    with (folder / "noise.log").open("w") as noise:  # decoders write to standard error what they think of damaged files
        os.dup2(noise.fileno(), 2)
    limit_memory()
    report = fuzz(
        name, target, cases=cases, seed=seed, folder=folder, watch=Watch(), seconds=seconds, deadly=True
    )  # fmt: skip
    answer.send(report)


def _end_with_parent() -> None:
    """End this process with the one that started it, which cannot end its workers when it is killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


def fuzz_in_process(name: str, cases: int, seed: str, seconds: float, folder: Path) -> Report:
    """Fuzz one target; a process that dies counts as a fault, and its last file is kept."""
    from tools.fuzz.loop import Report  # noqa: PLC0415 - --help must not wait for torch
    from tools.fuzz.targets import make_targets  # noqa: PLC0415 - likewise

    folder.mkdir(parents=True, exist_ok=True)
    processes = multiprocessing.get_context("spawn")
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=work, args=(name, cases, seed, seconds, folder, sender))
    process.start()
    sender.close()
    with contextlib.suppress(EOFError):
        report = receiver.recv()
        process.join()
        return report
    process.join()
    died = signal.Signals(-process.exitcode).name if process.exitcode and process.exitcode < 0 else process.exitcode
    file, place = folder / f"{name}-died", folder / make_targets()[name].place
    if place.exists():
        shutil.copyfile(place, file)
    return Report(name, failed=1, failures={f"the process ended with {died}": f"{file}: see {folder / 'noise.log'}"})
