"""benchmark.py index: what it measures and leaves behind; the goals for a million records are a slow test."""

from __future__ import annotations

from pathlib import Path

import pytest

import benchmark
from engine.benchmarks.index_work import MadeReader, in_fresh_process, kernel_figures, made_files
from utils.errors import BackendError, ConfigError, OptionError

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads what Linux says of memory")


def test_a_quick_run_measures_everything(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- index:begin -->\nthe last result\n<!-- index:end -->\nbelow\n")
    few = {"records": 120, "files": 5, "quick": True, "boxes": [10]}
    result = benchmark.run("index", project=str(tmp_path), docs=str(page), exist_ok=True, **few)
    (cost,) = result.costs
    assert (cost.images, cost.boxes) == (12, 10)
    assert min(cost.build, cost.warm, cost.cold, *result.seconds.values()) > 0
    assert 0.005 < cost.size < 0.02
    assert set(cost.further) == {"fork", "spawn"}
    assert set(result.seconds) == {"list", "build", "check"}
    assert (result.folder / "index.md").read_text(encoding="utf-8") == result.text
    assert result.text.strip() in page.read_text() and "the last result" not in page.read_text()
    assert "Over 5 real images" in result.text


@pytest.mark.slow
def test_a_million_records(tmp_path):
    result = benchmark.run("index", project=str(tmp_path), files=1000)
    assert [cost.images for cost in result.costs] == [100_000, 1_000_000]
    for cost in result.costs:
        assert max(cost.warm, cost.cold) < 2  # s
        assert cost.peak < 150  # MB
        assert max(cost.further[way].private for way in ("fork", "spawn")) < 50  # MB
        assert max(cost.further[way].total for way in ("fork", "spawn")) < 50


def test_made_records_are_a_function_of_the_path():
    reader, (first, second) = MadeReader(3), made_files(2)
    one, again, other = reader(first), reader(first), reader(second)
    assert (one.label.labels == again.label.labels).all()
    assert (one.label.labels != other.label.labels).any()
    assert len(one.label.labels) == len(one.label.polygons) == len(one.label.lines) == 3


def test_what_cannot_be_measured_says_why(tmp_path):
    with pytest.raises(BackendError, match="expected what Linux"):
        kernel_figures("/proc/self/no such figures")
    with pytest.raises(BackendError, match="kernel_figures"):
        in_fresh_process(kernel_figures, "/proc/self/no such figures")
    (tmp_path / "bare.md").write_text("nothing")
    with pytest.raises(ConfigError, match="index:begin"):
        benchmark.run("index", project=str(tmp_path), docs=str(tmp_path / "bare.md"), quick=True)


@pytest.mark.parametrize("wrong", [{"records": 0}, {"boxes": []}, {"boxes": [0]}, {"files": 0}, {"processes": 0}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(OptionError, match=f"--{next(iter(wrong))}"):
        benchmark.run("index", **wrong)
