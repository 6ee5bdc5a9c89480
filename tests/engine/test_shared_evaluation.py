"""An evaluation shared out among real processes gives what one process gives, to the last bit."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation_process import IMAGES_A_BATCH, LAUNCHES


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Results and batch numbers by "<processes>-<rank or alone>", and what went to the terminal."""
    folder = tmp_path_factory.mktemp("shared")
    script = Path(__file__).with_name("evaluation_process.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    return {path.stem: pickle.loads(path.read_bytes()) for path in folder.iterdir()}, done.stderr


def plain(result) -> dict:
    """Everything but the speed."""
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    fields.update(metrics=dataclasses.asdict(result.metrics), confusion=result.confusion.matrix)
    del fields["speed_ms"]
    return fields


@pytest.mark.parametrize(("ranks", "batches"), LAUNCHES)
def test_every_process_gets_the_result_of_one(answers, ranks, batches):
    alone, seen = answers[0][f"{ranks}-alone"]
    assert seen == list(range(batches))
    assert 0.05 < alone.metrics.map < 0.95
    assert all(value > 0 for value in (*alone.losses, alone.coco.map, alone.confusion.matrix.sum()))
    for rank in range(ranks):
        result, mine = answers[0][f"{ranks}-{rank}"]
        assert mine == list(range(rank, batches, ranks))
        assert result.images == batches * IMAGES_A_BATCH
        np.testing.assert_equal(plain(result), plain(alone))
        assert result.speed_ms == answers[0][f"{ranks}-0"][0].speed_ms


def test_only_the_main_process_shows_a_bar(answers):
    assert "process 0 of 2" in answers[1]
    assert "process 1 of 2" not in answers[1]
