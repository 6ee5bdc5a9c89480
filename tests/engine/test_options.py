"""Flags and keywords: what they become, and what is refused."""

from __future__ import annotations

import pytest

from engine.options.train import TrainOptions
from engine.options.val import ValOptions
from utils.errors import OptionError


def test_no_arguments_give_the_defaults():
    assert TrainOptions.parse([]) == TrainOptions()
    assert ValOptions.parse([]) == ValOptions()


@pytest.mark.parametrize(
    ("command", "arguments", "name", "value"),
    [
        (TrainOptions, ["--batch", "4"], "batch_size", 4),
        (TrainOptions, ["--img", "320"], "imgsz", 320),
        (TrainOptions, ["--img-size", "320"], "imgsz", 320),
        (TrainOptions, ["--imgsz", "320"], "imgsz", 320),
        (TrainOptions, ["--weights", ""], "weights", ""),  # with --cfg's default this is refused: see below
        (TrainOptions, ["--cache"], "cache", "ram"),
        (TrainOptions, ["--cache", "disk"], "cache", "disk"),
        (TrainOptions, ["--freeze", "0", "1", "2"], "freeze", [0, 1, 2]),
        (TrainOptions, ["--optimizer", "AdamW"], "optimizer", "AdamW"),
        (TrainOptions, ["--save-period", "5"], "save_period", 5),
        (TrainOptions, ["--nbs", "32"], "nbs", 32),
        (TrainOptions, ["--cos-lr"], "cos_lr", True),
        (ValOptions, ["--conf", "0.25"], "conf_thres", 0.25),
        (ValOptions, ["--iou", "0.65"], "iou_thres", 0.65),
        (ValOptions, ["--batch", "1"], "batch_size", 1),
        (ValOptions, ["--img", "1280"], "imgsz", 1280),
        (ValOptions, ["--weights", "a.pt", "b.pt"], "weights", ["a.pt", "b.pt"]),
        (ValOptions, ["--half"], "half", True),
    ],
)
def test_flag_becomes_option(command, arguments, name, value):
    extra = ["--cfg", "yolov5n.yaml"] if name == "weights" and command is TrainOptions else []
    assert getattr(command.parse([*arguments, *extra]), name) == value


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (TrainOptions, ["--weights", ""]),
        (TrainOptions, ["--epochs", "0"]),
        (TrainOptions, ["--batch-size", "0"]),
        (TrainOptions, ["--label-smoothing", "1"]),
        (TrainOptions, ["--freeze", "-1"]),
        (TrainOptions, ["--cache", "tape"]),
        (TrainOptions, ["--optimizer", "LION"]),
        (TrainOptions, ["--no"]),  # several flags begin so
        (ValOptions, ["--conf-thres", "1.5"]),
        (ValOptions, ["--task", "guess"]),
        (ValOptions, ["--max-det", "0"]),
    ],
)
def test_wrong_value_exits_with_2(command, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        command.parse(arguments)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (TrainOptions, ["--resume"]),
        (TrainOptions, ["--resume", "last.pt"]),
        (TrainOptions, ["--evolve"]),
        (TrainOptions, ["--evolve", "10"]),
        (TrainOptions, ["--evolve_population", "folder"]),
        (TrainOptions, ["--resume_evolve", "file"]),
        (TrainOptions, ["--quad"]),
        (TrainOptions, ["--image-weights"]),
        (ValOptions, ["--dnn"]),
    ],
)
def test_later_flag_exits_with_2_and_one_line(command, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        command.parse(arguments)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert arguments[0] in lines[0]
    assert "not available yet" in lines[0]


def test_keywords_are_checked_like_flags():
    assert TrainOptions.from_kwargs(imgsz=320).imgsz == 320
    with pytest.raises(OptionError, match="did you mean imgsz"):
        TrainOptions.from_kwargs(imgs=320)
    with pytest.raises(OptionError, match="not available yet"):
        TrainOptions.from_kwargs(quad=True)
    with pytest.raises(OptionError, match="--epochs"):
        TrainOptions.from_kwargs(epochs=0)
    with pytest.raises(OptionError, match="--cache"):
        TrainOptions.from_kwargs(cache="tape")


def test_every_option_reaches_the_dict():
    options = TrainOptions.from_kwargs(seed=3)
    assert options.to_dict()["seed"] == 3
    assert list(options.to_dict()) == list(TrainOptions.__dataclass_fields__)


def test_list_defaults_are_not_shared():
    TrainOptions().freeze.append(5)
    assert TrainOptions().freeze == [0]
