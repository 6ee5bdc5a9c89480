"""Going on with a run: bit for bit as if nothing had happened, whatever ended it."""

from __future__ import annotations

import csv
import dataclasses
import random
import time
import zipfile
from pathlib import Path

import pytest
import torch
from tiny_dataset import make_dataset
from training_process import after, both, finish, kill_when, rewritten, start, tiny_settings, while_saving

import train
from engine.callbacks import Callback
from engine.options.train import TrainOptions
from engine.results import ResultsCsv
from engine.resume import find_run
from engine.run_files import locked
from engine.run_state import restore
from engine.setup import load_data
from engine.trainer import Trainer
from models.checkpoint import read_checkpoint, write_checkpoint
from utils.errors import CheckpointError, ConfigError, DatasetError, OptionError, TrainingError
from utils.yaml_io import yaml_load, yaml_save

HYP = "data/hyps/hyp.scratch-low.yaml"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return tiny_settings(tmp_path_factory.mktemp("resume"), epochs=4)


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
    "pending": {"nbs": 4000, "optimizer": "AdamW", "cos_lr": True, "workers": 2},  # steps do not end with epochs
    "everything": {"nbs": 40, "image_weights": True, "multi_scale": True, "bf16": True, "patience": 3},
    "unvalidated": {"noval": True, "quad": True, "label_smoothing": 0.1, "freeze": [1]},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_two_and_two_epochs_are_four(settings, name):
    settings = {**settings, **VARIANTS[name]}
    straight = Path(train.run(**{**settings, "name": f"{name}-straight"}).save_dir)
    folder = interrupted({**settings, "name": f"{name}-parts"}, epoch=1)
    half_way = read_checkpoint(folder / "weights" / "last.pt")
    assert half_way.epoch == 1
    assert bool(half_way.extra["pending_gradients"]) == (name == "pending")
    resumed = train.run(resume=str(folder / "weights" / "last.pt"))
    assert Path(resumed.save_dir) == folder
    same_runs(straight, folder)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_steps_are_fused_where_this_device_can_whatever_wrote_the_checkpoint(settings, optimizer):
    settings = {**settings, "epochs": 2, "optimizer": optimizer}
    straight = Path(train.run(**{**settings, "name": f"{optimizer}-fused"}).save_dir)
    folder = interrupted({**settings, "name": f"{optimizer}-unfused"}, epoch=0)
    checkpoint = read_checkpoint(folder / "weights" / "last.pt")
    for group in checkpoint.optimizer["param_groups"]:
        assert group["fused"] is True
        group["fused"] = None  # as files from before, and from other devices, have it
    write_checkpoint(folder / "weights" / "last.pt", checkpoint)
    train.run(resume=str(folder))
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
        within = (
            1.5 * epoch_seconds if done < 22 else 0
        )  # on a machine that has become faster: no epoch passes unkilled
        if kill % 5 == 4:
            moment = after(draw.uniform(0, 0.5))  # wherever that is, on the way to the first epoch
        else:
            moment = after(draw.uniform(0, within), since=rewritten(folder / "opt.yaml"))
        if kill % 2 or not last.exists():
            moment = both(moment, while_saving(folder))
        if kill >= 3 and not last.exists():  # or it might be killed within its first save every time
            moment = both(moment, last.exists)
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


def test_patience_that_ran_out_stays_so(settings):
    """Cut off before the last check, a run gets it and no further epoch; after that only more patience goes on."""
    settings = {**settings, "epochs": 6, "patience": 1, "data": str(make_unlabelled(settings))}
    straight = Path(train.run(**{**settings, "name": "impatient"}).save_dir)
    folder = interrupted({**settings, "name": "impatient-parts"}, epoch=1)
    train.run(resume=str(folder))
    same_runs(straight, folder)
    with pytest.raises(OptionError, match="ended after 2 epochs, 1 of them without a better fitness; give --patience"):
        train.run(resume=str(folder))
    train.run(resume=str(folder), patience=0, epochs=3)
    assert read_checkpoint(folder / "weights" / "last.pt").epoch == 2


def make_unlabelled(settings: dict) -> Path:
    """A set whose fitness stays 0, as there is nothing to find."""
    return make_dataset(Path(settings["project"]).parent / "unlabelled", labelled_val=False)


def changed_checkpoint(file: Path, **extra) -> None:
    """Write other entries into the state that a checkpoint keeps."""
    checkpoint = read_checkpoint(file)
    write_checkpoint(file, dataclasses.replace(checkpoint, extra={**checkpoint.extra, **extra}))


def test_class_figures_come_back_and_steer_the_draw(settings):
    folder = interrupted({**settings, "image_weights": True, "name": "steered"}, epoch=1)
    last = folder / "weights" / "last.pt"
    changed_checkpoint(last, class_map=torch.tensor([1.0, 0.0], dtype=torch.float64), balance=[3.0, 0.7])
    run = find_run(TrainOptions.from_kwargs(resume=str(last)))
    trainer = Trainer(run.options, run.hyp, load_data(run.options), torch.device("cpu"), run.folder, resumed=run.take())
    trainer.build()
    trainer.prepare()
    assert trainer.progress.class_map.tolist() == [1, 0]
    assert trainer.progress.epoch == 2
    assert trainer.loss.balance == [3.0, 0.7]
    assert run.checkpoint is None


def test_a_scaler_gets_its_state_back_where_there_is_one(settings):
    folder = interrupted({**settings, "name": "scaled"}, epoch=0)
    changed_checkpoint(
        folder / "weights" / "last.pt",
        scaler={
            "scale": 512.0,
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "growth_interval": 7,
            "_growth_tracker": 3,
        },
    )
    run = find_run(TrainOptions.from_kwargs(resume=str(folder)))
    trainer = Trainer(run.options, run.hyp, load_data(run.options), torch.device("cpu"), run.folder)
    trainer.build()
    trainer.prepare()
    trainer.scaler = torch.amp.GradScaler("cpu", enabled=True)
    restore(trainer, run.take())
    assert trainer.scaler.get_scale() == 512
    assert trainer.scaler.state_dict()["_growth_tracker"] == 3


def test_a_settings_file_that_was_cut_short_brings_no_defaults_back(settings):
    folder = interrupted({**settings, "name": "cut"}, epoch=1)
    (folder / "opt.yaml").write_text("weights: ''\n")
    options = train.run(resume=str(folder))
    stored = yaml_load(folder / "opt.yaml")
    assert (stored["imgsz"], stored["batch_size"], stored["epochs"]) == (64, 4, 4)
    assert Path(options.save_dir) == folder


def test_an_interrupted_check_is_made_up_for(settings, monkeypatch):
    class Interrupt(Callback):
        def run(self, event, **facts):
            if event == "on_fit_epoch_end":
                facts["values"].clear()
            if event == "on_train_end":
                raise AssertionError("the check had been interrupted")

    def interrupted_check(*_, **__):
        raise KeyboardInterrupt

    options = TrainOptions.from_kwargs(**{**settings, "epochs": 1, "name": "halfway"})
    folder = Path(settings["project"]) / "halfway"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("engine.training.attempt_load", interrupted_check)
        train.train(HYP, options, torch.device("cpu"), Interrupt())
    assert folder.joinpath("weights", "best.pt").exists()
    train.run(resume=str(folder))
    assert read_checkpoint(folder / "weights" / "best.pt").optimizer is None
    assert not list((folder / "weights").glob(".*"))


def test_an_older_checkpoint_of_a_run_overwrites_nothing(settings):
    folder = Path(train.run(**{**settings, "epochs": 2, "save_period": 1, "name": "older"}).save_dir)
    before = {path.name: path.read_bytes() for path in (folder / "weights").iterdir()}
    with pytest.raises(OptionError, match=r"epoch0\.pt: is of epoch 0, but .*last\.pt of epoch 1"):
        train.run(resume=str(folder / "weights" / "epoch0.pt"), epochs=3)
    assert {path.name: path.read_bytes() for path in (folder / "weights").iterdir()} == before


def test_a_failing_start_leaves_an_older_run_as_it_was(settings, tmp_path):
    folder = Path(train.run(**{**settings, "epochs": 1, "project": str(tmp_path), "name": "whole"}).save_dir)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    data = make_dataset(tmp_path / "set")
    for image in (tmp_path / "set" / "images" / "train").iterdir():
        image.unlink()
    with pytest.raises(DatasetError):
        train.run(**{**settings, "project": str(tmp_path), "name": "whole", "exist_ok": True, "data": str(data)})
    with pytest.raises(DatasetError):
        train.run(resume=str(folder), epochs=2, data=str(data))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_one_process_a_run_folder(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(OptionError, match="another process is training in this folder"),
        locked(tmp_path),
    ):
        pytest.fail("two at once")


def test_bits_that_changed_on_disk_are_noticed(settings, tmp_path):
    folder = Path(train.run(**{**settings, "epochs": 1, "project": str(tmp_path), "name": "bits"}).save_dir)
    last = folder / "weights" / "last.pt"
    with zipfile.ZipFile(last) as archive:
        tensor = archive.read(max(archive.infolist(), key=lambda entry: entry.file_size))
    content = bytearray(last.read_bytes())
    content[content.index(tensor) + len(tensor) // 2] ^= 4  # not in the padding between tensors, which nobody reads
    last.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.pt: damaged"):
        train.run(resume=str(folder), epochs=2)


def test_a_finished_run_can_be_extended(settings):
    folder = Path(train.run(**{**settings, "epochs": 1, "name": "extended"}).save_dir)
    with pytest.raises(OptionError, match=r"has done its 1 epochs, and --epochs 1 asks for no more"):
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
        ("epoch,", 3, ""),
    ],
)
def test_rows_of_unfinished_epochs_go(tmp_path, text, last, kept):
    file = tmp_path / "results.csv"
    file.write_text(text)
    ResultsCsv(file).trim(last)
    assert file.read_text() == kept
    ResultsCsv(tmp_path / "none.csv").trim(0)
