"""The model checker: every layer on a line, and a mistake on one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli import run_command
from tools.model import main

ROOT = Path(__file__).resolve().parents[2]


def test_layers_and_summary(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "model.py"), "yolov5n.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + 25
    assert lines[13].split() == ["12", "[-1,", "6]", "0", "Concat", "concat#1"]
    assert "1,872,157 parameters" in done.stderr
    assert "4.5 GFLOPs" in done.stderr


def test_inserted_rows_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["model.py", "yolov5n.yaml", "--insert", "BiFormerBlock@after:sppf"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 26
    assert lines[11].split()[-2:] == ["BiFormerBlock", "biformerblock"]
    assert lines[26].split()[:4] == ["25", "[18,", "21,", "24]"]


def test_a_mistake_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["model.py", "nope.yaml"])
    assert run_command(main) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: nope.yaml: no such file")
    assert len(said.splitlines()) == 1
