"""benchmark.py formats: that it measures every format on the same images and writes the table."""

from __future__ import annotations

import pytest
from exported_detector import TINY, save_awake_detector
from tiny_dataset import make_dataset

import benchmark
import train
from engine.benchmarks.formats import FORMS
from engine.options.benchmark import FORMATS, FormatsBenchmarkOptions
from utils.errors import ConfigError, OptionError
from utils.yaml_io import yaml_save

MARKED = "Before.\n<!-- formats:begin -->\nold\n<!-- formats:end -->\nAfter.\n"


def test_every_format_has_a_form():
    assert tuple(FORMS) == FORMATS


@pytest.mark.parametrize("formats", [FORMATS[:5:2], pytest.param(FORMATS, marks=pytest.mark.slow)], ids=["few", "all"])
def test_a_run_measures_every_format(formats, tmp_path):
    weights = [str(save_awake_detector(tmp_path / "tiny.pt"))]
    data = make_dataset(tmp_path / "set", train=2, val=2)
    page = tmp_path / "page.md"
    page.write_text(MARKED)
    settings = {"weights": weights, "data": str(data), "imgsz": 64, "repeats": 1, "threads": 1, "docs": str(page)}
    settings["formats"] = list(formats)
    result = benchmark.run("formats", project=str(tmp_path), name="run", exist_ok=True, **settings)
    assert [row.name for row in result.rows] == list(formats)
    assert all(row.seconds > 0 and row.megabytes > 0 for row in result.rows)
    first = result.rows[0]
    for row in result.rows:
        assert row.map == pytest.approx(first.map, abs=0.02 if "int8" in row.name else 0.001)
    assert result.folder == tmp_path / "run"
    assert (result.folder / "formats.md").read_text() == result.text
    assert page.read_text() == MARKED.replace("\nold\n", f"\n\n{result.text.strip()}\n\n")
    assert result.text.count("\n| ") == len(formats) + 2
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.pt", "set", "page.md", "run"}


def test_options_that_cannot_be(tmp_path):
    for wrong in ({"formats": ["coreml"]}, {"formats": []}, {"imgsz": 0}, {"threads": 0}, {"workers": -1}):
        with pytest.raises(OptionError, match=f"--{next(iter(wrong))}"):
            FormatsBenchmarkOptions.from_kwargs(**wrong)
    (tmp_path / "page.md").write_text("no marker")
    with pytest.raises(ConfigError, match="formats:begin"):
        benchmark.run("formats", docs=str(tmp_path / "page.md"), weights="nowhere.pt")


@pytest.mark.slow
def test_map_of_every_format_is_that_of_pytorch(tmp_path):
    """A network that has learned something: within 0.1 point of mAP, in 16 bits within 1 and in 8 within 2."""
    data = make_dataset(tmp_path / "set", train=64, val=32)
    cfg = tmp_path / "tiny.yaml"
    yaml_save(cfg, TINY)
    run = {"epochs": 60, "batch_size": 16, "nbs": 16, "imgsz": 64, "workers": 0, "device": "cpu", "noplots": True}
    train.run(data=str(data), cfg=str(cfg), weights="", project=str(tmp_path), name="run", **run)
    weights = tmp_path / "run" / "weights" / "best.pt"
    settings = {"data": str(data), "imgsz": 64, "repeats": 1, "threads": 1}
    rows = benchmark.run("formats", weights=weights, project=str(tmp_path), **settings).rows
    reference = rows[0].map
    assert rows[0].map50 > 0.2
    for row in rows:
        allowed = 0.02 if "int8" in row.name else 0.01 if "half" in row.name else 0.001
        assert row.map == pytest.approx(reference, abs=allowed), row.name
