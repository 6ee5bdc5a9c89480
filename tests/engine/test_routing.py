"""detect.py --show-routing: places land in the right regions, and the picture shows what the layers used."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.detection import run_detection
from engine.options.detect import DetectOptions
from engine.predictor import FrameResult
from engine.routing import Letterbox, layer_titles, panel_of, routing_views
from models.attention import BiLevelRoutingAttention
from models.attention.recording import LayerRouting, RoutingRecorder
from models.checkpoint import Checkpoint, ModelMeta, write_checkpoint
from models.yolo import DetectionModel
from utils.augmentations import letterbox
from utils.boxes import scale_boxes
from utils.datasets.shapes import draw_scene
from utils.errors import OptionError
from utils.image_io import read_image, write_image
from utils.routing_chart import plot_routing

NAMES = {0: "bus", 1: "行人"}
BACKBONE = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]]
PLAIN = {"nc": 2, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": [[10, 13]], "backbone": BACKBONE}
PLAIN["head"] = [[[-1], 1, "Detect", ["nc", "anchors"]]]
ROUTED = {**PLAIN, "backbone": [*BACKBONE, [-1, 2, "BiFormerBlock", [1, 3, 2]], [-1, 1, "C3BiFormer", [8]]]}


def save_detector(path: Path, cfg: dict) -> Path:
    torch.manual_seed(0)
    model = DetectionModel(cfg)
    model.names = dict(NAMES)
    with torch.no_grad():
        model.model[-1].m[0].bias.copy_(torch.tensor([0.0] * 4 + [4.0, -8.0, 4.0]))  # finds something everywhere
    write_checkpoint(path, Checkpoint(model.state_dict(), ModelMeta.of(model)))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_detector(tmp_path_factory.mktemp("routing") / "routed.pt", ROUTED)


@pytest.fixture
def picture(tmp_path) -> Path:
    write_image(tmp_path / "照 片.png", draw_scene("routing").image[:96, :128])
    return tmp_path / "照 片.png"


def go(weights: Path, source: Path, folder: Path, **options) -> Path:
    settings = {"imgsz": 64, "device": "cpu", "project": str(folder / "runs"), **options}
    return run_detection(DetectOptions.from_kwargs(weights=str(weights), source=str(source), **settings)).save_dir


def routed_frame(image_hw: tuple[int, int], size: int, map_stride: int, **layer_settings) -> FrameResult:
    """A frame, and one layer's routing of it; the map is the letterboxed frame at a stride."""
    torch.manual_seed(0)
    image = np.zeros((*image_hw, 3), np.uint8)
    input_hw = letterbox(image, size, stride=32)[0].shape[:2]
    layer = BiLevelRoutingAttention(8, 2, **layer_settings)
    with torch.no_grad(), RoutingRecorder(layer) as recorder:
        layer(torch.randn(1, 8, *(math.ceil(side / map_stride) for side in input_hw)))
        routing = recorder.take()
    boxes = np.zeros((0, 6), np.float32)
    return FrameResult(Path("x.png"), image, boxes, NAMES, input_hw=input_hw, routing=routing)


# -- geometry ------------------------------------------------------------------------------------------------------


def test_letterbox_by_hand():
    box = Letterbox.of((64, 64), (96, 128))
    assert box == Letterbox(gain=0.5, left=0.0, top=8.0)
    assert Letterbox.of((64, 32), (10, 1)) == Letterbox(gain=6.4, left=12.8, top=0.0)


@pytest.mark.parametrize("image_hw", [(96, 128), (37, 211), (500, 3), (1, 1)])
def test_letterbox_is_what_boxes_are_scaled_back_by(image_hw):
    input_hw = letterbox(np.zeros((*image_hw, 3), np.uint8), 320)[0].shape[:2]
    box, (height, width) = Letterbox.of(input_hw, image_hw), image_hw
    corners = np.array([[0.1 * width, 0.2 * height, 0.7 * width, 0.9 * height]])
    there = corners * box.gain + np.array([box.left, box.top] * 2)
    np.testing.assert_allclose(scale_boxes(input_hw, there.copy(), image_hw), corners, rtol=1e-6)


def test_regions_by_hand():
    """96 x 128 px at half size with 8 px above: a map of 8 x 8 in regions of 3 x 3 tokens, that is 24 px of input."""
    frame = routed_frame((96, 128), 64, 8, n_win=3, topk=2)
    panel = panel_of(frame.routing[0], (127, 95), frame, "1 BiFormerBlock")
    np.testing.assert_allclose(panel.column_edges, [0, 48, 96, 128])
    np.testing.assert_allclose(panel.row_edges, [-16, 32, 80, 112])
    assert panel.query == (2, 2)
    assert panel_of(frame.routing[0], (47.9, 32), frame, "").query == (1, 0)
    assert panel_of(frame.routing[0], (48, 31.9), frame, "").query == (0, 1)
    assert panel.title == "1 BiFormerBlock\n8x8 map, 3x3 regions, top 2"


@pytest.mark.parametrize("padding", ["masked", "legacy"])
@pytest.mark.parametrize("image_hw", [(96, 128), (37, 211), (300, 40), (500, 3), (1, 1)])
@pytest.mark.parametrize("stride", [8, 32])
def test_the_region_that_asks_contains_the_point(padding, image_hw, stride):
    frame = routed_frame(image_hw, 160, stride, n_win=7, topk=3, padding=padding)
    (routing,), (height, width) = frame.routing, image_hw
    for x, y in np.random.default_rng(0).uniform(0, 1, (20, 2)) * (width, height):
        panel = panel_of(routing, (x, y), frame, "")
        row, column = panel.query
        assert panel.row_edges[row] <= y + 1e-9 and y < panel.row_edges[row + 1] + 1e-9
        assert panel.column_edges[column] <= x + 1e-9 and x < panel.column_edges[column + 1] + 1e-9
        assert (np.diff(panel.row_edges) > 0).all() and (np.diff(panel.column_edges) > 0).all()
        assert panel.row_edges[0] <= 0 and panel.row_edges[-1] >= height - 1e-9
        assert panel.column_edges[0] <= 0 and panel.column_edges[-1] >= width - 1e-9


def test_what_is_drawn_is_what_the_layer_used():
    frame = routed_frame((90, 150), 160, 8, n_win=7, topk=5)
    (routing,) = frame.routing
    panel = panel_of(routing, (100, 50), frame, "")
    region = panel.query[0] * routing.grid.cols + panel.query[1]
    chosen = np.flatnonzero(np.isfinite(panel.shares))
    columns = panel.shares.shape[1]
    as_numbers = [place // columns * routing.grid.cols + place % columns for place in chosen]
    assert sorted(as_numbers) == sorted(routing.idx[0, region].tolist())
    assert np.nansum(panel.shares) == pytest.approx(1, abs=1e-5)
    best = np.argsort(-panel.affinity.flatten())[:5]
    assert sorted(best) == sorted(chosen)


# -- what is shown -------------------------------------------------------------------------------------------------


def test_nothing_found_shows_nothing_and_a_point_outside_neither():
    frame = routed_frame((96, 128), 64, 8, n_win=3, topk=2)
    titles = {"": "layer"}
    assert routing_views(frame, None, titles) == []
    assert routing_views(frame, (128, 0), titles) == [] and routing_views(frame, (0, 96), titles) == []
    assert len(routing_views(frame, (127.9, 95.9), titles)) == 1


def test_auto_takes_the_most_confident_and_fewer_of_many_layers():
    frame = routed_frame((96, 128), 64, 8, n_win=3, topk=2)
    boxes = np.array([[10 * n, 10, 10 * n + 8, 30, 0.9 - 0.1 * n, n % 2] for n in range(5)], np.float32)
    frame = dataclasses.replace(frame, boxes=boxes)
    views = routing_views(frame, None, {"": "layer"})
    assert [(view.x, view.y) for view in views] == [(4, 20), (14, 20), (24, 20)]
    assert [view.label for view in views] == ["bus 0.90", "行人 0.80", "bus 0.70"]
    many = dataclasses.replace(frame, routing=[*frame.routing] * 12)
    assert [len(view.panels) for view in routing_views(many, None, {"": "layer"})] == [12, 12]
    far_too_many = dataclasses.replace(frame, routing=[*frame.routing] * 30)
    assert len(routing_views(far_too_many, None, {"": "layer"})) == 1


def test_titles_name_rows_and_count_within_them():
    model = DetectionModel(ROUTED)
    titles = layer_titles(model, RoutingRecorder(model).names)
    assert list(titles.values()) == ["3 BiFormerBlock #1", "3 BiFormerBlock #2", "4 C3BiFormer"]
    bare = BiLevelRoutingAttention(8, 2)
    assert layer_titles(bare, [""]) == {"": "BiLevelRoutingAttention"}


@pytest.mark.parametrize(("image_hw", "layers"), [((500, 3), 1), ((1, 1), 5)])
def test_pictures_of_any_shape(tmp_path, image_hw, layers):
    frame = routed_frame(image_hw, 64, 8, n_win=3, topk=99)
    frame = dataclasses.replace(frame, routing=[*frame.routing] * layers)
    plot_routing(frame.image, routing_views(frame, (0, 0), {"": "layer"}), tmp_path / "routing.png")
    drawn = read_image(tmp_path / "routing.png")
    cyan = (np.abs(drawn.astype(int) - (255, 229, 0)).max(-1) < 60).sum()
    assert cyan > 20 * layers and max(drawn.shape) < 2500


# -- the whole way -------------------------------------------------------------------------------------------------


def test_a_picture_beside_the_others(weights, picture, tmp_path):
    run = go(weights, picture, tmp_path, show_routing="auto", visualize=True)
    assert (run / "routing" / "照 片.png").exists()
    assert (run / "照 片" / "stage3_BiFormerBlock_features.png").exists()
    plain = go(weights, picture, tmp_path)
    np.testing.assert_array_equal(read_image(run / picture.name), read_image(plain / picture.name))


@pytest.mark.parametrize(
    "options", [{"show_routing": "auto", "conf_thres": 1.0}, {"show_routing": "500,5", "nosave": True}]
)
def test_a_frame_without_a_place_is_passed_over(weights, picture, tmp_path, options):
    assert list((go(weights, picture, tmp_path, **options) / "routing").iterdir()) == []


def test_recording_belongs_to_its_frame(weights, picture, tmp_path):
    """Two frames of different content and size: each has its own routing."""
    from engine.predictor import Predictor
    from models.backends.multi import DetectMultiBackend
    from utils.datasets.sources import LoadImages

    write_image(tmp_path / "z.png", draw_scene("another").image[:200, :100])
    backend = DetectMultiBackend(weights)
    with RoutingRecorder(backend.model) as recorder:
        stream = Predictor(backend, recorder=recorder).stream(
            LoadImages([picture, tmp_path / "z.png"], 64, backend.stride).iter_frames()
        )
        routings: list[list[LayerRouting]] = [list(result.routing) for result in stream]
    assert [routing[0].map_hw for routing in routings] == [(8, 8), (8, 4)]


def test_networks_without_routing_are_refused(picture, tmp_path):
    plain = save_detector(tmp_path / "plain.pt", PLAIN)
    with pytest.raises(OptionError, match=r"--show-routing: .* no bi-level routing attention"):
        go(plain, picture, tmp_path, show_routing="auto")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("value", "place"), [("auto", None), (" AUTO ", None), ("64,48", (64, 48)), (" 0.5 , 0 ", (0.5, 0))]
)
def test_places(value, place):
    assert DetectOptions.from_kwargs(show_routing=value).routing_place() == place


@pytest.mark.parametrize("value", ["here", "1", "1,2,3", "nan,1", "inf,1", "-1,5", ",", "auto,auto"])
def test_what_is_no_place_is_refused(value):
    with pytest.raises(OptionError, match=r"--show-routing .*point x,y"):
        DetectOptions.from_kwargs(show_routing=value)


def test_not_with_augmentation():
    with pytest.raises(OptionError, match=r"--show-routing .*--augment"):
        DetectOptions.from_kwargs(show_routing="auto", augment=True)
