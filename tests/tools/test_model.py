"""The model checker: every layer on a line, and a mistake on one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def show(cfg: str, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / "model.py"), cfg]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_layers_and_summary(tmp_path: Path) -> None:
    done = show("yolov5n.yaml", tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + 25
    assert lines[13].split() == ["12", "[-1,", "6]", "0", "Concat"]
    assert "1,872,157 parameters" in done.stderr
    assert "4.5 GFLOPs" in done.stderr


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    done = show("nope.yaml", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nope.yaml: no such file")
    assert len(done.stderr.splitlines()) == 1
