"""TensorBoard events: what is written can be read back, and nothing about them can hurt a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard_process import main
from training_process import start_function

from engine.callbacks import Callbacks
from engine.results import CSV_COLUMNS
from engine.tensorboard import CurveLog

TAGS = list(CSV_COLUMNS[1:])


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("apart")
    process = start_function(main, folder)
    process.join(120)
    assert process.exitcode == 0
    return {**json.loads((folder / "found.json").read_text()), "printed": (folder / "printed.txt").read_text()}


def values_of(epoch: int, shift: float = 0.0) -> list[float]:
    return [shift + epoch + 0.01 * place for place in range(len(TAGS))]


def write(log: CurveLog, epochs: range, shift: float = 0.0) -> None:
    log.run("on_train_start", options=None, save_dir=log.folder)
    for epoch in epochs:
        log.run("on_fit_epoch_end", epoch=epoch, values=values_of(epoch, shift), fitness=0.0)


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tags_are_the_columns_and_steps_the_epochs(tmp_path):
    log = CurveLog(tmp_path)
    assert not list(tmp_path.iterdir())  # the constructor writes nothing
    write(log, range(3))
    log.run("on_train_end", results=(), save_dir=tmp_path)
    found = read(tmp_path)
    assert sorted(found) == sorted(TAGS)
    for place, tag in enumerate(TAGS):
        assert [step for step, _ in found[tag]] == [0, 1, 2]
        np.testing.assert_allclose([value for _, value in found[tag]], [values_of(e)[place] for e in range(3)])


def test_every_epoch_is_on_disk_at_its_end(tmp_path):
    write(CurveLog(tmp_path), range(2))  # never closed, as after kill -9
    assert [step for step, _ in read(tmp_path)[TAGS[0]]] == [0, 1]


def test_a_run_without_a_start_event_is_written_too(tmp_path):
    log = CurveLog(tmp_path)
    log.run("on_fit_epoch_end", epoch=0, values=values_of(0), fitness=None)
    log.close()
    log.run("on_fit_epoch_end", epoch=1, values=values_of(1), fitness=None)  # after the end: nothing
    assert [step for step, _ in read(tmp_path)[TAGS[0]]] == [0]


def test_a_resumed_run_has_every_epoch_once(tmp_path):
    write(CurveLog(tmp_path), range(4))  # killed after epoch 3, whose checkpoint was lost
    write(CurveLog(tmp_path, first_epoch=2), range(2, 5), shift=100)
    assert read(tmp_path)[TAGS[0]] == [(0, 0), (1, 1), (2, 102), (3, 103), (4, 104)]


def test_events_after_a_clock_was_set_back_come_after_the_others(tmp_path):
    write(CurveLog(tmp_path), range(3))
    (file,) = tmp_path.iterdir()
    file.rename(file.with_name("events.out.tfevents.9000000000.host.1.0"))
    write(CurveLog(tmp_path, first_epoch=1), range(1, 3), shift=100)
    assert read(tmp_path)[TAGS[0]] == [(0, 0), (1, 101), (2, 102)]


def test_not_a_number_is_written_as_it_is(tmp_path):
    log = CurveLog(tmp_path)
    log.run("on_fit_epoch_end", epoch=0, values=[float("nan")] * len(TAGS), fitness=None)
    log.close()
    assert np.isnan(read(tmp_path)[TAGS[0]][0][1])


def test_a_row_of_another_length_is_a_defect(tmp_path):
    with pytest.raises(ValueError, match="argument"):
        CurveLog(tmp_path).run("on_fit_epoch_end", epoch=0, values=[1.0], fitness=None)


def test_without_tensorboard_nothing_is_written_or_said(apart):
    assert apart["absent"] == {"said": [], "epochs": 5, "ended": 1, "sizes": []}


def test_unused_it_is_not_even_imported(apart):
    assert apart["imported"] == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes there")
@pytest.mark.parametrize("limit", [0, 100, 1500])
def test_a_full_disk_is_one_warning_and_training_goes_on(apart, limit):
    run = apart[str(limit)]
    warnings = [text for text in run["said"] if "failed" in text]
    assert len(warnings) == 1 and "CurveLog" in warnings[0]
    assert (run["epochs"], run["ended"]) == (5, 1)
    assert all(size <= limit for size in run["sizes"])
    assert "Traceback" not in apart["printed"]


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path, heard):
    blocked = tmp_path / "file"
    blocked.write_text("")
    callbacks = Callbacks(CurveLog(blocked / "run"))
    callbacks.run("on_train_start", options=None, save_dir=blocked)
    for epoch in range(3):
        callbacks.run("on_fit_epoch_end", epoch=epoch, values=values_of(epoch), fitness=None)
    callbacks.run("on_train_end", results=(), save_dir=blocked)
    assert [record.levelname for record in heard.records] == ["WARNING"]
    assert "CurveLog" in heard.text and "on_train_start" in heard.text
