"""Flags and keywords: what they become, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.options.base import Options, flag
from engine.options.continued import continued_options
from engine.options.detect import DetectOptions
from engine.options.train import TrainOptions
from engine.options.val import ValOptions
from utils.errors import ConfigError, OptionError


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
        (
            TrainOptions,
            ["--insert", "A@after:1", "B[0, 5]@before:detect"],
            "insert",
            ["A@after:1", "B[0, 5]@before:detect"],
        ),
        (TrainOptions, ["--insert", "A@after:1", "--insert", "B@after:c3#2"], "insert", ["A@after:1", "B@after:c3#2"]),
        (TrainOptions, ["--optimizer", "AdamW"], "optimizer", "AdamW"),
        (TrainOptions, ["--save-period", "5"], "save_period", 5),
        (TrainOptions, ["--nbs", "32"], "nbs", 32),
        (TrainOptions, ["--cos-lr"], "cos_lr", True),
        (TrainOptions, ["--resume"], "resume", True),
        (TrainOptions, ["--resume", "last.pt"], "resume", "last.pt"),
        (TrainOptions, ["--resume", "--weights", ""], "resume", True),  # what a run needs, it has in its folder
        (TrainOptions, ["--evolve"], "evolve", 300),
        (TrainOptions, ["--evolve", "10"], "evolve", 10),
        (TrainOptions, ["--no-amp"], "amp", False),
        (TrainOptions, ["--amp"], "amp", True),
        (TrainOptions, ["--bf16"], "bf16", True),
        (TrainOptions, ["--deterministic"], "deterministic", True),
        (TrainOptions, ["--no-deterministic"], "deterministic", False),
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
        (TrainOptions, ["--resume", "--evolve"]),
        (TrainOptions, ["--insert"]),
        (TrainOptions, ["--insert", "BiFormerBlock"]),
        (TrainOptions, ["--evolve", "0"]),
        (TrainOptions, ["--bf16", "--no-amp"]),
        (TrainOptions, ["--quad", "--batch-size", "2"]),
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


@dataclass
class Unfinished(Options):
    later: bool = flag(False, "a flag", later="what it would do")


def test_later_flag_exits_with_2_and_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        Unfinished.parse(["--later"])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "--later" in lines[0]
    assert "not available yet" in lines[0]
    with pytest.raises(OptionError, match="not available yet"):
        Unfinished.from_kwargs(later=True)


def test_keywords_are_checked_like_flags():
    assert TrainOptions.from_kwargs(imgsz=320).imgsz == 320
    with pytest.raises(OptionError, match="did you mean imgsz"):
        TrainOptions.from_kwargs(imgs=320)
    with pytest.raises(OptionError, match="--seed 5000000000: expected a number from 0 to 4294967295"):
        TrainOptions.from_kwargs(seed=5_000_000_000)
    with pytest.raises(OptionError, match="--epochs"):
        TrainOptions.from_kwargs(epochs=0)
    assert TrainOptions.from_kwargs(insert="BiFormerBlock@after:sppf").insert == ["BiFormerBlock@after:sppf"]
    with pytest.raises(OptionError, match="--insert"):
        TrainOptions.from_kwargs(insert=[9])
    with pytest.raises(OptionError, match="--cache"):
        TrainOptions.from_kwargs(cache="tape")


def test_keywords_of_other_types_mean_what_the_flags_mean():
    options = TrainOptions.from_kwargs(
        cache=True, freeze=3, project=Path("runs") / "x", device=0, evolve=False, hyp={"lr0": 1}
    )
    assert (options.cache, options.freeze, options.device, options.evolve) == ("ram", [3], "0", None)
    assert options.project == str(Path("runs") / "x")
    assert options.hyp == {"lr0": 1}
    detect = DetectOptions.from_kwargs(weights=Path("a.pt"), imgsz=64, classes=0, source=0)
    assert (detect.weights, detect.imgsz, detect.classes, detect.source) == (["a.pt"], [64], [0], "0")


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (TrainOptions, {"epochs": "3"}),
        (TrainOptions, {"epochs": 1.5}),
        (TrainOptions, {"freeze": ["a"]}),
        (TrainOptions, {"label_smoothing": "0.1"}),
        (ValOptions, {"imgsz": [64, 64]}),
        (ValOptions, {"conf_thres": None, "iou_thres": "x"}),
        (DetectOptions, {"classes": ["dog"]}),
        (DetectOptions, {"max_det": True}),
    ],
)
def test_keywords_that_are_no_numbers_are_refused(kind, wrong):
    with pytest.raises(OptionError, match=r"expected a( whole)? number"):
        kind.from_kwargs(**wrong)


def test_options_know_which_of_them_were_given():
    assert TrainOptions.parse([]).given == set()
    assert TrainOptions.parse(["--img", "640", "--cache", "--no-amp"]).given == {"imgsz", "cache", "amp"}
    assert TrainOptions.parse(["--epochs", "3", "--of-another-program"], ignore_unknown=True).given == {"epochs"}
    assert TrainOptions.from_kwargs(seed=0).given == {"seed"}


def test_what_goes_on_keeps_its_options_but_for_a_few(caplog):
    stored = {**TrainOptions(imgsz=320, seed=1, workers=2, project="kept").to_dict(), "an_older_option": 1}
    rules = {"changeable": {"workers"}, "ignored": {"project"}, "file": Path("opt.yaml"), "what": "search"}
    asked = TrainOptions.from_kwargs(workers=4, seed=1, imgsz=64, project="other", evolve_population="mine")
    assert continued_options(asked, stored, **rules) == TrainOptions(imgsz=320, seed=1, workers=4, project="kept")
    assert caplog.messages == [
        "--evolve_population mine: left out, the search goes on with its own",
        "--imgsz 64: left out, the search goes on with its own",
    ]
    with pytest.raises(ConfigError, match=r"^opt\.yaml: --seed -1: expected"):
        continued_options(asked, {**stored, "seed": -1}, **rules)


def test_every_option_reaches_the_dict():
    options = TrainOptions.from_kwargs(seed=3)
    assert options.to_dict()["seed"] == 3
    assert list(options.to_dict()) == list(TrainOptions.__dataclass_fields__)


def test_list_defaults_are_not_shared():
    TrainOptions().freeze.append(5)
    assert TrainOptions().freeze == [0]
    assert TrainOptions.parse(["--insert", "A@after:1"]).insert == ["A@after:1"]
    assert TrainOptions().insert == TrainOptions.parse([]).insert == []
