"""What every benchmark measures with: time by turns, memory, and the words for the machine."""

from __future__ import annotations

import time

import pytest
import torch

from engine.benchmarks.interleaved import Rounds, interleaved
from engine.benchmarks.machine import describe_machine, threads_of_torch
from engine.benchmarks.memory import peak_bytes
from utils.errors import BackendError

CPU = torch.device("cpu")


def test_runs_take_turns_and_keep_their_order():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in ("b", "a", "c")}
    times = interleaved(runs, CPU, Rounds(least=2, most=2, seconds=0))
    assert "".join(calls) == "baccab"  # a round, and a round in the opposite order
    assert list(times) == ["b", "a", "c"]


def test_settling_calls_come_before_and_are_not_timed():
    naps = {name: iter([0.2, 0.0, 0.2, 0.0]) for name in "ab"}
    calls = []

    def run(name: str) -> None:
        calls.append(name)
        time.sleep(next(naps[name]))

    runs = {name: lambda name=name: run(name) for name in "ab"}
    times = interleaved(runs, CPU, Rounds(least=2, most=2, seconds=0, settling=1))
    assert "".join(calls) == "aabbbbaa"
    assert max(times.values()) < 0.1


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 3), (60, 9)])
def test_rounds_end_with_the_time_but_not_before_the_least(seconds, rounds):
    calls = []
    interleaved({"a": lambda: calls.append("a")}, CPU, Rounds(least=3, most=9, seconds=seconds))
    assert len(calls) == rounds


def test_one_slow_round_does_not_count():
    naps = iter([0.2, 0.0, 0.0])
    assert interleaved({"a": lambda: time.sleep(next(naps))}, CPU, Rounds(3, 3, 60))["a"] < 0.2 / 3


def test_longer_work_takes_longer():
    small, large = torch.ones(8, 8), torch.ones(700, 700)
    times = interleaved({"large": lambda: large @ large, "small": lambda: small @ small}, CPU, Rounds(9, 9, 0))
    assert times["large"] > 2 * times["small"]


def test_peak_of_known_allocations():
    megabyte = 2**20

    def run() -> torch.Tensor:
        kept = torch.empty(3 * megabyte, dtype=torch.uint8)
        torch.empty(5 * megabyte, dtype=torch.uint8)  # gone at once
        torch.empty(4 * megabyte, dtype=torch.uint8)
        return kept

    assert peak_bytes(run, CPU) == 8 * megabyte
    assert peak_bytes(lambda: None, CPU) == 0
    with pytest.raises(BackendError, match="not on meta"):
        peak_bytes(run, torch.device("meta"))


def test_peak_sees_the_backward_pass():
    x = torch.ones(1000, 1000, requires_grad=True)
    size = 4 * 1000 * 1000
    assert peak_bytes(lambda: x.exp(), CPU) == size
    assert peak_bytes(lambda: torch.autograd.grad(x.exp().sum(), x), CPU) >= 2 * size


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with threads_of_torch(before + 1):
        assert torch.get_num_threads() == before + 1
        assert f", {before + 1} threads, torch {torch.__version__.split('+')[0]}" in describe_machine(CPU, before + 1)
    assert torch.get_num_threads() == before


def test_the_processor_has_a_name(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Abacus 9\nmodel name\t: Abacus 9\n")
    assert describe_machine(CPU, 1, tmp_path / "cpuinfo").startswith("Abacus 9, 1 thread, torch ")
    assert describe_machine(CPU, 1, tmp_path / "nothing").split(",")[0]
