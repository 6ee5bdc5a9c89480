"""Trained weights survive the insertion of layers: every old tensor loads, and predictions stay what they were."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch

from golden_formulas import fill_module
from models.config import load_model_yaml
from models.insertion import insert_rows
from models.registry import registered_layers
from models.transfer import transfer_weights
from models.yolo import DetectionModel
from utils.errors import ConfigError


@cache
def trained(cfg: str = "yolov5n.yaml", nc: int = 4) -> DetectionModel:
    """A stand-in for a trained model, made once and shared by the tests, which only read it."""
    return as_if_trained(cfg, nc)


def as_if_trained(cfg: str | dict, nc: int = 4) -> DetectionModel:
    """A model whose tensors, running statistics included, are all away from their initial values."""
    model = fill_module(DetectionModel(cfg, nc=nc), "golden:", 1.5)
    model.model[-1].anchors *= 1.25
    return model.eval()


def inserted(cfg: str, after: int, module: str, args: list) -> dict:
    """A model dict with one more row, which is read wherever the row before it was; later indices moved up."""
    content, _ = load_model_yaml(cfg)
    content = copy.deepcopy(content)
    rows = [("backbone", row) for row in content["backbone"]] + [("head", row) for row in content["head"]]

    def moved(source: int) -> int:
        return source + 1 if source >= after else source

    new_rows = []
    for index, (section, row) in enumerate(rows):
        sources = [moved(s) if s >= 0 else s for s in (row[0] if isinstance(row[0], list) else [row[0]])]
        new_rows.append((section, [sources if isinstance(row[0], list) else sources[0], *row[1:]]))
        if index == after:
            new_rows.append((section, [-1, 1, module, args]))
    for section in ("backbone", "head"):
        content[section] = [row for where, row in new_rows if where == section]
    return content


def assert_same_predictions(a: DetectionModel, b: DetectionModel) -> None:
    x = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        torch.testing.assert_close(a.eval()(x)[0], b.eval()(x)[0], rtol=1e-5, atol=1e-5)


def layers_of(lines: list[str]) -> list[str]:
    """The layers that a report's lines are about."""
    return [line.split()[0] for line in lines]


def test_nothing_to_transfer() -> None:
    model = DetectionModel("yolov5n.yaml", nc=4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = transfer_weights({}, model)
    assert (report.transferred, report.total) == (0, 349)
    assert len(report.missing) == 19  # the layers that have tensors
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_same_architecture_transfers_everything() -> None:
    old, new = trained(), DetectionModel("yolov5n.yaml", nc=4)
    report = transfer_weights(old.state_dict(), new)
    assert (report.transferred, report.total, report.missing, report.unused) == (349, 349, [], [])
    assert report.filled == list(new.state_dict())
    assert str(report) == "Transferred 349/349 items"
    assert_same_predictions(old, new)


@pytest.mark.parametrize("variant", ["biformer", "biformer-backbone", "biformer-both", "biformer-c3"])
def test_shipped_variants_start_as_the_plain_model(variant: str) -> None:
    old, new = trained(), DetectionModel(f"yolov5n-{variant}.yaml", nc=4)
    report = transfer_weights(old.state_dict(), new)
    assert report.transferred == 349
    assert report.unused == []
    assert_same_predictions(old, new)


@pytest.mark.parametrize("kind", ["full", "window", "axial", "dilated", "deformable"])
def test_the_other_attentions_start_as_the_plain_model_too(kind: str) -> None:
    content, _ = load_model_yaml(f"yolov5s-{kind}.yaml")
    old, new = trained(), DetectionModel({**content, "width_multiple": 0.25}, nc=4)
    report = transfer_weights(old.state_dict(), new)
    assert report.transferred == 349
    assert report.unused == []
    assert layers_of(report.missing) == [f"model.{row}" for row in (18, 22, 26)]
    assert_same_predictions(old, new)


PLACES = [0, 2, 4, 6, 8, 9, 10, 13, 14, 17, 20, 23]
STARTS_AS_IDENTITY = {
    name: spec for name, spec in registered_layers().items() if spec.row_defaults.get("init_scale") == 0
}
FAMILY = [name for name, spec in STARTS_AS_IDENTITY.items() if spec.width == "same"]  # a new attention joins by itself


def check_insertion(base: str, place: int, module: str, args: list | None = None) -> None:
    """Everything of the old network is found again, and predicts as before."""
    old, new = trained(base), DetectionModel(inserted(base, place, module, args or []), nc=4)
    report = transfer_weights(old.state_dict(), new)
    assert report.transferred == 349
    assert report.unused == []
    assert layers_of(report.missing) == [f"model.{place + 1}"]
    assert_same_predictions(old, new)


@pytest.mark.parametrize("place", PLACES)
def test_insertion_anywhere_loses_nothing(place: int) -> None:
    check_insertion("yolov5n.yaml", place, "BiLevelRoutingAttention", [0, 4, 2])


@pytest.mark.parametrize("number", range(len(FAMILY)), ids=FAMILY)
def test_insertion_of_any_attention_loses_nothing(number: int) -> None:
    check_insertion("yolov5n.yaml", PLACES[number % len(PLACES)], FAMILY[number])


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("module", FAMILY)
def test_every_attention_at_every_place_of_yolov5s(module: str, place: int) -> None:
    check_insertion("yolov5s.yaml", place, module)


def test_the_family_is_found() -> None:
    kinds = ("BiLevelRoutingAttention", "BiFormerBlock", "FullAttention", "WindowAttentionBlock", "AxialAttention",
             "DilatedAttentionBlock", "DeformableAttention")  # fmt: skip
    assert set(kinds) < set(FAMILY)
    assert len(FAMILY) >= 12


@pytest.mark.parametrize("place", PLACES)
def test_insertion_by_name_is_insertion_by_hand(place: int) -> None:
    content, title = load_model_yaml("yolov5n.yaml")
    built = insert_rows(content, [f"BiFormerBlock@after:{place}"], title)
    by_hand = inserted("yolov5n.yaml", place, "BiFormerBlock", [])
    assert [built["backbone"], built["head"]] == [by_hand["backbone"], by_hand["head"]]


def test_the_same_block_in_front_of_a_trained_one() -> None:
    """Either of the two may get the trained tensors: the other one is the identity."""
    base = "yolov5n-biformer-backbone.yaml"
    for place in (8, 9, 10, 11):
        old, new = trained(base), DetectionModel(inserted(base, place, "BiFormerBlock", [0, 5, 4, 3]), nc=4)
        report = transfer_weights(old.state_dict(), new)
        assert (report.transferred, report.unused) == (len(old.state_dict()), [])
        assert_same_predictions(old, new)


@pytest.mark.parametrize("row", ["WindowAttentionBlock", "BiFormerBlock[0, 3, 1, 3]"])
@pytest.mark.parametrize("place", ["before:biformerblock#2", "after:biformerblock#2"])
def test_beside_a_trained_attention_with_the_same_tensors(row: str, place: str) -> None:
    """Only the rows tell which of the two the trained tensors belong to."""
    content, title = load_model_yaml("yolov5n-biformer.yaml")
    old, new = as_if_trained(content), DetectionModel(insert_rows(content, [f"{row}@{place}"], title), nc=4)
    report = transfer_weights(old.state_dict(), new, description=old.yaml)
    assert (report.transferred, report.unused) == (len(old.state_dict()), [])
    inserted_at = 22 if place.startswith("before") else 23
    assert report.missing == [f"model.{inserted_at} ({row.split('[')[0]}): all 19 tensors (not in the checkpoint)"]
    assert_same_predictions(old, new)


def test_a_wrong_description_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^checkpoint's YAML: `backbone` must be a list"):
        transfer_weights({}, DetectionModel("yolov5n.yaml", nc=4), description={"nc": 4})


def test_another_class_count_leaves_the_head_and_says_why() -> None:
    old, new = trained(nc=4), DetectionModel("yolov5n.yaml", nc=2)
    report = transfer_weights(old.state_dict(), new)
    assert report.transferred == 349 - 6
    named = "m.0.weight (27, 64, 1, 1) for (21, 64, 1, 1), m.0.bias (27,) for (21,), m.1.weight (27, 128, 1, 1) for "
    assert report.missing == [f"model.24 (Detect): {named}(21, 128, 1, 1) and 3 more (another shape)"]


def test_another_width_is_told_in_a_line_a_layer() -> None:
    """By its shapes, layer 1 of yolov5n would pass for layer 0 of yolov5s: the rows know better."""
    old, new = trained(), DetectionModel("yolov5s.yaml", nc=4)
    report = transfer_weights(old.state_dict(), new, description=old.yaml)
    assert report.pairs == {name: name for name in report.pairs}
    counters = {name for name in report.filled if name.endswith("num_batches_tracked")}
    assert set(report.filled) - counters == {"model.24.anchors", *(f"model.24.m.{level}.bias" for level in range(3))}
    assert len(report.missing) == 19
    assert report.missing[0] == (
        "model.0 (Conv): conv.weight (16, 3, 6, 6) for (32, 3, 6, 6), bn.weight (16,) for (32,), bn.bias (16,) for "
        "(32,) and 2 more (another shape)"
    )


def test_excluded_tensors_keep_their_values() -> None:
    old, new = trained(), DetectionModel("yolov5n.yaml", nc=4)
    before = new.model[-1].anchors.clone()
    report = transfer_weights(old.state_dict(), new, exclude=("anchors",))
    assert report.transferred == 348
    torch.testing.assert_close(new.model[-1].anchors, before, rtol=0, atol=0)


def test_a_removed_layer_is_reported_as_unused() -> None:
    old, new = trained("yolov5n-biformer-backbone.yaml"), DetectionModel("yolov5n.yaml", nc=4)
    report = transfer_weights(old.state_dict(), new)
    assert report.transferred == 349
    assert len(report.unused) == 1
    assert report.unused[0].startswith("model.10: all")


def test_half_precision_checkpoints_fill_float_models() -> None:
    old, new = trained(), DetectionModel("yolov5n.yaml", nc=4)
    transfer_weights({name: t.half() if t.is_floating_point() else t for name, t in old.state_dict().items()}, new)
    assert {parameter.dtype for parameter in new.parameters()} == {torch.float32}
