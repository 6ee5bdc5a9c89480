"""CONTRIBUTING.md's guide to an attention module of one's own, carried out as written in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_dataset import make_dataset
from training_process import tiny_model

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("models", "engine", "utils", "tools", "tests", "data/hyps", "train.py", "pyproject.toml")

# Steps 5 and 4, in a single process: the tests that pick the layer up by themselves with the new one, then a training.
RUN = """
import sys, pytest, torch
failed = pytest.main(["-p", "no:cacheprovider", "-k", "LinearAttention or linear", "tests/models/test_layers.py",
                      "tests/models/test_transfer.py", "tests/models/test_linear.py"])
assert not failed, failed
import train
torch.set_num_threads(1)
train.run(cfg=sys.argv[1], data=sys.argv[2], insert="LinearAttention[0, 5]@after:c3", weights="", epochs=1, imgsz=64,
          batch_size=4, device="cpu", workers=0, noplots=True, project="runs", name="guide")
"""


@pytest.fixture(scope="module")
def guide() -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.split("## How to add your own attention module\n")[1].split("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def apply(diff: str, file: Path) -> None:
    """Put a guide's change into a file; its surroundings must be there once."""
    lines = diff.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] == " ")
    new = "".join(line[1:] for line in lines)
    content = file.read_text(encoding="utf-8")
    assert content.count(old) == 1, f"{file.name} has not these lines, once and in this order:\n{old}"
    file.write_text(content.replace(old, new), encoding="utf-8")


def test_six_steps_each_with_a_file_to_imitate(guide):
    steps = re.split(r"^\*\*\d\. ", guide, flags=re.MULTILINE)[1:]
    assert len(steps) == 6
    for step in steps:
        linked = re.findall(r"\]\(([^)]+)\)", step)
        assert linked
        assert not [path for path in linked if not (ROOT / path).is_file()]


@pytest.fixture(scope="module")
def project(guide, tmp_path_factory) -> Path:
    """A copy of the project in which the guide was followed."""
    copy = tmp_path_factory.mktemp("guide") / "project"
    for name in COPIED:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
    files = [copy / "models" / "attention" / "linear.py", copy / "tests" / "models" / "test_linear.py"]
    for file, code in zip(files, blocks(guide, "python"), strict=True):
        file.write_text(code, encoding="utf-8")
    (change,) = blocks(guide, "diff")
    apply(change, copy / "models" / "builder.py")
    return copy


def test_the_guide_works_as_written(project, tmp_path):
    cfg, data = tiny_model(tmp_path), make_dataset(tmp_path / "set")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(cfg), str(data)],
        cwd=project,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) > 10  # those of the registry, of the transfer, and the module's own
    trained = torch.load(project / "runs" / "guide" / "weights" / "last.pt", weights_only=True)["model"]
    assert trained["model.4.gamma"].any()  # it started at 0 and has moved


def test_the_guides_code_is_as_tidy_as_ours(project):
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed beside this Python")
    files = ["models/attention/linear.py", "models/builder.py", "tests/models/test_linear.py"]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [ruff, *command, "--no-cache", *files], cwd=project, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
