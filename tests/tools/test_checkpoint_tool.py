"""Looking into weights files, and converting those of YOLOv5."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.checkpoint import read_checkpoint, write_checkpoint
from tools.checkpoint import main

ROOT = Path(__file__).resolve().parents[2]


def shown(path: Path, capsys: pytest.CaptureFixture, *flags: str) -> dict[str, str]:
    """What ``show`` prints: title -> words."""
    assert main(["show", str(path), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {title: words for title, _, words in (line.partition("  ") for line in lines)}


def test_show_a_file_of_yolov5(upstream_files: Path, capsys: pytest.CaptureFixture) -> None:
    rows = {title: words.strip() for title, words in shown(upstream_files / "v5.pt", capsys).items()}
    assert rows["kind"] == "YOLOv5's own: whole modules"
    assert rows["classes"] == "2: 0 cat, 1 狗"
    assert rows["model"].startswith("154 tensors of 10,245 values")
    assert (rows["epoch"], rows["best_fitness"], rows["opt"]) == ("2", "0.5", "save_dir=C:\\runs\\exp")
    assert rows["optimizer"] == "a whole torch.optim.adam.Adam"
    assert "depth_multiple=0.33" in rows["network"]


def test_show_each_tensor(upstream_files: Path, capsys: pytest.CaptureFixture) -> None:
    rows = shown(upstream_files / "v3.pt", capsys, "--tensors")
    assert rows["model: model.0.conv.conv.weight"].strip() == "tensor (8, 12, 3, 3) float32"
    assert len([title for title in rows if title.startswith("model: ")]) == 122


def test_show_other_files(upstream_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_checkpoint(tmp_path / "own.pt", read_checkpoint(upstream_files / "v5.pt"))
    rows = shown(tmp_path / "own.pt", capsys)
    assert rows["kind"].strip() == "this project's, format 1"
    assert rows["classes"].strip() == "2: 0 cat, 1 狗"
    torch.save({"a": torch.ones(2, 3), "note": "x\ny\x1b[31m"}, tmp_path / "plain.pt")
    rows = shown(tmp_path / "plain.pt", capsys)
    assert rows["kind"].strip() == "plain data, no checkpoint of a detector"
    assert (rows["a"].strip(), rows["note"].strip()) == ("tensor (2, 3) float32", "x y [31m")


def test_convert(upstream_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    old = tmp_path / "old.pt"
    old.write_bytes((upstream_files / "best.pt").read_bytes())
    before = old.read_bytes()
    assert main(["convert", str(old)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'old-converted.pt'} written\n"
    assert torch.load(tmp_path / "old-converted.pt", weights_only=True)["format"] == 1
    assert read_checkpoint(tmp_path / "old-converted.pt").meta == read_checkpoint(old).meta
    assert old.read_bytes() == before
    assert main(["convert", str(old), str(tmp_path / "second.pt")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old-converted.pt", "old.pt", "second.pt"]


@pytest.mark.parametrize(
    ("source", "out", "words"),
    [
        ("old.pt", "old.pt", "is there already"),
        ("old.pt", "link.pt", "is there already"),
        ("old.pt", "new.onnx", "ending in .pt"),
        ("old.pt", "nowhere/new.pt", "cannot be written"),
        ("own.pt", "new.pt", "nothing to convert"),
        ("missing.pt", "new.pt", "no such weights file"),
    ],
)
def test_nothing_is_overwritten(
    source: str, out: str, words: str, upstream_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = (upstream_files / "v3.pt").read_bytes()
    (tmp_path / "old.pt").write_bytes(content)
    (tmp_path / "link.pt").symlink_to(tmp_path / "old.pt")
    write_checkpoint(tmp_path / "own.pt", read_checkpoint(tmp_path / "old.pt"))
    assert main(["convert", str(tmp_path / source), str(tmp_path / out)]) == 2
    assert words in capsys.readouterr().err
    assert (tmp_path / "old.pt").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.pt", "old.pt", "own.pt"]


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, tools.checkpoint; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
