"""benchmark.py detect: both ways do the same work, and what it leaves behind; no figure has to be a certain one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import benchmark
from engine.benchmarks.detection import STEPS, WAYS
from tiny_detector import save_detector, save_video
from utils.errors import ConfigError, DatasetError, OptionError

QUICK = {"quick": True, "device": "cpu", "threads": 1}


def test_a_quick_run_measures_both_ways(tmp_path):
    threads = torch.get_num_threads()
    result = benchmark.run("detect", project=str(tmp_path), **QUICK)
    assert result.folder == tmp_path / "detect" and result.frames == 8
    assert set(result.seconds) == set(WAYS) and all(len(taken) == 1 for taken in result.seconds.values())
    assert set(result.steps) == set(STEPS) and min(result.steps.values()) >= 0
    assert (result.folder / "detect.md").read_text(encoding="utf-8") == result.text
    assert f"**{result.speedup:.2f}** times as fast" in result.text and "1280x720" in result.text
    assert torch.get_num_threads() == threads


def test_a_given_video_and_detector_are_taken(tmp_path):
    weights, video = save_detector(tmp_path / "tiny.pt"), save_video(tmp_path / "clip.avi", frames=5)
    given = {"weights": str(weights), "source": str(video), "repeats": 2, "batch_size": 2, "imgsz": 32}
    result = benchmark.run("detect", project=str(tmp_path), **QUICK, **given)
    assert result.frames == 5 and all(len(taken) == 2 for taken in result.seconds.values())
    assert f"{video}, 5 frames; network: {weights}".split()[-1] in result.text and "at 32 px" in result.text


def test_the_result_goes_onto_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- detect:begin -->\nold\n<!-- detect:end -->\nbelow\n")
    given = {"weights": str(save_detector(tmp_path / "tiny.pt")), "source": str(save_video(tmp_path / "clip.avi"))}
    result = benchmark.run("detect", project=str(tmp_path), docs=str(page), exist_ok=True, **given, **QUICK)
    assert result.text.strip() in page.read_text() and "old" not in page.read_text()
    (tmp_path / "bare.md").write_text("nothing")
    with pytest.raises(ConfigError, match="detect:begin"):
        benchmark.run("detect", project=str(tmp_path), docs=str(tmp_path / "bare.md"), **QUICK)


@pytest.mark.parametrize("wrong", [{"conf_thres": 2.0}, {"frames": 0}, {"repeats": 0}, {"threads": 5000}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(OptionError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
        benchmark.run("detect", **wrong)


def test_a_video_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.mp4"):
        benchmark.run("detect", project=str(tmp_path), source=str(Path("gone.mp4")), **QUICK)
