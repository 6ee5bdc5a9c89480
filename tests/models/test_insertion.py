"""Rows put into a model YAML by --insert: where they go, who reads them, and what is said when it cannot be done."""

from __future__ import annotations

import copy

import pytest
import torch
import yaml

from models.config import load_model_yaml
from models.insertion import insert_rows, parse_insertion, place_names
from models.yolo import DetectionModel
from utils.errors import ConfigError, OptionError

SMALL = """
nc: 2
anchors: [[10, 13], [30, 61]]
backbone:
  - [-1, 1, Conv, [8, 6, 2, 2]]                # 0
  - [-1, 1, Conv, [8, 3, 2]]                   # 1
  - p3: [-1, 3, C3, [16]]                      # 2
  - [-2, 1, Conv, [16, 1, 1]]                  # 3
head:
  - [[-1, p3], 1, Concat, [1]]                 # 4
  - [-1, 1, Conv, [16, 3, 2]]                  # 5
  - [[p3, 5], 1, Detect, [nc, anchors]]        # 6
"""
NEW = [-1, 1, "BiFormerBlock", []]


def rows(*insertions: str) -> list:
    content = insert_rows(yaml.safe_load(SMALL), insertions, "small.yaml")
    return content["backbone"] + content["head"]


def test_after_takes_over_every_reader() -> None:
    """Those by name, by number and by counting back; the rest keeps its way of writing."""
    assert rows("BiFormerBlock@after:p3") == [
        [-1, 1, "Conv", [8, 6, 2, 2]],
        [-1, 1, "Conv", [8, 3, 2]],
        {"p3": [-1, 3, "C3", [16]]},
        NEW,
        [-3, 1, "Conv", [16, 1, 1]],
        [[-1, 3], 1, "Concat", [1]],
        [-1, 1, "Conv", [16, 3, 2]],
        [[3, 6], 1, "Detect", ["nc", "anchors"]],
    ]
    assert rows("BiFormerBlock@after:1")[2:5] == [NEW, {"p3": [-1, 3, "C3", [16]]}, [-2, 1, "Conv", [16, 1, 1]]]


def test_before_is_for_the_place_alone() -> None:
    assert rows("BiFormerBlock[0, 4]@before:detect")[6:] == [
        ["p3", 1, "BiFormerBlock", [0, 4]],
        [5, 1, "BiFormerBlock", [0, 4]],
        [[6, 7], 1, "Detect", ["nc", "anchors"]],
    ]
    assert rows("BiFormerBlock@before:3")[3:5] == [[-2, 1, "BiFormerBlock", []], [-1, 1, "Conv", [16, 1, 1]]]


def test_before_the_first_row_reads_the_image() -> None:
    assert rows("Conv[3, 1, 1]@before:0")[:2] == [[-1, 1, "Conv", [3, 1, 1]], [-1, 1, "Conv", [8, 6, 2, 2]]]


def test_one_row_for_an_input_that_is_read_twice() -> None:
    content = yaml.safe_load(SMALL)
    content["head"][0] = [["p3", 2], 1, "Concat", [1]]
    changed = insert_rows(content, ["BiFormerBlock@before:concat"], "small.yaml")
    assert changed["head"][:2] == [["p3", 1, "BiFormerBlock", []], [[-1, 4], 1, "Concat", [1]]]


def test_replace_keeps_name_inputs_repeats_and_values() -> None:
    assert rows("C3BiFormer@replace:c3")[2] == {"p3": [-1, 3, "C3BiFormer", [16]]}
    assert rows("C3BiFormer[16, False]@replace:2")[2] == {"p3": [-1, 3, "C3BiFormer", [16, False]]}
    assert rows("SPPF[]@replace:2")[2] == {"p3": [-1, 3, "SPPF", []]}


def test_places_are_those_of_the_file_and_the_order_is_that_given() -> None:
    many = ["WindowAttention@after:p3", "FullAttention@after:2", "AxialAttention@after:5", "C3x@replace:2"]
    changed = rows(*many)
    kinds = [row[2] if isinstance(row, list) else row["p3"][2] for row in changed]
    assert kinds == [
        *("Conv", "Conv", "C3x", "WindowAttention", "FullAttention", "Conv", "Concat"),
        *("Conv", "AxialAttention", "Detect"),
    ]
    assert changed[-1][0] == [4, 8]
    before = rows("WindowAttention@before:5", "FullAttention@before:5")
    assert [row[2] for row in before[5:8]] == ["WindowAttention", "FullAttention", "Conv"]
    both = rows("WindowAttention@before:detect", "FullAttention@after:5")
    assert [row[2] for row in both[6:]] == ["FullAttention", "WindowAttention", "WindowAttention", "Detect"]
    assert both[8][0] == 6


@pytest.mark.parametrize("place", ["9", "sppf", "SPPF", "c3#5", "C3#5", "upsample#1", "nn.Upsample#1", "concat#4"])
def test_every_way_to_name_a_place(place: str) -> None:
    content, title = load_model_yaml("yolov5n.yaml")
    layer = {"9": 9, "sppf": 9, "c3#5": 13, "upsample#1": 11, "nn.upsample#1": 11, "concat#4": 22}[place.lower()]
    changed = insert_rows(content, [f"BiFormerBlock@after:{place}"], title)
    assert (changed["backbone"] + changed["head"])[layer + 1][2] == "BiFormerBlock"


def test_a_given_name_goes_before_a_module() -> None:
    content = yaml.safe_load(SMALL)
    content["backbone"][3] = {"c3": content["backbone"][3]}
    content["head"][0][0] = ["c3", "p3"]
    assert insert_rows(content, ["BiFormerBlock@after:c3"], "small.yaml")["backbone"][4] == NEW
    assert place_names(content, "small.yaml") == ["conv#1", "conv#2", "p3", "c3", "concat", "conv#4", "detect"]


def test_a_module_whose_place_is_taken_by_a_name_gets_its_number() -> None:
    content = yaml.safe_load(SMALL)
    content["backbone"][1] = {"c3": content["backbone"][1]}
    content["backbone"][2] = content["backbone"][2]["p3"]
    content["head"][0][0], content["head"][2][0] = [-1, 2], [2, 5]
    names = place_names(content, "small.yaml")
    assert names[:3] == ["conv#1", "c3", "c3#1"]
    for layer, name in enumerate(names[:-1]):
        changed = insert_rows(content, [f"BiFormerBlock@after:{name}"], "small.yaml")
        assert (changed["backbone"] + changed["head"])[layer + 1] == NEW


@pytest.mark.parametrize(
    ("text", "module", "values", "how", "place"),
    [
        ("BiFormerBlock@after:sppf", "BiFormerBlock", None, "after", "sppf"),
        (" BiFormerBlock [ 0, 5, 4, 3 ] @ before : c3#2 ", "BiFormerBlock", [0, 5, 4, 3], "before", "c3#2"),
        ("nn.Upsample[None, 2, nearest]@replace:11", "nn.Upsample", ["None", 2, "nearest"], "replace", "11"),
        ("X[]@after:P3-out", "X", [], "after", "P3-out"),
    ],
)
def test_the_form(text: str, module: str, values: list | None, how: str, place: str) -> None:
    found = parse_insertion(text)
    assert (found.module, found.values, found.how, found.place) == (module, values, how, place)


@pytest.mark.parametrize(
    "text",
    ["", "BiFormerBlock", "@after:sppf", "BiFormerBlock@after", "BiFormerBlock@after:", "BiFormerBlock@behind:sppf",
     "BiFormerBlock(0, 5)@after:sppf", "BiFormerBlock[0@after:sppf", "A@after:1@after:2", "A@after:1 B@after:2"],
)  # fmt: skip
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--insert '.*': expected MODULE@after:PLACE"):
        parse_insertion(text)


@pytest.mark.parametrize(
    "values", ["[0, 5]]", "[2001-99-99]", "[a]: b]", "[" * 2000 + "]", "[*x]", "[!!python/name:os.system ]"]
)
def test_values_that_are_no_list(values: str) -> None:
    with pytest.raises(OptionError, match="is not a list of values as in a YAML row") as caught:
        parse_insertion(f"A{values}@after:sppf")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BiFormerBlock@after:pp3", "small.yaml has no row 'pp3'; did you mean p3?"),
        ("BiFormerBlock@after:conn", "did you mean conv or concat?"),
        ("BiFormerBlock@after:-1", "has no row '-1'; `python -m tools.model` followed by"),
        ("BiFormerBlock@after:" + "9" * 5000, "has no row"),
        ("BiFormerBlock@after:7", "small.yaml has the layers 0 to 6"),
        ("BiFormerBlock@after:conv", "4 rows 'conv'; say which: conv#1 (layer 0), conv#2 (layer 1), conv#3 (layer 3)"),
        ("BiFormerBlock@after:conv#5", "small.yaml has conv#1 to conv#4"),
        ("BiFormerBlock@after:conv#0", "small.yaml has conv#1 to conv#4"),
        ("BiFormerBlock@after:detect", "nothing reads this row (Detect), so nothing can follow it; `@before:`"),
    ],
    ids=range(9),
)
def test_a_place_that_is_not_there(text: str, expected: str) -> None:
    with pytest.raises(OptionError) as caught:
        rows(text)
    assert str(caught.value).startswith("--insert '")
    assert expected in str(caught.value)


def test_a_row_is_replaced_once() -> None:
    with pytest.raises(OptionError, match="replaced already"):
        rows("C3x@replace:c3", "C3TR@replace:2")


def test_a_mistake_in_the_file_itself_is_the_files() -> None:
    with pytest.raises(ConfigError, match=r"small\.yaml: backbone row 0"):
        insert_rows({**yaml.safe_load(SMALL), "backbone": [[5, 1, "Conv", [8]]]}, ["A@after:0"], "small.yaml")


def test_a_module_that_is_not_there_is_the_rows() -> None:
    changed = insert_rows(yaml.safe_load(SMALL), ["BiFormrBlock@after:p3"], "small.yaml")
    with pytest.raises(ConfigError, match=r"^small\.yaml with --insert: backbone row 3 .* did you mean BiFormerBlock"):
        DetectionModel(changed)


def test_the_description_given_is_not_changed() -> None:
    content = yaml.safe_load(SMALL)
    before = copy.deepcopy(content)
    insert_rows(content, ["A@after:p3", "B@before:detect", "C@replace:0"], "small.yaml")
    assert content == before


def test_twice_in_a_row() -> None:
    once = insert_rows(yaml.safe_load(SMALL), ["BiFormerBlock@after:p3"], "small.yaml")
    twice = insert_rows(once, ["BiFormerBlock@after:biformerblock"], once["yaml_file"])
    assert twice["yaml_file"] == "small.yaml with --insert"
    assert twice == insert_rows(yaml.safe_load(SMALL), ["BiFormerBlock@after:p3"] * 2, "small.yaml")


@pytest.mark.parametrize(
    ("variant", "insertions"),
    [
        ("biformer-backbone", ["BiFormerBlock[0, 5, 4, 3]@after:sppf"]),
        ("biformer", ["BiFormerBlock[0, 8, 4, 3]@after:17", "BiFormerBlock[0, 8, 4, 3]@after:20",
                      "BiFormerBlock[0, 5, 4, 3]@after:23"]),
        ("biformer-both", ["BiFormerBlock[0, 5, 4, 3]@after:sppf", "BiFormerBlock[0, 8, 4, 3]@after:c3#6",
                           "BiFormerBlock[0, 8, 4, 3]@after:c3#7", "BiFormerBlock[0, 5, 4, 3]@after:c3#8"]),
    ],
)  # fmt: skip
def test_shipped_variants_can_be_had_by_insertion(variant: str, insertions: list[str]) -> None:
    content, title = load_model_yaml("yolov5n.yaml")
    shipped, _ = load_model_yaml(f"yolov5n-{variant}.yaml")
    models = []
    for description in (insert_rows(content, insertions, title), shipped):
        with torch.device("meta"):
            models.append(DetectionModel(description))
    assert models[0].save == models[1].save
    assert str(models[0].model) == str(models[1].model)
    assert [layer.f for layer in models[0].model] == [layer.f for layer in models[1].model]
