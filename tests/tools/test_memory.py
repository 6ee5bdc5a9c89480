"""Measuring memory, and that a training's does not grow."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tools.memory import Sample, growth, measure, read_process, report
from utils.errors import BackendError, OptionError, TrainingError
from utils.paths import PROJECT_ROOT


def test_memory_of_a_process_follows_what_it_keeps() -> None:
    before = read_process(os.getpid())
    kept = np.ones(64 << 20, np.uint8)
    after = read_process(os.getpid())
    for smaller, larger in zip(before, after, strict=True):
        assert 60 < larger - smaller < 70
    assert kept[0] == 1
    with pytest.raises(BackendError, match="Linux"):
        read_process(-1)


def test_growth_is_counted_from_epoch_1() -> None:
    figures = {"main": ((50, 30), (100, 40), (110, 40), (120, 30)), "worker 1": ((9, 1), (10, 1), (5, 1), (10, 2))}
    samples = [
        Sample(epoch, name, *row) for name, rows in figures.items() for epoch, row in enumerate(rows) if epoch < 4
    ]
    samples.append(Sample(0, "worker 2", 1, 1))  # gone before the end
    grown = growth(samples)
    assert list(grown) == ["main", "worker 1"]
    np.testing.assert_allclose(list(grown.values()), [(20, -25), (0, 100)])
    table = report(samples).splitlines()
    assert len(table) == 6
    assert table[2].split() == ["epoch", "1", "100.0", "/", "40.0", "10.0", "/", "1.0"]
    assert "+20.0 % / -25.0 %" in table[-1]
    with pytest.raises(TrainingError, match="takes --epochs 3"):
        growth([sample for sample in samples if sample.epoch < 2])


def test_a_wrong_option_is_refused_at_once() -> None:
    with pytest.raises(OptionError, match="workers"):
        measure(worker=2)


@pytest.mark.slow
def test_ten_epochs_with_cached_images_do_not_grow(tmp_path) -> None:
    samples = measure(
        data=str(PROJECT_ROOT / "data" / "shapes.yaml"),
        cfg="yolov5n.yaml",
        weights="",
        imgsz=96,
        epochs=10,
        batch_size=16,
        nbs=16,
        workers=2,
        cache="ram",
        device="cpu",
        project=str(tmp_path),
    )
    print(f"\n{report(samples)}")
    grown = growth(samples)
    assert set(grown) == {"main", *(f"worker {number}" for number in range(1, 5))}  # two for training, two to validate
    for process, percentages in grown.items():
        assert max(percentages) < 5, process
