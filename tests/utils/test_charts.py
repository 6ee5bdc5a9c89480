"""Charts: the pictures exist, have the right size, and show what they are given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.charts import (
    output_to_target,
    plot_confusion,
    plot_curve,
    plot_images,
    plot_labels,
    plot_pr,
    plot_results,
    plot_study,
)
from utils.drawing import colors
from utils.errors import ConfigError
from utils.figures import name_list, name_of, shorten
from utils.image_io import read_image

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(5)
HEADER = (
    "epoch, train/box_loss, train/obj_loss, train/cls_loss, metrics/precision, metrics/recall, metrics/mAP_0.5, "
    "metrics/mAP_0.5:0.95, val/box_loss, val/obj_loss, val/cls_loss, x/lr0, x/lr1, x/lr2"
)


def ink(file: Path) -> float:
    """Share of pixels that are not white."""
    return float((read_image(file).min(2) < 250).mean())


# -- batches -------------------------------------------------------------------------------------------------------


def test_output_to_target():
    assert output_to_target([]).shape == (0, 7)
    assert output_to_target([torch.zeros(0, 6)]).shape == (0, 7)
    found = torch.tensor([[10.0, 20, 30, 60, 0.9, 2], [0, 0, 4, 4, 0.5, 1]])
    expected = [[1, 2, 20, 40, 20, 40, 0.9], [1, 1, 2, 2, 4, 4, 0.5]]
    np.testing.assert_allclose(output_to_target([torch.zeros(0, 6), found]), expected, rtol=1e-6)
    np.testing.assert_allclose(output_to_target([torch.zeros(0, 6), found], max_det=1), expected[:1], rtol=1e-6)


def near(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - np.array(colour)).max() < 12)


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
    assert shown.shape == (640, 640, 3)
    second = shown[:320, 320:]
    assert near(second[200, 160], colors(4, bgr=True)) and near(second[160, 80], colors(4, bgr=True))
    assert near(second[160, 160], (128, 128, 128))
    assert not (np.abs(shown[30:310, 10:310].astype(int) - 128) > 12).any()  # the first image has none
    assert (shown[330:] == 255).all()  # unused tiles are white
    torch.testing.assert_close(images, before)


def test_predictions_below_a_quarter_are_left_out(tmp_path):
    images = torch.full((1, 3, 320, 320), 128, dtype=torch.uint8)
    rows = np.array([[0, 0, 160, 160, 100, 100, 0.2], [0, 1, 160, 160, 200, 200, 0.9]])
    plot_images(images, rows, None, tmp_path / "pred.png")
    shown = read_image(tmp_path / "pred.png")
    assert near(shown[160, 110], (128, 128, 128)) and near(shown[160, 60], colors(1, bgr=True))


@pytest.mark.parametrize(
    ("count", "size", "side"), [(0, 64, 64), (1, 640, 640), (5, 64, 192), (20, 64, 256), (16, 640, 1920)]
)
def test_at_most_16_images_and_1920_px(tmp_path, count, size, side):
    plot_images(np.zeros((count, 3, size, size), np.float32), np.zeros((0, 6)), fname=tmp_path / "grid.jpg")
    assert read_image(tmp_path / "grid.jpg").shape[:2] == (side, side)


def test_images_need_not_be_square(tmp_path):
    plot_images(torch.rand(3, 3, 96, 160), torch.tensor([[0, 0, 0.5, 0.5, 0.5, 0.5]]), fname=tmp_path / "wide.jpg")
    assert read_image(tmp_path / "wide.jpg").shape[:2] == (192, 320)


# -- labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [0, 3, 80])
def test_labels_with_any_number_of_classes(tmp_path, classes):
    rows = np.zeros((0, 5))
    if classes:
        rows = np.c_[RNG.integers(0, classes, 500), RNG.random((500, 2)), RNG.beta(1, 5, (500, 2))]
    plot_labels(rows, {index: f"类 $name {index}" for index in range(classes)}, tmp_path)
    for name in ("labels.jpg", "labels_correlogram.jpg"):
        image = read_image(tmp_path / name)
        assert min(image.shape[:2]) >= 1000
    if classes:
        assert ink(tmp_path / "labels_correlogram.jpg") > 0.05


# -- curves --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [0, 3, 80])
def test_curves_with_any_number_of_classes(tmp_path, classes):
    grid = np.linspace(0, 1, 200)
    rows = np.stack([grid ** (1 + index) for index in range(classes)]) if classes else np.zeros((0, 200))
    before = rows.copy()
    names = [f"name {index}" for index in range(classes)]
    plot_curve(grid, rows, names, tmp_path / "F1_curve.png", "Confidence", "F1")
    plot_pr(grid, 1 - rows, np.linspace(0, 1, classes), names, tmp_path / "PR_curve.png")
    for name in ("F1_curve.png", "PR_curve.png"):
        assert read_image(tmp_path / name).shape == (1100, 1700, 3)
        assert ink(tmp_path / name) > (0.02 if classes else 0.001)
    np.testing.assert_array_equal(rows, before)


def test_average_precision_may_have_all_thresholds(tmp_path):
    grid = np.linspace(0, 1, 50)
    ap = RNG.random((3, 10))
    plot_pr(grid, RNG.random((3, 50)), ap, "abc", tmp_path / "all.png")
    assert (tmp_path / "all.png").exists()


@pytest.mark.parametrize(("classes", "normalize"), [(1, True), (3, False), (12, True), (80, True)])
def test_confusion_matrix(tmp_path, classes, normalize):
    matrix = np.zeros((classes + 1, classes + 1))  # with empty columns: no division by zero
    matrix[:classes, :classes] = np.diag(np.arange(classes))
    with np.errstate(all="raise"):
        plot_confusion(matrix, {0: "行人"}, tmp_path / "confusion_matrix.png", normalize)
    assert min(read_image(tmp_path / "confusion_matrix.png").shape[:2]) >= 800


# -- results and study ---------------------------------------------------------------------------------------------


def write_results(file: Path, epochs: int) -> None:
    lines = [",".join(f"{name.strip():>20}" for name in HEADER.split(","))]
    for epoch in range(epochs):
        lines.append(",".join(f"{value:20.5g}" for value in [epoch, *RNG.random(13)]))
    file.write_text("\n".join(lines) + "\n")


def test_results_beside_their_files(tmp_path):
    write_results(tmp_path / "results.csv", 1)
    plot_results(tmp_path / "results.csv")
    alone = ink(tmp_path / "results.png")
    assert alone > 0.005
    write_results(tmp_path / "results2.csv", 40)
    (tmp_path / "results3.csv").write_text("epoch, broken\n1, not a number\n")
    (tmp_path / "results4.csv").write_text("")
    plot_results(dir=tmp_path)
    assert ink(tmp_path / "results.png") > alone


def test_results_without_any_row_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"results\*\.csv"):
        plot_results(tmp_path / "results.csv")
    write_results(tmp_path / "results.csv", 0)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        plot_results(tmp_path / "results.csv")


def test_study(tmp_path):
    for letter in "ns":
        np.savetxt(tmp_path / f"study_coco_yolov5{letter}.txt", RNG.random((11, 10)), fmt="%10.4g")
    plot_study(sorted(tmp_path.glob("study_*.txt")), tmp_path / "study.png")
    assert ink(tmp_path / "study.png") > 0.01
    (tmp_path / "bad.txt").write_text("1 2 3\n")
    for wrong in ("bad.txt", "gone.txt"):
        with pytest.raises(ConfigError, match=wrong):
            plot_study([tmp_path / wrong], tmp_path / "study.png")


# -- names and imports ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [{1: "b"}, ["0", "b"], ("0", "b", "c"), {1: "b", 5: "f"}])
def test_names_come_as_mapping_or_list(names):
    assert name_list(names, 2) == ["0", "b"]
    assert name_of(names, 7) == "7"
    assert name_list(["a$b"], 1) == [r"a\$b"]
    assert shorten("abcdef", 4) == "abc…" and shorten("abcd", 4) == "abcd"


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
