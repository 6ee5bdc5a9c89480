"""A model YAML is data: what is wrong in it is named by its row, and nothing in it ever runs."""

from __future__ import annotations

import copy
import runpy
import sys
from pathlib import Path

import pytest
import torch
import yaml

from models.config import parse_config
from models.yolo import DetectionModel
from utils.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
GOOD = {
    "nc": 2,
    "depth_multiple": 0.33,
    "width_multiple": 0.25,
    "anchors": [[10, 13, 16, 30]],
    "backbone": [[-1, 1, "Conv", [64, 3, 2]], [-1, 3, "C3", [128]]],
    "head": [[-1, 1, "Conv", [64, 1, 1]], [[2], 1, "Detect", ["nc", "anchors"]]],
}


def with_row(row: object, place: int = 1) -> dict:
    content = copy.deepcopy(GOOD)
    content["backbone"][place] = row
    return content


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([], "expected four elements"),
        (None, "expected four elements"),
        ([-1, 1, "Conv"], "expected four elements"),
        ([-1, 1, "Cnov", [64]], "did you mean Conv"),
        ([-1, 1, "os.system", ["ls"]], "cannot use 'ls'"),
        ([-1, 1, "BiLevelRoutingAttention", [7, 7, 4]], "cannot have 7 heads"),
        ([-1, 1, "BiFormerBlock", [0, 7, 0]], "topk must be a whole number"),
        ([-1, 1, "eval", [1]], "unknown module 'eval'"),
        ([-1, 1, 7, [1]], "module must be a name"),
        ([-1, 1, "Conv", 64], "args must be a list"),
        ([-1, 1, "Conv", []], "first argument must be a width"),
        ([-1, 1, "Conv", [0]], "first argument must be a width"),
        ([-1, 1, "Conv", [-64]], "first argument must be a width"),
        ([-1, 1, "Conv", [64.5]], "first argument must be a width"),
        ([-1, 1, "Conv", ["None"]], "first argument must be a width"),
        ([-1, 1, "Conv", [10**9]], "too large"),
        ([-1, 1, "Conv", [64, 3, 2, None, 7]], "does not take these arguments"),
        ([-1, 1, "Conv", [64, 3, 2, None, 1, 1, True, 1, 2, 3]], "does not take these arguments"),
        ([-1, 1, "Conv", [64, "__import__('os').system('touch pwned')"]], "cannot use"),
        ([-1, 1, "nn.Upsample", ["None", 2, "open('pwned', 'w')"]], "cannot use"),
        ([-1, 1, "Conv", [64, {"a": 1}]], "cannot use"),
        ([5, 1, "Conv", [64]], "is not an earlier layer"),
        ([1, 1, "Conv", [64]], "is not an earlier layer"),
        ([-3, 1, "Conv", [64]], "before the first layer"),
        (["sppf", 1, "Conv", [64]], "'sppf' is not the name of a row; no row before it has one"),
        ([1.5, 1, "Conv", [64]], "must be a layer index, the name of a row"),
        ([True, 1, "Conv", [64]], "must be a layer index"),
        ([[], 1, "Conv", [64]], "empty list"),
        ([[-1, 0], 1, "Conv", [64]], "takes one input"),
        ([-1, 0, "Conv", [64]], "number must be a whole number"),
        ([-1, "many", "Conv", [64]], "number must be a whole number"),
        ([-1, 9, "Conv", [256]], "copies in a row need equal widths"),
        ([[-1, 0], 1, "Concat", [7]], "does not fit its input"),
        ([-1, 1, "Expand", [3]], "do not divide"),
        ([-1, 1, "Contract", ["nearest"]], "whole number above 0"),
        ([-1, 1, "BiFormerBlock", [0, 7, 4, 3, 1, 1]], "takes at most 4 values"),
        ([-1, 1, "BiFormerBlock", [0, 7, 4, -3]], "mlp_ratio must be a number above 0, got -3"),
        ([-1, 1, "BiFormerBlock", [0, 7, 4, "nearest"]], "mlp_ratio must be a number above 0"),
    ],
    ids=repr,
)
def test_a_bad_row_is_named(row: object, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        DetectionModel(with_row(row))
    message = str(caught.value)
    assert "backbone row 1 (layer 1)" in message
    assert expected in message
    assert "\n" not in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"backbone": None}, "`backbone` must be a list"),
        ({"head": []}, "`head` must be a list"),
        ({"nc": 0}, "nc must be a whole number"),
        ({"nc": "eighty"}, "nc must be a whole number"),
        ({"anchors": None}, "anchors must list"),
        ({"anchors": []}, "anchors must list"),
        ({"anchors": float("inf")}, "anchors must be a whole number"),
        ({"anchors": [[10, float("nan")]]}, "flat list of w,h pairs"),
        ({"anchors": [[10, 13, 16]]}, "flat list of w,h pairs"),
        ({"anchors": [[10, "x"]]}, "flat list of w,h pairs"),
        ({"anchors": [[1, 2], [3, 4, 5, 6]]}, "same number of anchors"),
        ({"anchors": [[1, 2], [3, 4]]}, "1 inputs but anchors for 2 levels"),
        ({"width_multiple": 0}, "width_multiple must be a number above 0"),
        ({"depth_multiple": "deep"}, "depth_multiple must be a number above 0"),
        ({"channel_multiple": -8}, "channel_multiple must be"),
        ({"activation": "nn.System('ls')"}, "unknown activation"),
        ({"activation": "__import__('os').system('ls')"}, "not of the form"),
        ({"activation": "nn.ReLU(open('x'))"}, "plain numbers"),
        ({"activation": "nn.ReLU" + "(" * 5000}, "not of the form"),
        ({"ch": 0}, "ch must be"),
        ({"head": [[-1, 1, "Conv", [64, 1, 1]]]}, "last row must be Detect"),
        ({"head": [[[-1], 1, "Detect", []], [[-1], 1, "Detect", ["nc", "anchors"]]]}, "head row 0.*only the last row"),
    ],
    ids=repr,
)
def test_a_bad_key_is_named(change: dict, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        DetectionModel({**GOOD, **change})


def test_a_row_that_divides_by_zero_is_named() -> None:
    """A stride of 0, on the device without weights where tools.model builds: there it is an error of Python's."""
    with pytest.raises(ConfigError, match=r"backbone row 1 .*: does not fit its input"), torch.device("meta"):
        DetectionModel(with_row([-1, 1, "Conv", [64, 1, 0]]))


def test_arguments_are_resolved_from_closed_lists() -> None:
    row = [-1, 1, "Conv", [64, "3", "1", "None", "1", 1, "nn.LeakyReLU(0.1)"]]
    args = parse_config(with_row(row)).rows[1].args
    assert args[:6] == (64, 3, 1, None, 1, 1)
    assert args[6].negative_slope == 0.1


def test_the_description_given_is_not_changed() -> None:
    before = copy.deepcopy(GOOD)
    DetectionModel(GOOD, nc=7, anchors=3)
    assert before == GOOD


def test_overrides() -> None:
    model = DetectionModel(GOOD, nc=7, anchors=2.6)
    head = model.model[-1]
    assert (head.nc, head.na, model.yaml["nc"], model.yaml["anchors"]) == (7, 3, 7, 3)
    assert model.names == {index: str(index) for index in range(7)}
    assert (head.anchors * head.stride.view(-1, 1, 1)).flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_upstream_spellings_load() -> None:
    """The first releases: Focus, BottleneckCSP, SPP, text None, quoted numbers."""
    old = {
        "nc": 80,
        "depth_multiple": 0.33,
        "width_multiple": 0.5,
        "anchors": [[116, 90, 156, 198, 373, 326], [30, 61, 62, 45, 59, 119]],
        "backbone": [
            [-1, 1, "Focus", [64, 3]],
            [-1, 1, "Conv", [128, 3, 2]],
            [-1, 3, "BottleneckCSP", [128]],
            [-1, 1, "Conv", [256, 3, 2]],
            [-1, 1, "SPP", [256, [5, 9, 13]]],
        ],
        "head": [
            [-1, 3, "BottleneckCSP", [256, False]],
            [-1, 1, "nn.Conv2d", [255, 1, 1]] if False else [-1, 1, "Conv", [255, 1, 1]],
            [-2, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 2], 1, "Concat", [1]],
            [[8, 5], 1, "Detect", ["nc", "anchors"]],
        ],
    }
    model = DetectionModel(old)
    assert model.stride.tolist() == [4.0, 8.0]
    assert model.model[6].conv.out_channels == 255  # the head's own width is never scaled
    assert model.save == [2, 5, 8]
    areas = model.model[-1].anchors.prod(-1).mean(-1)
    assert areas[0] < areas[1]  # listed from coarse to fine, turned to follow the strides


@pytest.mark.parametrize(
    "row",
    [
        [-1, 1, "NoSuchBlock", [64]],
        [-1, 1, "Conv", [64, "__import__('os').system('touch pwned')"]],
    ],
    ids=["module", "code"],
)
def test_the_command_line_says_one_line_and_exits_with_2(
    row: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(with_row(row)))
    monkeypatch.chdir(tmp_path)
    words = ["--cfg", "bad.yaml", "--weights", "", "--epochs", "1", "--device", "cpu", "--project", "out"]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    assert stop.value.code == 2
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if "error" in line]
    assert len(lines) == 1, said
    assert "bad.yaml: backbone row 1 (layer 1)" in lines[0]
    assert "Traceback" not in said
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("backbone", [[-1, 60_000, "Conv", [8]]], "ask for 60,001 layers"),
        ("backbone", [[-1, 1, "SPP", [8, [5] * 101]]], "a list of 101 values is too long"),
        ("block_activation", "nn.Evil()", "unknown activation"),
        ("bn_eps", 0, "bn_eps must be a number above 0"),
        ("bn_momentum", "x", "bn_momentum must be a number above 0"),
    ],
)
def test_what_no_network_has_is_refused(key: str, value: object, words: str) -> None:
    content = {
        "nc": 1,
        "anchors": 3,
        "backbone": [[-1, 1, "Conv", [8]]],
        "head": [[-1, 1, "Detect", ["nc", "anchors"]]],
    }
    with pytest.raises(ConfigError, match=words):
        parse_config({**content, key: value})
