"""Going on with a run: bit for bit as if nothing had happened, whatever ended it."""

from __future__ import annotations

import csv
import random
import time
from pathlib import Path

import pytest
import torch
from tiny_dataset import make_dataset
from training_process import after, both, finish, kill_when, rewritten, start, tiny_model, while_saving

import train
from engine.callbacks import Callback
from engine.options.train import TrainOptions
from engine.resume import trim_results
from models.checkpoint import read_checkpoint
from utils.errors import CheckpointError, ConfigError, OptionError, TrainingError
from utils.yaml_io import yaml_load, yaml_save

HYP = "data/hyps/hyp.scratch-low.yaml"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    return {
        "cfg": str(tiny_model(folder)),
        "weights": "",
        "data": str(make_dataset(folder / "set")),
        "imgsz": 64,
        "batch_size": 4,
        "epochs": 4,
        "device": "cpu",
        "workers": 0,
        "noplots": True,
        "project": str(folder / "runs"),
    }


class StopAfter(Callback):
    """Ends a training once an epoch is on disk."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_fit_epoch_end(self, epoch, values, fitness):
        if epoch == self.epoch:
            raise TrainingError("stopped by the test")


def interrupted(settings: dict, epoch: int) -> Path:
    """A run that ended after an epoch; returns its folder."""
    options = TrainOptions.from_kwargs(**settings)
    with pytest.raises(TrainingError, match="stopped by the test"):
        train.train(HYP, options, torch.device("cpu"), StopAfter(epoch))
    return Path(settings["project"]) / settings["name"]


def same(first, second, place: str = "") -> None:
    """Fail where two nested structures differ in a single bit."""
    assert type(first) is type(second), place
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), place
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), place
        for key in first:
            same(first[key], second[key], f"{place}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), place
        for number, pair in enumerate(zip(first, second, strict=True)):
            same(*pair, f"{place}[{number}]")
    else:
        assert first == second, place


def same_runs(first: Path, second: Path) -> None:
    """Two run folders hold the same weights, training state and figures."""
    assert (first / "results.csv").read_text() == (second / "results.csv").read_text()
    for name in ("last.pt", "best.pt"):
        contents = [torch.load(folder / "weights" / name, weights_only=True) for folder in (first, second)]
        for content in contents:
            del content["date"], content["opt"]
        same(*contents, name)


VARIANTS = {
    "plain": {},
    "pending": {"nbs": 12, "optimizer": "AdamW", "cos_lr": True, "workers": 2},  # steps do not end with epochs
    "everything": {"nbs": 40, "image_weights": True, "multi_scale": True, "bf16": True, "patience": 3},
    "unvalidated": {"noval": True, "quad": True, "label_smoothing": 0.1, "freeze": [1]},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_two_and_two_epochs_are_four(settings, name):
    settings = {**settings, **VARIANTS[name]}
    straight = Path(train.run(**{**settings, "name": f"{name}-straight"}).save_dir)
    folder = interrupted({**settings, "name": f"{name}-parts"}, epoch=1)
    assert read_checkpoint(folder / "weights" / "last.pt").epoch == 1
    random.seed(99)
    torch.manual_seed(99)  # what a new process finds in its generators has no say
    resumed = train.run(resume=str(folder / "weights" / "last.pt"))
    assert Path(resumed.save_dir) == folder
    same_runs(straight, folder)


def test_killed_at_twenty_random_moments(settings):
    """Each kill loses no more than the running epoch, and all that is left at the end is the straight run's."""
    settings = {**settings, "epochs": 36, "save_period": 5}
    straight, folder = Path(settings["project"]) / "unharmed", Path(settings["project"]) / "killed"
    begun = time.monotonic()
    finish({**settings, "name": "unharmed"})
    epoch_seconds = (time.monotonic() - begun) / 36
    last, best = folder / "weights" / "last.pt", folder / "weights" / "best.pt"
    draw = random.Random(20)
    done, in_saves = -1, 0
    for kill in range(20):
        child = start({"resume": str(last)} if last.exists() else {**settings, "name": "killed", "exist_ok": True})
        if kill % 5 == 4:
            moment = after(draw.uniform(0, 0.5))  # wherever that is, on the way to the first epoch
        else:
            moment = after(draw.uniform(0, 1.5 * epoch_seconds), since=rewritten(folder / "opt.yaml"))
        if kill % 2 or not last.exists():
            moment = both(moment, while_saving(folder))
        assert kill_when(child, moment), "the run came to its end before it was killed"
        in_saves += any(folder.glob("weights/.*.tmp"))
        if last.exists():
            reached = read_checkpoint(last).epoch
            assert reached >= done
            done = reached
            rows = [row for row in csv.reader((folder / "results.csv").open()) if len(row) == 14]
            assert len(rows) - 1 <= done + 2  # the header and, at most, the epoch that was about to be saved
        if best.exists():
            read_checkpoint(best)
    assert in_saves >= 5
    finish({"resume": str(folder)})
    same_runs(straight, folder)
    names = [sorted(path.name for path in (run / "weights").iterdir()) for run in (straight, folder)]
    assert names[0] == names[1]


def test_a_finished_run_can_be_extended(settings):
    folder = Path(train.run(**{**settings, "epochs": 1, "name": "extended"}).save_dir)
    with pytest.raises(OptionError, match=r"has done 1 of 1 epochs; give --epochs with a higher number"):
        train.run(resume=str(folder))
    train.run(resume=str(folder), epochs=2, workers=1)
    rows = list(csv.reader((folder / "results.csv").open()))
    assert [row[0].strip() for row in rows] == ["epoch", "0", "1"]
    assert read_checkpoint(folder / "weights" / "last.pt").epoch == 1
    assert read_checkpoint(folder / "weights" / "best.pt").optimizer is None
    assert yaml_load(folder / "opt.yaml")["epochs"] == 2


def test_a_run_cut_off_before_its_last_check_gets_it(settings):
    folder = interrupted({**settings, "epochs": 1, "name": "unchecked"}, epoch=0)
    assert read_checkpoint(folder / "weights" / "best.pt").optimizer is not None
    train.run(resume=str(folder))
    assert read_checkpoint(folder / "weights" / "best.pt").optimizer is None
    assert len((folder / "results.csv").read_text().splitlines()) == 2


def test_the_newest_run_is_found_and_other_options_are_its_own(settings, monkeypatch, caplog, tmp_path):
    folder = interrupted({**settings, "project": str(tmp_path / "runs"), "name": "exp", "epochs": 2}, epoch=0)
    monkeypatch.chdir(tmp_path)
    options = train.run(resume=True, imgsz=96, batch_size=4)
    assert Path(options.save_dir).resolve() == folder.resolve()
    assert yaml_load(folder / "opt.yaml")["imgsz"] == 64
    assert "--imgsz 96: left out" in caplog.text
    assert "--batch-size" not in caplog.text


def test_what_cannot_be_resumed_is_said(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no last\*\.pt anywhere below"):
        train.run(resume=True)
    with pytest.raises(CheckpointError, match=r"gone\.pt: no such checkpoint"):
        train.run(resume="gone.pt")
    with pytest.raises(OptionError, match="--evolve"):
        train.run(resume=True, evolve=3)
    folder = Path(train.run(**{**settings, "epochs": 1, "project": str(tmp_path), "name": "done"}).save_dir)
    with pytest.raises(CheckpointError, match=r"best\.pt: holds weights only, no training state"):
        train.run(resume=str(folder / "weights" / "best.pt"))
    stored = yaml_load(folder / "opt.yaml")
    yaml_save(folder / "opt.yaml", {**stored, "epochs": 2, "imgsz": "large"})
    with pytest.raises(ConfigError, match=r"opt\.yaml: --imgsz 'large': expected a whole number"):
        train.run(resume=str(folder))
    yaml_save(folder / "opt.yaml", {**stored, "epochs": 2, "optimizer": "AdamW"})
    with pytest.raises(CheckpointError, match="does not fit the run"):
        train.run(resume=str(folder))
    (folder / "opt.yaml").unlink()
    with pytest.raises(ConfigError, match=r"opt\.yaml: cannot be read"):
        train.run(resume=str(folder))


@pytest.mark.parametrize(
    ("text", "last", "kept"),
    [
        ("", 3, ""),
        ("epoch,a\n", 0, "epoch,a\n"),
        ("epoch,a\n 0,1\n 1,2\n", 1, "epoch,a\n 0,1\n 1,2\n"),
        ("epoch,a\n 0,1\n 1,2\n", 0, "epoch,a\n 0,1\n"),
        ("epoch,a\n 0,1\n 1,2", 1, "epoch,a\n 0,1\n"),  # cut off before its end of line
        ("epoch,a\n 0,1\n 1", 1, "epoch,a\n 0,1\n"),
    ],
)
def test_rows_of_unfinished_epochs_go(tmp_path, text, last, kept):
    file = tmp_path / "results.csv"
    file.write_text(text)
    trim_results(file, last)
    assert file.read_text() == kept
    trim_results(tmp_path / "none.csv", 0)
