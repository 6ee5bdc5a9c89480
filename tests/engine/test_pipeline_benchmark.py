"""benchmark.py pipeline: textbooks make the same items, and what a run leaves; no figure has to be a certain one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from tiny_dataset import make_dataset

import benchmark
from engine.benchmarks.figures import Figure, figures_table
from engine.benchmarks.textbook import Textbook
from tiny_detector import TINY, save_detector
from utils.datasets.detection import LoadImagesAndLabels
from utils.errors import ConfigError, OptionError
from utils.yaml_io import yaml_save

AUGMENTED = {"hsv_h": 0.02, "hsv_s": 0.7, "hsv_v": 0.4, "translate": 0.1, "scale": 0.5, "fliplr": 0.5, "mosaic": 1.0}


@pytest.fixture
def data(tmp_path):
    return make_dataset(tmp_path / "set")


@pytest.mark.parametrize(
    "changes",
    [{}, {"degrees": 20, "shear": 10, "flipud": 0.5}, {"perspective": 0.001, "scale": 0.9}],
)
@pytest.mark.parametrize("in_memory", [False, True])
def test_the_textbook_makes_the_same_items(data, changes, in_memory):
    recipe = {**AUGMENTED, **changes}
    images = data.parent / "images" / "train"
    dataset = LoadImagesAndLabels(images, 96, augment=True, hyp=recipe, cache_images="ram" if in_memory else False)
    textbook, boxes, equal = Textbook(dataset, in_memory), 0, []
    for dataset.epoch in range(3):
        for index in range(dataset.n):
            (pixels, rows, _, _), (expected, wanted) = dataset[index], textbook[index]
            torch.testing.assert_close(rows, wanted, rtol=0, atol=1e-6)
            torch.testing.assert_close(pixels, expected, rtol=0, atol=8)  # a step of hue, two degrees
            equal.append(torch.equal(pixels, expected))
            boxes += len(rows)
    assert boxes > 10
    assert sum(equal) >= 0.8 * len(equal)  # a product of colours in 100,000 is a level higher


def test_jpegs_that_are_decoded_small_stay_within_interpolation_error(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number in range(4):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (256, 192), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / "images" / f"{number}.jpg"), picture)
        (tmp_path / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.6\n1 0.3 0.2 0.2 0.3\n")
    dataset = LoadImagesAndLabels(tmp_path / "images", 128, augment=True, hyp=AUGMENTED)
    textbook = Textbook(dataset, in_memory=False)
    for index in range(4):
        (pixels, rows, _, _), (expected, wanted) = dataset[index], textbook[index]
        torch.testing.assert_close(rows, wanted, rtol=0, atol=1e-6)
        difference = (pixels.float() - expected.float()).abs()
        assert 0 < difference.mean() < 1.5
        assert difference.quantile(0.99) < 12  # levels; a step of hue, two degrees, is worth several


def test_a_quick_run(data, tmp_path):
    page, cfg = tmp_path / "page.md", tmp_path / "tiny.yaml"
    page.write_text("above\n<!-- pipeline:begin -->\nold\n<!-- pipeline:end -->\nbelow\n")
    yaml_save(cfg, TINY)
    weights = save_detector(tmp_path / "tiny.pt")
    threads = torch.get_num_threads(), cv2.getNumThreads()
    result = benchmark.run(
        "pipeline", data=str(data), cfg=str(cfg), weights=str(weights), workers=0, threads=1, device="cpu", quick=True,
        docs=str(page), project=str(tmp_path / "runs"), exist_ok=True,
    )  # fmt: skip
    titles = [figure.title.split(":")[0].split(",")[0] for figure in result.figures]
    assert titles == ["start-up"] * 3 + ["data pipeline"] * 3 + ["training", "validation", "inference"]
    assert all(len(figure.rounds) == 1 and figure.value > 0 for figure in result.figures)
    assert (result.folder / "pipeline.md").read_text() == result.text and "benchmark.py pipeline --data" in result.text
    assert result.text.strip() in page.read_text() and page.read_text().endswith("below\n")
    assert (torch.get_num_threads(), cv2.getNumThreads()) == threads


def test_what_is_missing_is_an_error_before_anything_is_measured(tmp_path):
    (tmp_path / "bare.md").write_text("nothing")
    for wrong, found in (({"docs": str(tmp_path / "bare.md")}, "pipeline:begin"), ({"weights": "gone.pt"}, "gone.pt")):
        with pytest.raises(ConfigError, match=found):
            benchmark.run("pipeline", **wrong, device="cpu", project=str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"images": 0}, {"workers": -1}, {"threads": 5000}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(OptionError, match=f"--{next(iter(wrong))}"):
        benchmark.run("pipeline", **wrong)


def test_a_figure_and_its_target():
    slow = Figure("a", "b", [1.3, 1.1, 1.2], 1.15)
    fast = Figure("c", "d", [2.5, 2.0], 2.0, at_most=False, unit=" s")
    assert (slow.value, slow.met, fast.value, fast.met) == (1.2, False, 2.25, True)
    lines = figures_table([slow, fast]).splitlines()
    assert lines[2] == "| a | b | **1.20** | 1.10 to 1.30 | at most 1.15 | no |"
    assert lines[3] == "| c | d | **2.25 s** | 2.00 to 2.50 | at least 2 s | yes |"
