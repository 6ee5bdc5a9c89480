"""Two processes that train one model: real ranks, gloo, on the CPU."""

from __future__ import annotations

import csv
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from test_faults import at_pass, told
from test_resume import StopAfter, same_runs
from training_process import launch, tiny_settings

import train
import val
from engine.cli import run_command
from engine.options.train import TrainOptions
from engine.run_files import RunFolder
from engine.setup import load_data, load_hyperparameters
from engine.trainer import Trainer
from engine.training import train_run
from models.checkpoint import Checkpoint, ModelMeta, read_checkpoint, write_checkpoint
from models.yolo import DetectionModel
from utils.dist import process_group
from utils.errors import DatasetError, OptionError, TrainingError
from utils.loss import ComputeLoss, scale_gains

ROOT = Path(__file__).resolve().parents[2]
HYP = "data/hyps/hyp.scratch-low.yaml"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return tiny_settings(tmp_path_factory.mktemp("ranks"), epochs=2, val=5)


def join(children, seconds: float = 60) -> None:
    """Wait for processes that must end well."""
    for child in children:
        child.join(seconds)
    assert [child.exitcode for child in children] == [0] * len(children)


def prepared_trainer(settings: dict, folder: Path) -> Trainer:
    """A trainer at the beginning of its first epoch."""
    options = TrainOptions.from_kwargs(**settings)
    trainer = Trainer(options, load_hyperparameters(HYP), load_data(options), CPU, RunFolder(folder))
    trainer.build()
    trainer.prepare()
    return trainer


# The first step ------------------------------------------------------------------------------------------------------


def first_step(rank: int, settings: dict, folder: Path) -> None:
    """Write down a rank's first batch, its loss terms, and the gradients it is left with."""
    with process_group(CPU):
        trainer = prepared_trainer(settings, folder / "none")
        trainer.model.train()
        trainer.loaders.train.set_epoch(0)
        trainer.progress.last_step = 0  # as if a step had just been made: the gradients stay
        pixels, targets, paths, _ = next(iter(trainer.loaders.train))
        images = trainer._inputs(pixels, 0, 0)
        torch.manual_seed(rank)  # for the dropout
        items = trainer.step(images, targets, 0)
        gradients = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}
        weights = trainer.model.state_dict()
        parts = {"images": images, "targets": targets, "items": items, "gradients": gradients, "model": weights}
        torch.save({**parts, "paths": list(paths)}, folder / f"{rank}.pt")


def test_first_step_is_the_mean_of_what_each_half_gives_alone(settings, tmp_path):
    source = DetectionModel(settings["cfg"], nc=2)
    start = tmp_path / "start.pt"
    write_checkpoint(start, Checkpoint(source.state_dict(), ModelMeta.of(source)))
    join(launch(first_step, {**settings, "weights": str(start), "noautoanchor": True}, tmp_path))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert len({path for rank in ranks for path in rank["paths"]}) == 4, "two images each, no image twice"
    alone = [gradients_alone(settings, start, ranks[number], number) for number in range(2)]
    for rank, (items, _) in zip(ranks, alone, strict=True):
        torch.testing.assert_close(rank["items"], items, atol=1e-5, rtol=1e-5)
    for name, gradient in ranks[0]["gradients"].items():
        # Each process's loss counts as often as there are processes, so the mean is that of the doubled losses.
        mean = (2 * alone[0][1][name] + 2 * alone[1][1][name]) / 2
        torch.testing.assert_close(gradient, mean, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
        assert torch.equal(gradient, ranks[1]["gradients"][name]), name


def gradients_alone(settings: dict, start: Path, share: dict, seed: int):
    """Loss terms and gradients of one batch in a process of its own."""
    model = DetectionModel(settings["cfg"], nc=2)
    model.load_state_dict(read_checkpoint(start).model)
    model.half().float()  # as a training begins
    model.hyp = {**scale_gains(load_hyperparameters(HYP), 2, 2, 64), "label_smoothing": 0.0}
    torch.manual_seed(seed)
    loss, items = ComputeLoss(model)(model.train()(share["images"]), share["targets"])
    loss.backward()
    return items, {name: parameter.grad for name, parameter in model.named_parameters()}


# Whole trainings -----------------------------------------------------------------------------------------------------


def whole_run(rank: int, settings: dict, folder: Path, name: str, stop_after: int | None = None) -> None:
    """Train with others; every rank writes down what it comes to."""
    options = TrainOptions.from_kwargs(**settings)
    with process_group(CPU):
        try:
            listener = StopAfter(stop_after) if stop_after is not None else None
            results = train_run(HYP, options, CPU, Path(settings["project"]) / name, listener)
        except TrainingError:
            assert stop_after is not None
            os._exit(0)  # without waiting for the other rank, as a process that dies
    np.save(folder / f"{name}-{rank}.npy", results)


def resumed_run(rank: int, last: str) -> None:
    """Go on with a run."""
    train.run(resume=last)


@pytest.mark.parametrize("variant", [{"image_weights": True, "nbs": 12}, {"rect": True, "cos_lr": True}])
def test_ranks_agree_with_each_other_and_with_val(settings, tmp_path, variant):
    name = "-".join(variant)
    settings = {**settings, **variant}
    join(launch(whole_run, settings, tmp_path, name))
    results = [np.load(tmp_path / f"{name}-{rank}.npy") for rank in range(2)]
    np.testing.assert_array_equal(*results)
    folder = Path(settings["project"]) / name
    rows = list(csv.reader((folder / "results.csv").read_text().splitlines()[1:]))
    assert [int(row[0]) for row in rows] == [0, 1]
    assert all(math.isfinite(float(cell)) for row in rows for cell in row)
    assert all(float(cell) > 0 for row in rows for cell in row[1:4] + row[8:11])
    best = str(folder / "weights" / "best.pt")
    figures, _, _ = val.run(
        settings["data"], best, imgsz=64, batch_size=4, device="cpu", workers=0, plots=False, project=str(tmp_path)
    )
    np.testing.assert_array_equal(figures[:4], results[0][:4])


def test_resume_is_exact_with_several_ranks(settings, tmp_path):
    settings = {**settings, "nbs": 4000, "epochs": 3}
    join(launch(whole_run, settings, tmp_path, "straight"))
    children = launch(whole_run, settings, tmp_path, "parts", 1)
    children[0].join(60)
    for child in children:
        child.kill()
        child.join()
    folder = Path(settings["project"]) / "parts"
    half_way = read_checkpoint(folder / "weights" / "last.pt")
    assert half_way.epoch == 1
    assert half_way.extra["pending_gradients"]
    assert len(half_way.extra["random"]) == 2
    join(launch(resumed_run, str(folder / "weights" / "last.pt")))
    same_runs(Path(settings["project"]) / "straight", folder)


# Ends ----------------------------------------------------------------------------------------------------------------


def endless_run(rank: int, settings: dict, folder: Path) -> None:
    """Train through the command's frame, as train.py does."""
    with (folder / f"{rank}.log").open("w", buffering=1) as log:
        sys.stderr = log
        os.dup2(log.fileno(), 2)
        os._exit(run_command(lambda: train.run(**settings)))


def launched_to_the_first_checkpoint(settings: dict, tmp_path: Path) -> tuple[list, Path]:
    """The processes of a run without end, once it has written its last.pt, and that file."""
    children = launch(endless_run, settings, tmp_path)
    last = Path(settings["project"]) / settings["name"] / "weights" / "last.pt"
    due = time.monotonic() + 60
    while not last.exists() and time.monotonic() < due:
        time.sleep(0.05)
    return children, last


def test_when_one_rank_dies_the_others_end_and_say_so(settings, tmp_path):
    settings = {**settings, "epochs": 100_000, "name": "endless", "patience": 0}
    children, last = launched_to_the_first_checkpoint(settings, tmp_path)
    os.kill(children[1].pid, signal.SIGKILL)
    children[0].join(30)
    assert children[0].exitcode == 2
    assert "error: process 0 lost another process of this launch" in (tmp_path / "0.log").read_text()
    assert read_checkpoint(last).epoch >= 0


def test_when_one_rank_is_told_to_stop_all_end_with_the_state_saved(settings, tmp_path):
    settings = {**settings, "epochs": 100_000, "name": "told", "patience": 0, "noval": True, "nbs": 4000}
    children, last = launched_to_the_first_checkpoint(settings, tmp_path)
    os.kill(children[1].pid, signal.SIGTERM)
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [143, 143]
    assert len(read_checkpoint(last).extra["unfinished"]["sums"]) == 2
    assert "python train.py --resume" in (tmp_path / "0.log").read_text()


def told_run(rank: int, settings: dict) -> None:
    """Train until one rank is told to stop in the middle of an epoch."""
    with pytest.raises(SystemExit), at_pass(3, told(signal.SIGTERM)) if rank == 1 else nullcontext():
        train.run(**settings)


@pytest.mark.slow
def test_several_ranks_go_on_exactly_in_the_middle_of_an_epoch(settings, tmp_path):
    settings = {**settings, "nbs": 4000}
    join(launch(whole_run, settings, tmp_path, "unstopped"))
    join(launch(told_run, {**settings, "name": "stopped"}))
    folder = Path(settings["project"]) / "stopped"
    half_way = read_checkpoint(folder / "weights" / "last.pt")
    assert (half_way.epoch, half_way.extra["unfinished"]["batches"]) == (0, 1)
    join(launch(resumed_run, str(folder)))
    same_runs(folder.with_name("unstopped"), folder)


def spoiled_run(rank: int, settings: dict, folder: Path, fault: str) -> None:
    """Train until something happens to one rank; write down what each rank is told."""
    with process_group(CPU):
        # an image that is in memory cannot go missing
        trainer = prepared_trainer({**settings, "cache": "none"}, folder / "run")
        trainer.folder.create()
        if rank == 1 and fault == "loss":
            trainer.model.model[0].conv.weight.data.fill_(float("nan"))
        if rank == 1 and fault == "image":
            trainer.loaders.dataset.im_files = [str(folder / "gone.png")] * len(trainer.loaders.dataset)
        try:
            trainer.fit()
        except (TrainingError, DatasetError) as error:
            (folder / f"{rank}.txt").write_text("\n".join([str(error), *error.__notes__]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [("loss", "epoch 0, batch 1: the loss is no finite"), ("image", r".*/gone\.png: cannot be read")],
)
def test_what_happens_to_one_rank_ends_all_and_is_said_by_all(settings, tmp_path, fault, message):
    join(launch(spoiled_run, settings, tmp_path, fault))
    said = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert said[0] == said[1]
    assert re.match(message, said[0])
    assert said[0].endswith("in process 1 of this launch")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"evolve": 1}, "--evolve works in a single process"),
        ({"resume_evolve": "evolve_population.yaml"}, "--evolve works in a single process"),
        ({"batch_size": 5}, "--batch-size 5: expected a multiple of the 2 processes"),
        ({"batch_size": -1}, "--batch-size -1 measures one GPU"),
        ({"quad": True}, "--batch-size 4: expected 4 or more in each of the 2 processes, as --quad joins"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(settings, monkeypatch, wrong, message):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(OptionError, match=message):
        train.run(**{**settings, **wrong})


def test_torchrun(settings, tmp_path):
    """The command of the documentation, and evaluation shared out over more ranks than batches."""
    words = {**settings, "epochs": 1, "project": tmp_path, "name": "launched"}
    flags = [
        word
        for name, value in words.items()
        for word in ([f"--{name.replace('_', '-')}"] if value is True else [f"--{name.replace('_', '-')}", str(value)])
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, str(ROOT / "train.py"), *flags], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("results in") == 1  # by one process
    assert read_checkpoint(tmp_path / "launched" / "weights" / "best.pt").optimizer is None
