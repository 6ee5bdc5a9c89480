"""An evaluation shared out among real processes gives what one process gives, to the last bit."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from evaluation_process import IMAGES_A_BATCH, LAUNCHES, main
from training_process import start_function


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Results and batch numbers by "<processes>-<rank or alone>", and what went to the terminal."""
    folder = tmp_path_factory.mktemp("shared")
    process = start_function(main, folder)
    process.join(120)
    said = (folder / "said.txt").read_text()
    assert process.exitcode == 0, said
    return {path.stem: pickle.loads(path.read_bytes()) for path in folder.glob("*.pickle")}, said


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
