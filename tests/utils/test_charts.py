"""Pictures of batches and of labels: they exist, have the right size, and show what they are given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import cut_off, ink, near, pixels_of

from utils.charts import output_to_target, plot_images, plot_labels
from utils.drawing import colors, ink_on
from utils.figures import name_list, name_of, shorten, text_width
from utils.image_io import read_image
from utils.label_charts import plot_label_counts

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(5)


# -- batches -------------------------------------------------------------------------------------------------------


def test_output_to_target():
    assert output_to_target([]).shape == (0, 7)
    assert output_to_target([torch.zeros(0, 6)]).shape == (0, 7)
    found = torch.tensor([[10.0, 20, 30, 60, 0.9, 2], [0, 0, 4, 4, 0.5, 1]])
    expected = [[1, 2, 20, 40, 20, 40, 0.9], [1, 1, 2, 2, 4, 4, 0.5]]
    np.testing.assert_allclose(output_to_target([torch.zeros(0, 6), found]), expected, rtol=1e-6)
    np.testing.assert_allclose(output_to_target([torch.zeros(0, 6), found], max_det=1), expected[:1], rtol=1e-6)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_boxes_of_a_batch_are_where_they_belong(tmp_path, normalised, kind):
    images = torch.full((2, 3, 320, 320), 128, dtype=torch.uint8)
    before = images.clone()
    box = np.array([0.5, 0.5, 0.5, 0.25]) * (1 if normalised else 320)
    targets = torch.tensor([[1, 4, *box]])
    plot_images(
        images if kind == "uint8" else images / 255, targets, ["a/b.jpg", "图.jpg"], tmp_path / "batch.png", {4: "x"}
    )
    shown = read_image(tmp_path / "batch.png")
    strip = shown.shape[0] - 320  # with the files' names, above each image
    assert shown.shape == (strip + 320, 640, 3) and 10 < strip < 40
    assert (shown[2:strip, 2:318].max(2) > 200).any() and (shown[2:strip, 300:318].max() == 0)
    second = shown[strip:, 320:]
    assert near(second[200, 160], colors(4, bgr=True)) and near(second[160, 80], colors(4, bgr=True))
    assert near(second[160, 160], (128, 128, 128))
    assert not (np.abs(shown[strip + 5 : -5, 10:310].astype(int) - 128) > 12).any()  # the first image has none
    torch.testing.assert_close(images, before)


def test_predictions_below_a_quarter_are_left_out(tmp_path):
    images = torch.full((1, 3, 320, 320), 128, dtype=torch.uint8)
    rows = np.array([[0, 0, 160, 160, 100, 100, 0.2], [0, 1, 160, 160, 200, 200, 0.9]])
    plot_images(images, rows, None, tmp_path / "pred.png")
    shown = read_image(tmp_path / "pred.png")
    assert near(shown[160, 110], (128, 128, 128)) and near(shown[160, 60], colors(1, bgr=True))


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (0, 320, (320, 320)),
        (1, 640, (640, 640)),
        (5, 320, (640, 960)),  # three a row, two rows
        (20, 64, (960, 960)),  # enlarged to 240 px, so that names can be read
        (16, 640, (1920, 1920)),
    ],
)
def test_at_most_16_images_and_1920_px(tmp_path, count, size, expected):
    plot_images(np.zeros((count, 3, size, size), np.float32), np.zeros((0, 6)), fname=tmp_path / "grid.jpg")
    assert read_image(tmp_path / "grid.jpg").shape[:2] == expected


def test_a_thousand_images_with_names_stay_below_the_limit(tmp_path):
    images = torch.zeros(1000, 3, 8, 8, dtype=torch.uint8)
    rows = np.c_[np.repeat(np.arange(1000), 50), RNG.integers(0, 80, 50_000), RNG.random((50_000, 4))]
    plot_images(images, rows, [f"{index}.jpg" for index in range(1000)], tmp_path / "many.jpg")
    height, width = read_image(tmp_path / "many.jpg").shape[:2]
    assert width == 960 and 960 < height <= 1920


def test_images_need_not_be_square(tmp_path):
    plot_images(torch.rand(3, 3, 192, 320), torch.tensor([[0, 0, 0.5, 0.5, 0.5, 0.5]]), fname=tmp_path / "wide.jpg")
    assert read_image(tmp_path / "wide.jpg").shape[:2] == (384, 640)


def test_boxes_in_px_follow_an_enlarged_image(tmp_path):
    images = torch.full((1, 3, 60, 60), 128, dtype=torch.uint8)
    plot_images(images, np.array([[0, 3, 30.0, 30, 20, 20]]), fname=tmp_path / "small.png")
    shown = read_image(tmp_path / "small.png")
    assert shown.shape == (240, 240, 3)
    assert near(shown[120, 80], colors(3, bgr=True)) and near(shown[160, 120], colors(3, bgr=True))


def test_no_frame_crosses_a_name(tmp_path):
    images = torch.full((1, 3, 320, 320), 128, dtype=torch.uint8)
    rows = np.array([[0, 1, 0.5, 0.6, 0.6, 0.3], [0, 2, 0.4, 0.5, 0.1, 0.9]])  # the second frame goes through the label
    for order in (rows, rows[::-1]):
        plot_images(images, order, None, tmp_path / "crossed.png", ["a", "mmmmmmmmm", "c"])
        plate = read_image(tmp_path / "crossed.png")[132:140, 70:150]
        assert pixels_of(plate, colors(1)) > 100 and pixels_of(plate, colors(2)) == 0


def test_names_are_black_on_light_plates_and_white_on_dark_ones():
    assert ink_on((240, 162, 2)) == (0, 0, 0) and ink_on((255, 255, 255)) == (0, 0, 0)
    assert ink_on((27, 108, 168)) == (255, 255, 255) and ink_on(torch.tensor([0, 0, 0])) == (255, 255, 255)


# -- labels --------------------------------------------------------------------------------------------------------


def some_labels(classes: int, count: int) -> np.ndarray:
    return np.c_[RNG.integers(0, classes, count), RNG.random((count, 2)), RNG.beta(1, 5, (count, 2))]


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (0, {0: "a", 1: "b"}),
        (500, {index: f"类 $name {index}" for index in range(3)}),
        (500, [f"class number {index} with a rather long descriptive name" for index in range(80)]),
        pytest.param(500, dict.fromkeys(range(300), "行人"), marks=pytest.mark.slow),
    ],
)
def test_labels_with_any_number_of_classes(tmp_path, count, names):
    plot_label_counts(some_labels(max(len(names), 1), count), names, tmp_path / "labels.jpg")
    assert min(read_image(tmp_path / "labels.jpg").shape[:2]) >= 1000
    assert not cut_off(tmp_path / "labels.jpg")
    assert ink(tmp_path / "labels.jpg") > (0.02 if count else 0.005)


def test_both_files_of_labels_from_a_tensor(tmp_path):
    plot_labels(torch.from_numpy(some_labels(3, 200)), ["a", "b", "c"], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.jpg", "labels_correlogram.jpg"]
    for file in tmp_path.iterdir():
        assert not cut_off(file)
        assert ink(file) > 0.05


def test_the_sample_of_boxes_is_of_the_whole_set(tmp_path):
    """A class that comes last in the files is seen, however many labels there are before."""
    rows = np.tile([0, 0.5, 0.5, 0.2, 0.2], (20_000, 1))
    rows[15_000:] = [2, 0.5, 0.5, 0.6, 0.6]
    plot_label_counts(rows, list("abc"), tmp_path / "labels.png")
    shown = read_image(tmp_path / "labels.png")
    _, green, red = shown[: shown.shape[0] // 2, shown.shape[1] // 2 :].astype(int).transpose(2, 0, 1)
    assert (red - green > 50).sum() > 100  # class 0
    assert (green - red > 50).sum() > 100  # class 2


# -- names and imports ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [{1: "b"}, ["0", "b"], ("0", "b", "c"), {1: "b", 5: "f"}])
def test_names_come_as_mapping_or_list(names):
    assert name_list(names, 2) == ["0", "b"]
    assert name_of(names, 7) == "7"
    assert name_list(["a$b", "two\nlines", "x\ud800y"], 3) == ["a$b", "two?lines", "x?y"]


def test_names_are_cut_by_their_width():
    assert shorten("abcdef", 4) == "abc…" and shorten("abcd", 4) == "abcd" and shorten("", 4) == ""
    assert text_width("车a") == 3
    assert shorten("交通信号灯", 10) == "交通信号灯" and shorten("交通信号灯", 9) == "交通信号…"


def test_matplotlib_waits_for_the_first_chart_and_pyplot_never_comes(tmp_path):
    code = (
        "import sys, numpy as np, utils.plots\n"
        "assert not any(name.split('.')[0] == 'matplotlib' for name in sys.modules)\n"
        "utils.plots.plot_labels(np.zeros((0, 5)), ['a'], sys.argv[1])\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "labels.jpg").exists()
