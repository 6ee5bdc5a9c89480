"""Pictures of a run: a failure to draw costs the picture, a warning, and nothing else."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_dataset import NAMES, make_dataset
from training_process import tiny_model

import train
from engine.evaluator import EvaluatedBatch
from engine.results import CSV_COLUMNS
from engine.run_plots import EvalPlots, TrainPlots, drawing
from utils.metrics import ConfusionMatrix, DetectionMetrics

CHARTS = {"confusion_matrix.png", *(f"{kind}_curve.png" for kind in ("PR", "F1", "P", "R"))}
LABELS = [np.array([[0, 0.5, 0.5, 0.2, 0.2]]), np.zeros((0, 5)), np.array([[1, 0.4, 0.4, 0.3, 0.3]])]


@pytest.fixture
def warnings(heard):
    return lambda: [record.getMessage() for record in heard.records if record.levelname == "WARNING"]


class Result:
    """What EvalPlots.finish reads of an EvalResult, from the real parts."""

    def __init__(self, right: bool):
        box = torch.tensor([[10.0, 10, 50, 50, 0.9, 1]])
        truth = torch.tensor([[1.0, 10, 10, 50, 50]])
        self.confusion, metrics = ConfusionMatrix(nc=2), DetectionMetrics(nc=2, names=NAMES)
        found = box if right else box[:0]
        self.confusion.process_batch(found, truth)
        metrics.update(found, truth)
        self.metrics = metrics.compute()


def batch(index: int) -> EvaluatedBatch:
    boxes = torch.tensor([[8.0, 8, 40, 40, 0.9, 1]])
    targets = torch.tensor([[0, 1, 24.0, 24, 32, 32]])
    return EvaluatedBatch(index, torch.zeros(1, 3, 64, 64), targets, ["a.jpg"], [(64, 64)], [boxes], [boxes])


def draw_all(folder: Path, names: dict[int, str], right: bool = True) -> set[str]:
    """Everything there is; returns the names of the files that should be there."""
    plots, checks = TrainPlots(folder, names), EvalPlots(folder, names)
    plots.labels(LABELS)
    for number in range(5):
        plots.batch(number, torch.zeros(1, 3, 64, 64), torch.tensor([[0, 1, 0.5, 0.5, 0.2, 0.2]]), ["a.jpg"])
        checks(batch(number))
    plots.results(folder / "results.csv")
    checks.finish(Result(right))
    batches = {
        f"{stem}.jpg" for n in range(3) for stem in (f"train_batch{n}", f"val_batch{n}_labels", f"val_batch{n}_pred")
    }
    return {"labels.jpg", "labels_correlogram.jpg", *batches, *CHARTS}


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_everything_is_drawn_whatever_the_names(tmp_path, warnings):
    expected = draw_all(tmp_path, {0: "\ud800\x00\n", 1: "\U000e0fff🚗 $x"})
    assert files_of(tmp_path) == expected and warnings() == []


def test_without_a_right_detection_there_are_empty_charts(tmp_path, warnings):
    EvalPlots(tmp_path, NAMES).finish(Result(right=False))
    assert files_of(tmp_path) == CHARTS and warnings() == []


def test_disabled_plots_draw_nothing(tmp_path):
    plots = TrainPlots(tmp_path, NAMES, enabled=False)
    plots.labels(LABELS)
    plots.batch(0, torch.zeros(1, 3, 64, 64), torch.zeros(0, 6), ["a.jpg"])
    (tmp_path / "results.csv").write_text("epoch\n0\n")
    plots.results(tmp_path / "results.csv")
    assert files_of(tmp_path) == {"results.csv"}


def test_a_folder_that_is_a_file_costs_a_warning_a_picture(tmp_path, warnings):
    blocked = tmp_path / "file"
    blocked.write_text("")
    expected = draw_all(blocked, NAMES)
    assert sorted(text.split(":")[0].rpartition("/")[2] for text in warnings()) == sorted(expected)
    assert all(str(blocked) in text and "not drawn" in text for text in warnings())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may write anywhere")
def test_a_folder_without_permission_costs_a_warning_a_picture(tmp_path, warnings):
    tmp_path.chmod(0o500)
    expected = draw_all(tmp_path, NAMES)
    assert len(warnings()) == len(expected) and files_of(tmp_path) == set()


@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 100, b"epoch, train/box_loss\nx, y\n"])
def test_a_damaged_results_file_costs_its_picture(tmp_path, warnings, content):
    (tmp_path / "results.csv").write_bytes(content)
    TrainPlots(tmp_path, NAMES).results(tmp_path / "results.csv")
    assert [text for text in warnings() if "results.png: not drawn (ConfigError" in text] == warnings()[-1:]
    assert files_of(tmp_path) == {"results.csv"}


def test_boxes_that_are_no_numbers_cost_their_picture(tmp_path, warnings):
    rows = torch.tensor([[0, 1, float("nan"), 0.5, 0.2, 0.2]])
    TrainPlots(tmp_path, NAMES).batch(0, torch.zeros(1, 3, 64, 64), rows, ["a.jpg"])
    assert len(warnings()) == 1 and "train_batch0.jpg" in warnings()[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_is_no_failure_to_draw(tmp_path, error):
    with pytest.raises(error), drawing(tmp_path / "x.png"):
        raise error


def test_among_processes_each_draws_its_batches_and_the_main_one_the_curves(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        folder = tmp_path / str(rank)
        folder.mkdir()
        plots = EvalPlots(folder, NAMES)
        for index in range(rank, 6, 2):  # the global numbers of this process's batches
            plots(batch(index))
        plots.finish(Result(right=True))
    pictures = [{f"val_batch{n}_{kind}.jpg" for n in own for kind in ("labels", "pred")} for own in ((0, 2), (1,))]
    assert files_of(tmp_path / "0") == pictures[0] | CHARTS
    assert files_of(tmp_path / "1") == pictures[1]


def test_a_training_survives_the_loss_of_every_picture_and_writes_its_events(tmp_path, warnings):
    data = make_dataset(tmp_path / "set")
    folder = tmp_path / "runs" / "exp"
    blocked = {"labels.jpg", "labels_correlogram.jpg", "results.png", "train_batch0.jpg", "train_batch1.jpg", *CHARTS}
    blocked |= {"val_batch0_labels.jpg", "val_batch0_pred.jpg"}
    for name in blocked:
        (folder / name).mkdir(parents=True)
    train.run(
        cfg=str(tiny_model(tmp_path)), weights="", data=str(data), imgsz=64, batch_size=4, epochs=1, device="cpu",
        workers=0, project=str(folder.parent), name="exp", exist_ok=True,
    )  # fmt: skip
    drawn = [text for text in warnings() if "not drawn" in text]
    assert sorted(text.split(":")[0].rpartition("/")[2] for text in drawn) == sorted(blocked)
    assert (folder / "weights" / "best.pt").exists()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == sorted(CSV_COLUMNS[1:])
    (row,) = list(csv.reader((folder / "results.csv").read_text().splitlines()))[1:]
    for name, cell in zip(CSV_COLUMNS[1:], row[1:], strict=True):
        (event,) = events.Scalars(name)
        assert event.step == 0 and event.value == pytest.approx(float(cell), rel=1e-4)
