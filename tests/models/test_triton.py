"""The Triton backend: by its interpreter and its compiler, which need no GPU, and on a GPU where there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from attention_problems import assert_backend_agrees, draw_problem

from models.attention.bra import BiLevelRoutingAttention
from models.attention.ops.dispatch import attend_regions, choose_backend, why_not_triton
from models.attention.ops.regions import RegionGrid
from models.attention.ops.settings import AttentionSettings
from utils.errors import BackendError

ROOT = Path(__file__).resolve().parents[2]
triton_installed = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def run_interpreted(marker: str, tmp_path: Path, seconds: int) -> int:
    """Run ``interpreted_triton.py`` in a process with the interpreter; how many tests passed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/models/interpreted_triton.py", "-m", marker, "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return int(re.search(r"(\d+) passed", done.stdout)[1])


@triton_installed
def test_kernels_agree_with_the_reference(tmp_path: Path) -> None:
    assert run_interpreted("not slow", tmp_path, 240) >= 12


@triton_installed
@pytest.mark.slow
def test_kernels_agree_with_the_reference_on_many_shapes(tmp_path: Path) -> None:
    assert run_interpreted("slow", tmp_path, 3600) >= 200


def compile_for(cases: list[tuple[int, str, int]], tmp_path: Path) -> list[int]:
    """Compile the three kernels for (capability, type, head width) each; bytes of shared memory they take."""
    script = Path(__file__).with_name("compiled_triton.py")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(cases)],
        cwd=ROOT,
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("shared")]


@triton_installed
def test_kernels_compile_for_a_gpu_without_one(tmp_path: Path) -> None:
    shared = compile_for([(90, "bfloat16", 32)], tmp_path)
    assert len(shared) == 3
    assert max(shared) <= 64 * 1024


@triton_installed
@pytest.mark.slow
@pytest.mark.parametrize("capability", [75, 80, 90])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_kernels_compile_for_every_type_and_width(capability: int, dtype: str, tmp_path: Path) -> None:
    if capability == 75 and dtype == "bfloat16":
        pytest.skip("no bfloat16 before capability 8.0")
    widths = (1, 24, 32, 64, 128) if dtype == "float32" else (1, 24, 32, 64, 128, 256)
    shared = compile_for([(capability, dtype, head) for head in widths], tmp_path)
    assert len(shared) == 3 * len(widths)
    assert max(shared) <= (64 if capability == 75 else 96) * 1024  # the least that GPUs of the kind have


def test_refusals_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    qkv = torch.zeros(1, 4, 4, 12)
    with pytest.raises(BackendError, match=r"argument backend.*'triton'.*use auto or sdpa"):
        choose_backend(qkv, "triton")
    monkeypatch.setenv("YOLO_BRA_BACKEND", "triton")
    with pytest.raises(BackendError, match="YOLO_BRA_BACKEND"):
        choose_backend(qkv)
    grid = RegionGrid.of(4, 4, 2)
    with pytest.raises(BackendError, match=r"CUDA device|not installed"):
        attend_regions(qkv, torch.zeros(1, 4, 1, dtype=torch.int64), grid, AttentionSettings(1, scale=1.0))


@triton_installed
def test_reasons_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert why_not_triton(torch.zeros(1), 32) is None
    assert "float64" in why_not_triton(torch.zeros(1, dtype=torch.float64), 32)
    assert "up to 128 channels" in why_not_triton(torch.zeros(1), 129)
    assert why_not_triton(torch.zeros(1, dtype=torch.float16), 256) is None
    assert "meta" in why_not_triton(torch.zeros(1, device="meta"), 32)


def test_missing_triton_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.attention.ops.dispatch._HAS_TRITON", False)
    with pytest.raises(BackendError, match="pip install triton"):
        choose_backend(torch.zeros(1), "triton")


class TestOnGpu:
    """The same on a device; run with ``pytest -m gpu``."""

    pytestmark = on_gpu

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_agrees_with_the_reference(self, dtype: torch.dtype) -> None:
        for seed in range(200):
            problem = draw_problem(seed, largest=40, widths=(1, 5, 16, 24, 32, 64, 128))
            assert_backend_agrees(problem, seed, "triton", dtype, "cuda")

    def test_is_chosen(self) -> None:
        assert choose_backend(torch.zeros(1, device="cuda")) == "triton"
        assert choose_backend(torch.zeros(1, device="cuda", dtype=torch.float64)) == "sdpa"

    def test_memory_is_linear_in_the_map(self) -> None:
        peaks = []
        for side in (80, 160):
            layer = BiLevelRoutingAttention(128, 4, 8, topk=4, backend="triton").cuda().bfloat16()
            x = torch.randn(2, 128, side, side, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            layer(x).sum().backward()
            peaks.append(torch.cuda.max_memory_allocated() - before)
        assert peaks[1] < 4.5 * peaks[0]

    def test_compiled(self) -> None:
        layer = BiLevelRoutingAttention(64, 2, 4).cuda()
        x = torch.randn(1, 64, 20, 20, device="cuda")
        torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x), rtol=1e-3, atol=1e-3)
