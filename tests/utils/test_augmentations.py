"""Letterbox, warps, colours, flips and mixing, against stored numbers and by hand."""

import cv2
import numpy as np
import pytest

from golden_formulas import assert_golden, check_numbers, generator, golden_arrays, golden_json, image_u8
from utils.augmentations import (
    augment_hsv,
    blend,
    box_candidates,
    copy_paste,
    flip,
    letterbox,
    mixup,
    random_perspective,
    shift_hsv,
)
from utils.geometry_warp import WarpDraw, WarpRanges, map_boxes, polygon_bounds, warp_image, warp_labels, warp_sample

NO_LABELS = np.zeros((0, 5), np.float32)


def golden_boxes(text: str, count: int, size: float, low: float, high: float) -> np.ndarray:
    """The corner boxes of the golden warp cases."""
    draw = generator(text)
    sides = draw.uniform(low, high, (count, 2))
    corners = draw.uniform(0, 1, (count, 2)) * (size - sides)
    return np.concatenate([corners, corners + sides], 1).astype(np.float32)


def warp_cases() -> list[dict]:
    return golden_json("augment")["warp"]


# -- letterbox -----------------------------------------------------------------------------------------------------


@pytest.mark.golden
@pytest.mark.parametrize("case", golden_json("geometry")["letterbox"], ids=lambda case: f"{case['shape']}{case['kw']}")
def test_letterbox_geometry(case):
    image, ratio, pad = letterbox(np.zeros((*case["shape"], 3), np.uint8), **case["kw"])
    assert list(image.shape) == case["out_shape"]
    np.testing.assert_allclose(ratio, case["ratio_wh"], atol=1e-6)
    np.testing.assert_allclose(pad, case["pad_wh"], atol=1e-6)


@pytest.mark.golden
@pytest.mark.parametrize("number", [0, 1])
def test_letterbox_pixels(number):
    case = golden_json("geometry")["letterbox_pixels"][number]
    image = image_u8(case["image"], *case["shape"])
    np.testing.assert_allclose(check_numbers(image), case["image_check"])
    pixels, _, _ = letterbox(image, **case["kw"])
    np.testing.assert_allclose(pixels, golden_arrays("geometry")[f"letterbox{number}.pixels"], atol=2)


@pytest.mark.parametrize("shape", [(500, 3), (1, 5000), (1, 1)])
def test_letterbox_keeps_a_pixel_of_a_sliver(shape):
    image, _, _ = letterbox(np.zeros((*shape, 3), np.uint8), 64, auto=False)
    assert image.shape == (64, 64, 3)


def test_letterbox_colour_and_odd_pixel():
    image, _, pad = letterbox(np.zeros((4, 7, 3), np.uint8), (7, 8), color=(1, 2, 3), auto=False, scaleup=False)
    assert pad == (0.5, 1.5)
    np.testing.assert_array_equal(image[0, 0], (1, 2, 3))
    np.testing.assert_array_equal(np.flatnonzero(image[3, :, 0]), [7])  # the odd column is on the right
    np.testing.assert_array_equal(np.flatnonzero(image[:, 3, 0]), [0, 5, 6])  # and the odd row below


# -- warps ---------------------------------------------------------------------------------------------------------


@pytest.mark.golden
@pytest.mark.parametrize("case", warp_cases(), ids=lambda case: case["name"])
def test_warp_labels(case):
    height, width = case["shape"]
    border = case["kw"].get("border", [0, 0])
    output_hw = (height + 2 * border[0], width + 2 * border[1])
    boxes = golden_boxes(case["boxes"], case["n"], min(height, width), 6, 0.6 * min(height, width))
    np.testing.assert_allclose(check_numbers(boxes), case["boxes_check"])
    draw = WarpDraw(**{name: value["value"] for name, value in case["draws"].items()})
    matrix = draw.matrix((height, width), output_hw)
    np.testing.assert_allclose(matrix, case["matrix"], rtol=1e-9, atol=1e-9)
    assert list(output_hw) == case["out_shape"][:2]

    golden = golden_arrays("augment")
    mapped = map_boxes(boxes, matrix, output_hw)
    assert_golden(mapped, golden[f"warp_{case['name']}.boxes_before_filter"])
    kept = box_candidates(boxes.T * draw.scale, mapped.T)
    np.testing.assert_array_equal(kept, golden[f"warp_{case['name']}.kept_mask"])
    targets = np.concatenate([np.arange(case["n"])[:, None], boxes], 1)
    assert_golden(warp_labels(targets, (), matrix, draw.scale, output_hw), golden[f"warp_{case['name']}.targets"])


@pytest.mark.parametrize("case", warp_cases(), ids=lambda case: case["name"])
def test_warp_draws_keep_to_their_ranges(case):
    kw = {key: value for key, value in case["kw"].items() if key != "border"}
    rng = np.random.default_rng(0)
    draws = [WarpDraw.sample(WarpRanges(**kw), rng) for _ in range(200)]
    for name, limits in case["draws"].items():
        values = np.array([getattr(draw, name) for draw in draws])
        assert values.min() >= limits["low"]
        assert values.max() <= limits["high"]
        spread = limits["high"] - limits["low"]
        assert np.ptp(values) >= 0.9 * spread  # and use them


def test_random_perspective_without_labels():
    image = image_u8("warp", 40, 60)
    warped, targets = random_perspective(image, border=(4, -5), rng=np.random.default_rng(1))
    assert warped.shape == (48, 50, 3)
    assert len(targets) == 0


def test_random_perspective_moves_pixels_and_boxes_together():
    image = np.zeros((100, 120, 3), np.uint8)
    image[30:60, 40:80] = 255
    rng = np.random.default_rng(3)
    for _ in range(20):
        warped, targets = random_perspective(
            image, np.array([[2, 40, 30, 80, 60]], np.float32), translate=0.2, scale=0.3, perspective=0.001, rng=rng
        )
        assert targets.shape == (1, 5)
        rows, columns = np.nonzero(warped[..., 0] > 180)  # the fill is 114
        np.testing.assert_allclose(
            targets[0], [2, columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=2.5
        )


@pytest.mark.parametrize("matrix", [np.diag([0.7, 0.7, 1.0]), [[0.9, 0.3, -4], [-0.2, 1.1, 6], [0.001, 0, 1]]])
def test_a_fourth_channel_changes_no_pixel(matrix):
    image, matrix = image_u8("channels", 48, 64), np.array(matrix)
    padded = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
    warped = warp_image(image, matrix, (40, 56))
    plain = cv2.warpPerspective(image, matrix, (56, 40), borderValue=(114, 114, 114))
    np.testing.assert_allclose(warped.astype(int), plain.astype(int), atol=1)
    np.testing.assert_array_equal(warp_image(padded, matrix, (40, 56))[..., :3], warped)
    for other in (image[..., 0].copy(), image.astype(np.float64)):
        assert warp_image(other, matrix, (40, 56)).shape == (40, 56, *other.shape[2:])
    np.testing.assert_array_equal(shift_hsv(padded, [1.01, 1.3, 0.8]), shift_hsv(image, [1.01, 1.3, 0.8]))


def test_random_perspective_follows_numpys_seed():
    image, targets = image_u8("seed", 32, 32), np.array([[0, 4, 4, 28, 28]], np.float32)
    results = []
    for seed in (7, 7, 8):
        np.random.seed(seed)
        results.append(random_perspective(image, targets)[0])
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()


def test_polygons_decide_where_they_are_given():
    diamond = np.array([[50, 20], [80, 50], [50, 80], [20, 50]], np.float32)
    targets = np.array([[0, 20, 20, 80, 80]] * 2, np.float32)
    turn = WarpDraw(angle_degrees=45).matrix((100, 100), (100, 100))
    rows = warp_labels(targets, [diamond, np.zeros((0, 2))], turn, 1.0, (100, 100))
    side = 30 * np.sqrt(2)  # the diamond stands on a side now, its box would stand on a corner
    np.testing.assert_allclose(rows[0, 1:], [50 - side / 2, 50 - side / 2, 50 + side / 2, 50 + side / 2], atol=1e-4)
    np.testing.assert_allclose(rows[1, 1:], [50 - side, 50 - side, 50 + side, 50 + side], atol=1e-4)


@pytest.mark.parametrize(
    ("polygon", "bounds"),
    [
        ([[200, 10], [210, 10], [205, 20]], [0, 0, 0, 0]),  # outside
        ([[10, 10], [30, 10], [20, 40]], [10, 10, 30, 40]),  # inside
        ([[-500, -500], [500, -500], [500, 500], [-500, 500]], [0, 0, 100, 50]),  # around everything
        ([[50, -50], [150, 50], [50, 50]], [50, 0, 100, 50]),  # cut at the top and on the right
        ([[-10, 25], [10, 5], [10, 45]], [0, 5, 10, 45]),
    ],
)
def test_polygon_bounds_are_cut_exactly(polygon, bounds):
    np.testing.assert_allclose(polygon_bounds(np.array(polygon, float), (50, 100)), bounds)


def test_box_behind_the_viewer_is_dropped():
    draw = WarpDraw(perspective_x=-0.05)
    matrix = draw.matrix((100, 100), (100, 100))
    rows = warp_labels(np.array([[0, 5, 40, 20, 60], [1, 80, 40, 95, 60]]), (), matrix, 1.0, (100, 100))
    assert 1 not in rows[:, 0]


def test_warp_of_nothing():
    image, targets = warp_sample(
        image_u8("none", 16, 16), NO_LABELS, [], WarpRanges(), (0, 0), np.random.default_rng(0)
    )
    assert image.shape == (16, 16, 3)
    assert targets.shape == (0, 5)


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        ([0, 0, 2, 50], False),  # a side of 2 px is too thin, above 2 is not
        ([0, 0, 2.1, 50], True),
        ([0, 0, 31, 31], False),  # a tenth of the area is gone below 31.6 squared
        ([0, 0, 32, 32], True),
        ([0, 0, 3, 301], False),  # aspect
    ],
)
def test_box_candidates_by_hand(after, kept):
    before = [0, 0, 100, 100] if after[2] > 30 else [0, 0, *np.minimum(after[2:], 100)]
    result = box_candidates(np.array([before], float).T, np.array([after], float).T)
    np.testing.assert_array_equal(result, [kept])


# -- colour, flips, mixing -----------------------------------------------------------------------------------------


@pytest.mark.golden
@pytest.mark.parametrize("number", range(3))
def test_hsv(number):
    case = golden_json("augment")["hsv"][number]
    image = image_u8(case["image"], *case["shape"])
    np.testing.assert_allclose(check_numbers(image), case["image_check"])
    shifted = shift_hsv(image, np.array(case["r"]))
    np.testing.assert_allclose(shifted.astype(int), golden_arrays("augment")[f"hsv{number}.pixels"].astype(int), atol=2)


@pytest.mark.parametrize("factors", [(1, 1, 1), (1.41, 1.5, 0.5), (1.97, 0, 3), (0, 0.5, 1), (-0.5, -0.5, 1)])
def test_hsv_factors_cut_off_and_go_round_the_circle(factors):
    image = image_u8("hsv", 64, 64)
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(int))
    planes = [hue * factors[0] % 180, (saturation * factors[1]).clip(0, 255), (value * factors[2]).clip(0, 255)]
    expected = cv2.cvtColor(np.stack(planes, axis=2).astype(np.uint8), cv2.COLOR_HSV2BGR)
    np.testing.assert_allclose(shift_hsv(image, np.array(factors)).astype(int), expected.astype(int), atol=1)


def test_augment_hsv_in_place_and_off():
    image = image_u8("hsv", 8, 8)
    same, other = image.copy(), image.copy()
    assert augment_hsv(same, 0, 0, 0) is None
    np.testing.assert_array_equal(same, image)
    augment_hsv(other, rng=np.random.default_rng(0))
    assert (other != image).any()


@pytest.mark.parametrize(
    ("upside_down", "mirrored", "box"),
    [
        (False, False, [1, 2, 4, 8]),
        (True, False, [1, 2, 4, 8]),
        (False, True, [16, 2, 19, 8]),
        (True, True, [16, 2, 19, 8]),
    ],
)
def test_flip(upside_down, mirrored, box):
    image = np.zeros((10, 20, 3), np.uint8)
    image[2:8, 1:4] = 9
    flipped, targets = flip(image, np.array([[5, 1, 2, 4, 8]], np.float32), upside_down, mirrored)
    np.testing.assert_array_equal(targets, [[5, *box]])
    np.testing.assert_array_equal(np.argwhere(flipped[..., 0])[[0, -1]], [[box[1], box[0]], [box[3] - 1, box[2] - 1]])
    assert flip(image, NO_LABELS, upside_down, mirrored)[1].shape == (0, 5)


@pytest.mark.golden
def test_mixup():
    case, golden = golden_json("augment")["mixup"], golden_arrays("augment")
    first, second = (image_u8(text, *case["shape"]) for text in case["images"])
    mixed = blend(first, second, case["ratio"])
    np.testing.assert_allclose(mixed.astype(int), golden["mixup.pixels"].astype(int), atol=1)

    class FixedBeta:
        def beta(self, *parameters):
            assert list(parameters) == case["beta_parameters"]
            return case["ratio"]

    labels = [golden["mixup.labels"][:3], golden["mixup.labels"][3:]]
    image, joined = mixup(first, labels[0], second, labels[1], rng=FixedBeta())
    np.testing.assert_array_equal(image, mixed)
    np.testing.assert_array_equal(joined, golden["mixup.labels"])


def test_copy_paste_without_polygons_changes_nothing():
    image = image_u8("paste", 20, 30)
    for labels, polygons in ((NO_LABELS, []), (np.array([[0, 1, 1, 9, 9]], np.float32), [np.zeros((0, 2))])):
        pasted, rows, outlines = copy_paste(image, labels, polygons, p=1.0, rng=np.random.default_rng(0))
        np.testing.assert_array_equal(pasted, image)
        np.testing.assert_array_equal(rows, labels)
        assert len(outlines) == len(polygons)


def test_copy_paste_mirrors_pixels_box_and_polygon():
    image = np.zeros((40, 100, 3), np.uint8)
    triangle = np.array([[10, 10], [30, 10], [10, 30]], np.float32)
    cv2.fillPoly(image, [triangle.astype(int)], (7, 8, 9))
    before = image.copy()
    labels = np.array([[3, 10, 10, 30, 30]], np.float32)
    pasted, rows, outlines = copy_paste(image, labels, [triangle], p=1.0, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(rows, [[3, 10, 10, 30, 30], [3, 70, 10, 90, 30]])
    np.testing.assert_array_equal(outlines[1], [[90, 10], [70, 10], [90, 30]])
    np.testing.assert_array_equal(pasted[15, 88], (7, 8, 9))
    np.testing.assert_array_equal(image, before)


def test_copy_paste_does_not_hide_what_is_there():
    triangle = np.array([[10, 10], [30, 10], [10, 30]], np.float32)
    labels = np.array([[3, 10, 10, 30, 30], [1, 70, 10, 90, 30]], np.float32)  # the mirror place is taken
    image = image_u8("taken", 40, 100)
    pasted, rows, _ = copy_paste(image, labels, [triangle, np.zeros((0, 2))], p=1.0, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(rows, labels)
    np.testing.assert_array_equal(pasted, image)
