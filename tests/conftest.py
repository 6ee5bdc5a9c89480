"""Shared set-up of the suite: the project on the path, no network, two cores."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: spinning threads slow a busy machine

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs offline: a connection to anything but this machine is an error."""
    here = ("127.0.0.1", "::1", "localhost", "", None, socket.gethostname())

    def guarded(name: str):
        real = getattr(socket.socket, name)

        def connect(self: socket.socket, address):
            if self.family != socket.AF_UNIX and address[0] not in here:
                raise OSError(f"the test suite is offline, but something connected to {address}")
            return real(self, address)

        return connect

    real_lookup = socket.getaddrinfo

    def look_up(host, *arguments, **settings):
        if host not in here:
            raise socket.gaierror(socket.EAI_AGAIN, f"the test suite is offline, but something asked where {host} is")
        return real_lookup(host, *arguments, **settings)

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(name))
    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.fixture(autouse=True, scope="session")
def threads() -> None:
    """The suite is meant for two cores: two threads, or one in each of two processes."""
    import torch

    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(autouse=True, scope="session")
def interrupts() -> Iterator[None]:
    """The tests may interrupt processes, although a suite in a shell's background starts with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def logger_as_before() -> Iterator[None]:
    """Running a command sets the logger up; the next test gets it as it was."""
    from utils.log import LOGGER

    before = (list(LOGGER.handlers), LOGGER.propagate, LOGGER.level)
    yield
    LOGGER.handlers[:], LOGGER.propagate = before[:2]
    LOGGER.setLevel(before[2])


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What is logged: messages reach caplog even after a command has set up its own logging."""
    from utils.log import LOGGER

    monkeypatch.setattr(LOGGER, "propagate", True)
    return caplog


@pytest.fixture(scope="session")
def upstream_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints as YOLOv5 writes them, from a process that alone has its classes; see the writer for their names."""
    folder = tmp_path_factory.mktemp("upstream")
    writer = ROOT / "tests" / "models" / "upstream_writer.py"
    subprocess.run([sys.executable, str(writer), str(folder)], check=True, timeout=120)
    return folder
