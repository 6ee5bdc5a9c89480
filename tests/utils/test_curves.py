"""Charts of an evaluation: curves and confusion matrix, for no class, one, a few and many, in any language."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import cut_off, ink, pixels_of

from utils.average_precision import precision_recall
from utils.charts import plot_confusion, plot_curve, plot_pr
from utils.curves import plot_kind
from utils.drawing import colors
from utils.figures import class_style
from utils.fonts import find_font
from utils.image_io import read_image

RNG = np.random.default_rng(5)
GRID = np.linspace(0, 1, 200)
CHINESE = {index: f"交通信号灯{index}" for index in range(80)}
LONG = {index: f"number {index} with a rather long descriptive name" for index in range(80)}


def rising(classes: int) -> np.ndarray:
    return np.stack([GRID ** (1 + index) for index in range(classes)]) if classes else np.zeros((0, 200))


# -- curves --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "names"), [(0, {}), (1, {0: "$face_$"}), (3, CHINESE), (80, LONG)])
def test_curves_with_any_number_of_classes(tmp_path, classes, names):
    rows = rising(classes)
    before = rows.copy()
    plot_curve(GRID, rows, names, tmp_path / "F1_curve.png", "Confidence", "F1")
    plot_pr(GRID, 1 - rows, np.linspace(0, 1, classes), names, tmp_path / "PR_curve.png")
    for name in ("F1_curve.png", "PR_curve.png"):
        assert read_image(tmp_path / name).shape == (1100, 1700, 3)
        assert ink(tmp_path / name) > (0.02 if classes else 0.001)
        assert not cut_off(tmp_path / name)
    np.testing.assert_array_equal(rows, before)


def test_average_precision_may_have_all_thresholds(tmp_path):
    plot_pr(GRID, RNG.random((3, 200)), RNG.random((3, 10)), "abc", tmp_path / "all.png")
    assert (tmp_path / "all.png").exists()


def test_a_class_keeps_its_colour_when_others_have_no_labels(tmp_path):
    kinds = np.array([4, 4, 9, 9])
    curves = precision_recall(np.ones((4, 10), bool), np.array([0.9, 0.5, 0.8, 0.3]), kinds, kinds)
    for kind in ("PR", "R"):
        plot_kind(curves, kind, dict(enumerate("abcdefghij")), tmp_path / f"{kind}.png")
        shown = read_image(tmp_path / f"{kind}.png")
        assert all(pixels_of(shown, colors(number)) > 50 for number in (4, 9)), kind
        assert not any(pixels_of(shown, colors(number)) for number in (0, 1)), kind


def test_of_many_classes_the_best_and_the_worst_are_named(tmp_path):
    heights = np.linspace(0.9, 0.1, 40)  # class 0 is the best
    plot_pr(GRID, np.repeat(heights[:, None], 200, 1), heights, LONG, tmp_path / "many.png")
    right = read_image(tmp_path / "many.png")[:, 1250:]  # the legend
    for number, named in ((0, True), (5, True), (6, False), (13, False), (34, True), (39, True)):
        assert (pixels_of(right, colors(number)) > 20) == named, number


def test_line_styles_tell_classes_of_one_colour_apart():
    assert len({(colors(number), class_style(number)) for number in range(80)}) == 80


# -- confusion matrix ----------------------------------------------------------------------------------------------


def mixed_up(classes: int) -> np.ndarray:
    matrix = np.diag(np.arange(classes + 1.0)) * 10  # the first column is empty: no division by zero
    matrix[classes, 1:] += 3
    return matrix


@pytest.mark.parametrize(
    ("classes", "names", "normalize"),
    [
        (0, {}, True),
        (1, {0: "行人"}, True),
        (3, LONG, False),
        (80, LONG, True),
        pytest.param(80, CHINESE, True, marks=pytest.mark.slow),
        pytest.param(150, {}, True, marks=pytest.mark.slow),
    ],
)
def test_confusion_matrix(tmp_path, classes, names, normalize):
    with np.errstate(all="raise"):
        plot_confusion(mixed_up(classes), names, tmp_path / "confusion_matrix.png", normalize)
    assert min(read_image(tmp_path / "confusion_matrix.png").shape[:2]) >= 800
    assert not cut_off(tmp_path / "confusion_matrix.png")


def test_a_small_share_is_seen(tmp_path):
    """Two in a hundred taken for another class are what one looks for; they are no shade of white."""
    matrix = np.array([[98.0, 0, 0], [2, 100, 0], [0, 0, 0]])
    plot_confusion(matrix, ["a", "b"], tmp_path / "seen.png")
    shown = read_image(tmp_path / "seen.png")
    height, width = shown.shape[:2]
    cell = shown[int(0.43 * height) : int(0.46 * height), int(0.17 * width) : int(0.2 * width)]  # row b, column a
    assert cell[..., 2].mean() < 235


# -- names that matplotlib has no font for ---------------------------------------------------------------------------


def test_names_in_several_scripts_differ_in_the_picture(tmp_path):
    """No single font has both scripts, so each name is drawn by itself; two names give two pictures."""
    shown = []
    for name in ("行人", "汽车"):
        plot_curve(GRID, rising(2), [name, "עברית"], tmp_path / "names.png")
        shown.append(read_image(tmp_path / "names.png"))
    assert not cut_off(tmp_path / "names.png")
    if find_font("行")[1] or (shown[0] != shown[1]).any():
        assert (shown[0][:, 1300:] != shown[1][:, 1300:]).any()
        assert (shown[0][:, :1000] == shown[1][:, :1000]).mean() > 0.99


@pytest.mark.parametrize("name", ["a\nb", "\x00", "$\\frac$", "\ud800", "", "{x}^_"])
def test_no_name_is_undrawable(tmp_path, name):
    plot_confusion(mixed_up(2), [name, "b"], tmp_path / "odd.png")
    assert not cut_off(tmp_path / "odd.png")
