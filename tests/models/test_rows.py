"""Names in model YAMLs: rows are called by them, and a mistake in one is told in rows and names."""

from __future__ import annotations

import copy

import pytest
import torch
import yaml

from models.config import load_model_yaml, parse_config
from models.rows import read_rows
from models.yaml_text import model_yaml_text
from models.yolo import DetectionModel
from utils.errors import ConfigError

NAMED = """
nc: 2
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[10, 13], [30, 61]]
backbone:
  - [-1, 1, Conv, [8, 6, 2, 2]]
  - p2: [-1, 1, Conv, [8, 3, 2]]
  - p3: [-1, 1, Conv, [16, 3, 2]]
head:
  - up: [p3, 1, nn.Upsample, [None, 2, nearest]]
  - fine: [[-1, p2], 1, Concat, [1]]
  - [[fine, p3], 1, Detect, [nc, anchors]]
"""
NUMBERED = """
nc: 2
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[10, 13], [30, 61]]
backbone:
  - [-1, 1, Conv, [8, 6, 2, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [2, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 1], 1, Concat, [1]]
  - [[4, 2], 1, Detect, [nc, anchors]]
"""


def named() -> dict:
    return yaml.safe_load(NAMED)


def test_names_build_what_numbers_build() -> None:
    models = [DetectionModel(yaml.safe_load(text)) for text in (NAMED, NUMBERED)]
    assert [layer.f for layer in models[0].model] == [-1, -1, -1, 2, [-1, 1], [4, 2]]
    assert [layer.f for layer in models[0].model] == [layer.f for layer in models[1].model]
    assert models[0].save == models[1].save == [1, 2, 4]
    models[1].load_state_dict(models[0].state_dict())
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(models[0].eval()(x)[0], models[1].eval()(x)[0], rtol=0, atol=0)


def test_a_row_put_between_needs_no_other_change() -> None:
    content = named()
    content["backbone"].insert(1, [-1, 1, "BiFormerBlock", [0, 4, 2]])
    assert [layer.f for layer in DetectionModel(content).model] == [-1, -1, -1, -1, 3, [-1, 2], [5, 3]]


def test_numbers_and_names_may_stand_together() -> None:
    content = named()
    content["head"][2] = [["fine", 2], 1, "Detect", ["nc", "anchors"]]
    assert DetectionModel(content).model[-1].f == [4, 2]


def with_head(place: int, row: object) -> dict:
    content = named()
    content["head"][place] = row
    return content


@pytest.mark.parametrize(
    ("place", "row", "expected"),
    [
        (0, {"up": ["p4", 1, "Conv", [8]]}, "head row 0 'up' (layer 3) ['p4', 1, 'Conv', [8]]: `from` 'p4' is not the "
         "name of a row; did you mean p3 or p2?"),
        (0, {"up": ["sppf", 1, "Conv", [8]]}, "'sppf' is not the name of a row; names so far: p2, p3"),
        (0, {"up": ["up", 1, "Conv", [8]]}, "'up' is this row itself"),
        (0, {"up": ["fine", 1, "Conv", [8]]}, "'fine' is a later row; a row reads earlier ones"),
        (0, {"p3": [-1, 1, "Conv", [8]]}, "head row 0 'p3' (layer 3) [-1, 1, 'Conv', [8]]: layer 2 is called 'p3'"),
        (0, {"3": [-1, 1, "Conv", [8]]}, "a name starts with a letter"),
        (0, {"c3#1": [-1, 1, "Conv", [8]]}, "a name starts with a letter"),
        (0, {"": [-1, 1, "Conv", [8]]}, "a name starts with a letter"),
        (0, {None: [-1, 1, "Conv", [8]]}, "a name starts with a letter"),
        (0, {3: [-1, 1, "Conv", [8]]}, "YAML reads the name as 3, which is no text; take another"),
        (0, {False: [-1, 1, "Conv", [8]]}, "YAML reads the name as False, which is no text"),
        (0, {"up": None}, "expected four elements"),
        (0, {"from": -1, "number": 1, "module": "Conv", "args": [8]}, "with a name `name: [from, number, mod"),
        (0, [-1, 1, "Conv", [8], "up"], "with a name `name: [from, number, module, args]`"),
        (0, {"up": [-1, 1, "Conv", ["p3"]]}, "head row 0 'up' (layer 3) [-1, 1, 'Conv', ['p3']]: cannot use 'p3'"),
        (1, {"fine": [["p3", "p2"], 1, "Concat", [7]]}, "head row 1 'fine' (layer 4)"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_told_in_rows_and_names(place: int, row: object, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DetectionModel(with_head(place, row))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reading_leaves_the_description_alone() -> None:
    content, before = named(), named()
    rows = read_rows(content, "tiny.yaml")
    assert content == before
    assert [row.name for row in rows] == [None, "p2", "p3", "up", "fine", None]
    assert [row.sources for row in rows] == [(-1,), (0,), (1,), (2,), (3, 1), (4, 2)]


@pytest.mark.parametrize("cfg", ["yolov5s.yaml", "yolov3-tiny.yaml", "yolov5s-LeakyReLU.yaml", "yolov5-p7.yaml", ""])
def test_written_and_read_again(cfg: str) -> None:
    content = load_model_yaml(cfg)[0] if cfg else named()
    text = model_yaml_text({**content, "yaml_file": "left out"}, "a\ntitle")
    assert text.startswith("# a title\n")
    assert yaml.safe_load(text) == content


def test_text_of_a_file_keeps_hard_values() -> None:
    content = {**named(), "activation": "nn.LeakyReLU(0.1)", "channel_multiple": None, "inplace": False}
    shared = [1, 2]
    content["head"][0] = {"öl": [-1, 1, "Conv", ["no", "null", "1.0", None, "a: b # c", shared, shared]]}
    before = copy.deepcopy(content)
    text = model_yaml_text(content, "hard")
    assert yaml.safe_load(text) == before
    assert "&id" not in text
    assert "öl: [" in text


def test_a_checkpoint_keeps_the_names() -> None:
    assert (
        parse_config(DetectionModel(named()).yaml).rows[4].where.startswith("model dict: head row 1 'fine' (layer 4)")
    )
