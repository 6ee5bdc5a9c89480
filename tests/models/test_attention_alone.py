"""The attention package without the rest of the project: what somebody gets who copies the folder, and not triton."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

USE = """
import sys, torch
before = "triton" in sys.modules
import models.attention
from models.attention import *
x = torch.randn(1, 32, 9, 13)
names = set(models.attention.__all__) - {"AttentionBlock"}
layers = [name for name in names if name.endswith(("Attention", "Block"))]
assert len(layers) == 12, layers
for name in layers:
    assert globals()[name](32, num_heads=2)(x).shape == x.shape, name
assert biformer_tiny(num_classes=2).eval()(torch.randn(1, 3, 64, 64)).shape == (1, 2)
assert "torchvision" not in sys.modules
BiLevelRoutingAttention(32)(x).sum().backward()
assert before or "triton" not in sys.modules
assert "models.attention.ops.triton_kernels" not in sys.modules
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("models", "utils", "engine")))
"""


def test_the_package_needs_two_files_of_the_project_and_loads_no_triton_unasked(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models" / "attention", tmp_path / "models" / "attention")
    (tmp_path / "utils").mkdir()
    for name in ("models/registry.py", "utils/errors.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    loaded = {name for name in done.stdout.split() if not name.startswith("models.attention")}
    assert loaded == {"models", "models.registry", "utils", "utils.errors"}
