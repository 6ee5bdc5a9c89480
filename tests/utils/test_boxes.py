"""Box formats, clipping, scaling and overlap."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from golden_formulas import as_f32, assert_golden, check_numbers, generator, golden_arrays, golden_json
from utils import boxes

KINDS = [np.asarray, torch.as_tensor]


def corner_boxes(text: str, count: int, size: float, low: float = 8, high: float = 160) -> np.ndarray:
    draw = generator(text)
    extent = draw.uniform(low, high, (count, 2))
    corner = draw.uniform(0, 1, (count, 2)) * (size - extent)
    return as_f32(np.concatenate([corner, corner + extent], 1))


def pairs_of_boxes(text: str, count: int = 64) -> tuple[np.ndarray, np.ndarray]:
    draw = generator(text)
    first = np.concatenate([draw.uniform(20, 80, (count, 2)), draw.uniform(4, 60, (count, 2))], 1)
    second = first + np.concatenate([draw.normal(0, 8, (count, 2)), np.zeros((count, 2))], 1)
    second[:, 2:] = first[:, 2:] * np.exp(draw.normal(0, 0.4, (count, 2)))
    first[0] = second[0] = [50, 50, 20, 10]
    first[1], second[1] = [20, 20, 10, 10], [80, 90, 12, 8]
    first[2], second[2] = [50, 50, 40, 40], [50, 50, 10, 20]
    first[3], second[3] = [30, 40, 20, 10], [50, 40, 20, 10]
    return as_f32(first), as_f32(second)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("corners", "centred"),
    [
        (np.zeros((0, 4)), np.zeros((0, 4))),  # empty
        ([[0, 0, 10, 20]], [[5, 10, 10, 20]]),  # by hand, whole numbers
        ([[1.5, 2.5, 2.5, 6.5, 7, 8]], [[2, 4.5, 1, 4, 7, 8]]),  # later columns stay
        ([[[0, 0, 3, 3]], [[1, 1, 2, 4]]], [[[1.5, 1.5, 3, 3]], [[1.5, 2.5, 1, 3]]]),  # two leading dimensions
    ],
)
def test_formats_convert_both_ways(kind, corners, centred):
    given = kind(corners)
    kept = given.copy() if isinstance(given, np.ndarray) else given.clone()
    found = boxes.xyxy2xywh(given)
    np.testing.assert_allclose(found, centred)
    np.testing.assert_allclose(boxes.xywh2xyxy(found), np.asarray(corners, float))
    np.testing.assert_array_equal(given, kept)  # arguments are left alone
    assert type(found) is type(given)


@pytest.mark.parametrize("kind", KINDS)
def test_normalised_boxes_round_trip_through_padding(kind):
    given = kind(np.array([[0.5, 0.5, 0.25, 0.5], [0.1, 0.9, 0.2, 0.2]]))
    pixels = boxes.xywhn2xyxy(given, w=200, h=100, padw=10, padh=5)
    np.testing.assert_allclose(pixels, [[85, 30, 135, 80], [10, 85, 50, 105]])
    pixels[..., 0:4:2] -= 10
    pixels[..., 1:4:2] -= 5
    np.testing.assert_allclose(boxes.xyxy2xywhn(pixels, w=200, h=100), given, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_normalising_with_clip_leaves_the_argument_alone(kind):
    given = kind(np.array([[-10.0, 5, 50, 300]]))
    np.testing.assert_allclose(boxes.xyxy2xywhn(given, w=100, h=100, clip=True), [[0.25, 0.525, 0.5, 0.95]])
    np.testing.assert_allclose(given, [[-10, 5, 50, 300]])


def test_points_scale_and_shift():
    np.testing.assert_allclose(boxes.xyn2xy(np.array([[0.5, 0.25]]), w=200, h=100, padw=1, padh=2), [[101, 27]])


def test_polygons_become_boxes():
    triangle = np.array([[0, 0], [4, 1], [2, 6]])
    np.testing.assert_allclose(boxes.segments2boxes([triangle]), [[2, 3, 4, 6]])
    assert boxes.segments2boxes([]).shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("given", "clipped"),
    [
        (np.zeros((0, 4)), np.zeros((0, 4))),  # empty
        ([[-5.0, -5, 700, 500, 9]], [[0, 0, 640, 480, 9]]),  # the fifth column is no coordinate
        ([[10.0, 20, 30, 40]], [[10, 20, 30, 40]]),  # inside
    ],
)
def test_clipping_happens_in_place(kind, given, clipped):
    value = kind(np.array(given))
    assert boxes.clip_boxes(value, (480, 640)) is value
    np.testing.assert_allclose(value, clipped)


@pytest.mark.parametrize("kind", KINDS)
def test_scaling_back_happens_in_place(kind):
    value = kind(np.array([[0.0, 80, 640, 560]], np.float32))
    assert boxes.scale_boxes((640, 640), value, (240, 320)) is value  # gain 2, 80 rows of padding above and below
    np.testing.assert_allclose(value, [[0, 0, 320, 240]])


@pytest.mark.parametrize(
    ("first", "second", "iou"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0),  # equal
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7),  # a corner
        ([0, 0, 2, 2], [2, 0, 4, 2], 0.0),  # touching
        ([0, 0, 4, 4], [1, 1, 3, 3], 0.25),  # nested
    ],
)
def test_iou_by_hand(first, second, iou):
    first, second = (torch.tensor([corner], dtype=torch.float64) for corner in (first, second))
    torch.testing.assert_close(boxes.bbox_iou(first, second, xywh=False).item(), iou, atol=1e-6, rtol=0)
    torch.testing.assert_close(boxes.box_iou(first, second).item(), iou, atol=1e-6, rtol=0)
    centred = boxes.xyxy2xywh(first), boxes.xyxy2xywh(second)
    np.testing.assert_allclose(boxes.bbox_iou(*(box.numpy() for box in centred)), [[iou]], atol=1e-6)


def test_generalised_distance_and_complete_iou_by_hand():
    # Two unit squares with a gap of one: hull 3 x 1, centres 2 apart, squared diagonal 10.
    first, second = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[2.0, 0, 3, 1]])
    torch.testing.assert_close(boxes.bbox_iou(first, second, xywh=False, GIoU=True).item(), -1 / 3)
    torch.testing.assert_close(boxes.bbox_iou(first, second, xywh=False, DIoU=True).item(), -0.4)
    torch.testing.assert_close(boxes.bbox_iou(first, second, xywh=False, CIoU=True).item(), -0.4)  # equal aspects
    # A wide and a high box about one centre: IoU 1/7, and only the aspect term differs.
    wide, high = torch.tensor([[0.0, 0, 4, 1]]), torch.tensor([[0.0, 0, 1, 4]])
    aspect = 4 / math.pi**2 * (math.atan(4) - math.atan(0.25)) ** 2
    complete = 1 / 7 - aspect**2 / (aspect - 1 / 7 + 1)
    torch.testing.assert_close(boxes.bbox_iou(wide, high, CIoU=True).item(), complete, atol=1e-5, rtol=0)


def test_overlap_of_nothing_is_empty_and_shapes_follow():
    empty, three = torch.zeros(0, 4), torch.rand(3, 4)
    assert boxes.box_iou(empty, three).shape == (0, 3)
    assert boxes.box_iou(three, empty).shape == (3, 0)
    assert boxes.bbox_iou(empty, empty).shape == (0, 1)
    assert boxes.bbox_iou(three[:1], three, CIoU=True).shape == (3, 1)  # one against many
    assert boxes.bbox_ioa(np.zeros(4), np.zeros((0, 4))).shape == (0,)


def test_covered_share_by_hand():
    covered = boxes.bbox_ioa(np.array([0.0, 0, 4, 4]), np.array([[0.0, 0, 2, 2], [2, 2, 6, 6], [9, 9, 10, 10]]))
    np.testing.assert_allclose(covered, [1, 0.25, 0], atol=1e-6)


@pytest.mark.golden
@pytest.mark.parametrize("kind", KINDS)
def test_golden_conversions(kind):
    case, want = golden_json("geometry")["convert"], golden_arrays("geometry")
    corners = corner_boxes(case["boxes"], 32, 400)
    np.testing.assert_allclose(check_numbers(corners), case["boxes_check"])
    centred = boxes.xyxy2xywh(kind(corners))
    assert_golden(centred, want["convert.xyxy2xywh"])
    assert_golden(boxes.xywh2xyxy(centred), want["convert.xywh2xyxy"])
    shares = kind(as_f32(np.asarray(centred) / 400))
    assert_golden(boxes.xywhn2xyxy(shares, **case["xywhn2xyxy"]), want["convert.xywhn2xyxy"])
    for name in ("xyxy2xywhn", "xyxy2xywhn_clip"):
        assert_golden(boxes.xyxy2xywhn(kind(corners), **case[name]), want[f"convert.{name}"])


@pytest.mark.golden
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("index", range(4))
def test_golden_scaling(kind, index):
    case = golden_json("geometry")["scale_boxes"][index]
    given = corner_boxes(case["boxes"], 32, max(case["img1"]), 4, 300)
    np.testing.assert_allclose(check_numbers(given), case["boxes_check"])
    found = boxes.scale_boxes(case["img1"], kind(given), case["img0"], case.get("ratio_pad"))
    assert_golden(found, golden_arrays("geometry")[f"scale{index}.boxes"])


@pytest.mark.golden
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "flags"), [("iou", {}), ("giou", {"GIoU": True}), ("diou", {"DIoU": True}), ("ciou", {"CIoU": True})]
)
def test_golden_overlaps(kind, name, flags):
    case, want = golden_json("geometry")["iou"], golden_arrays("geometry")
    first, second = pairs_of_boxes(case["pairs"])
    np.testing.assert_allclose(check_numbers(first), case["a_check"])
    np.testing.assert_allclose(check_numbers(second), case["b_check"])
    centred = boxes.bbox_iou(kind(first), kind(second), **flags)
    corners = (boxes.xywh2xyxy(kind(first)), boxes.xywh2xyxy(kind(second)))
    assert_golden(centred[:, 0], want[f"{name}.xywh"])
    assert_golden(boxes.bbox_iou(*corners, xywh=False, **flags)[:, 0], want[f"{name}.xyxy"])
    if name == "iou":
        assert_golden(boxes.box_iou(corners[0][:16], corners[1][:24]), want["box_iou"])


@pytest.mark.golden
def test_golden_gradient_of_complete_iou():
    first, second = (torch.from_numpy(box) for box in pairs_of_boxes(golden_json("geometry")["iou"]["pairs"]))
    first.requires_grad_()
    boxes.bbox_iou(first, second, CIoU=True)[4:].sum().backward()
    assert_golden(first.grad, golden_arrays("geometry")["ciou.grad_of_sum_from_pair_4"])
