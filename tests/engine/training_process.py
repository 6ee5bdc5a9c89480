"""A training in a process of its own, which a test can kill; a fork server keeps torch loaded between them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_dataset import make_dataset
from tiny_network import tiny_network

# The dropout draws from torch's generator, whose state a resumed run must have
TINY_MODEL = tiny_network("C3, [16]", "nn.Dropout, [0.1]", "Conv, [16, 3, 2]", levels=(4, 5))


def tiny_model(folder: Path) -> Path:
    """Write the YAML of a network that trains an epoch on a few pictures in a fraction of a second."""
    path = folder / "tiny.yaml"
    path.write_text(TINY_MODEL)
    return path


def tiny_settings(folder: Path, epochs: int = 1, **images: int) -> dict[str, Any]:
    """Options of a training of that network in a folder: as short as one can be, on images as of ``make_dataset``."""
    return {
        "cfg": str(tiny_model(folder)),
        "weights": "",
        "data": str(make_dataset(folder / "set", **images)),
        "imgsz": 64,
        "batch_size": 4,
        "epochs": epochs,
        "device": "cpu",
        "workers": 0,
        "noplots": True,
        "project": str(folder / "runs"),
    }


def start(settings: dict[str, Any]) -> multiprocessing.Process:
    """Start ``train.run(**settings)`` in a process of its own."""
    return start_function(_run, settings)


def finish(settings: dict[str, Any]) -> None:
    """Run ``train.run(**settings)`` to its end in such a process: another number of threads rounds differently."""
    child = start(settings)
    child.join()
    assert child.exitcode == 0


def start_function(function: Callable, *arguments: Any) -> multiprocessing.Process:
    """Start a function of an importable module in a process of its own."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["engine.training", "engine.evolution"])
    child = server.Process(target=function, args=arguments)
    child.start()
    return child


def launch(function: Callable, *arguments: Any, ranks: int = 2) -> list[multiprocessing.Process]:
    """Start a function in several processes that find each other as torchrun's do; it is called as (rank, ...)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(ranks):
        environment = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": ranks,
            "LOCAL_WORLD_SIZE": ranks,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "GLOO_SOCKET_IFNAME": "lo",
        }
        children.append(start_function(_ranked, environment, function, rank, arguments))
    return children


def _ranked(environment: dict[str, Any], function: Callable, rank: int, arguments: tuple) -> None:
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    function(rank, *arguments)


def _run(settings: dict[str, Any]) -> None:
    import train

    torch.set_num_threads(1)
    with Path(os.devnull).open("w") as nowhere:
        sys.stderr = nowhere
        train.run(**settings)


def kill_when(child: multiprocessing.Process, moment: Callable[[], bool]) -> bool:
    """Kill a process, as ``kill -9`` does, once a condition holds; False when it ended by itself before."""
    while child.is_alive():
        if moment():
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            return True
        time.sleep(0.0005)
    assert child.exitcode == 0
    return False


Moment = Callable[[], bool]


def after(seconds: float, since: Moment = lambda: True) -> Moment:
    """A moment so many seconds after another one, or after now."""
    begun: list[float] = []

    def holds() -> bool:
        if not begun and since():
            begun.append(time.monotonic())
        return bool(begun) and time.monotonic() >= begun[0] + seconds

    return holds


def rewritten(file: Path) -> Moment:
    """The moment at which a file is there, and another one than now."""

    def state() -> int | None:
        return file.stat().st_mtime_ns if file.exists() else None

    before = state()
    return lambda: state() not in (None, before)


def both(first: Moment, second: Moment) -> Moment:
    """A moment at which both hold."""
    return lambda: first() and second()


def while_saving(folder: Path) -> Moment:
    """A moment at which a checkpoint is half written."""
    return lambda: any(folder.glob("weights/.*.tmp"))
