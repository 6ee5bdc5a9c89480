"""Whatever a weights file asks for: nothing runs, and the user gets one clear line soon."""

from __future__ import annotations

import contextlib
import pickle
import time
from pathlib import Path

import pytest
import torch

from hostile_files import CANARY, HOSTILE
from models.loading import attempt_load
from tools.checkpoint import main
from utils.errors import CheckpointError
from utils.stripping import strip_optimizer


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_runs_and_one_line_says_why(name: str, here: Path, capsys: pytest.CaptureFixture) -> None:
    write, words = HOSTILE[name]
    path = here / "bad.pt"
    write(path)
    started = time.process_time()
    assert main(["convert", str(path)]) == 2
    assert time.process_time() - started < 5  # of the processor: the machine may be busy
    line = capsys.readouterr().err
    with pytest.raises(CheckpointError) as caught:
        attempt_load(path)
    with contextlib.suppress(CheckpointError):
        strip_optimizer(path)
    main(["show", str(path)])
    assert [entry.name for entry in here.iterdir()] == ["bad.pt"], f"it left {CANARY}"
    assert line.startswith(f"error: {path}: ")
    assert len(line.splitlines()) == 1
    assert len(line) < 500 + len(str(path))
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["os.system", "eval", "exec as a key", "older form", "pickle alone"])
def test_the_files_are_hostile(name: str, here: Path) -> None:
    """Read the careless way, they do leave something."""
    HOSTILE[name][0](here / "bad.pt")
    with contextlib.suppress(Exception):
        if name == "pickle alone":
            pickle.loads((here / "bad.pt").read_bytes())
        torch.load(here / "bad.pt", weights_only=False)
    assert (here / CANARY).exists()
