"""Anchors from data."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from engine.benchmarks.memory import traced_bytes
from utils.autoanchor import (
    anchor_fitness,
    best_possible_recall,
    best_ratios,
    check_anchor_order,
    check_anchors,
    evolve_anchors,
    kmean_anchors,
    kmeans,
    label_sizes,
)
from utils.errors import DatasetError
from utils.yaml_io import yaml_save

STRIDES = torch.tensor([8.0, 16.0, 32.0])


def dataset_of(sizes: np.ndarray, imgsz: float = 640, per_image: int = 10) -> SimpleNamespace:
    """Square images whose boxes have the given sizes at the given image size."""
    rows = np.concatenate([np.zeros((len(sizes), 1)), np.full((len(sizes), 2), 0.5), sizes / imgsz], 1)
    labels = [rows[start : start + per_image] for start in range(0, len(rows), per_image)]
    return SimpleNamespace(labels=labels, shapes=np.full((len(labels), 2), 500.0))


def clustered_sizes(centres, per_centre: int = 60, seed: int = 1) -> np.ndarray:
    spread = np.random.default_rng(seed).normal(1, 0.05, (len(centres), per_centre, 2))
    return (np.asarray(centres, float)[:, None] * spread).reshape(-1, 2)


def model_with(anchors_px, strides=STRIDES) -> SimpleNamespace:
    anchors = torch.as_tensor(np.asarray(anchors_px, np.float32)).view(len(strides), -1, 2)
    return SimpleNamespace(model=[SimpleNamespace(anchors=anchors / strides.view(-1, 1, 1), stride=strides)])


def anchors_px(model) -> np.ndarray:
    head = model.model[-1]
    return (head.anchors * head.stride.view(-1, 1, 1)).numpy()


# Fit


def test_no_boxes_have_no_recall():
    assert best_ratios(np.zeros((0, 2)), np.ones((3, 2))).shape == (0,)
    assert best_possible_recall(np.zeros((0, 2)), np.ones((3, 2)), 4.0) == 0


def test_many_boxes_take_no_arrays_of_their_length_but_the_result():
    sizes, anchors = np.full((300_000, 2), 10.0, np.float32), np.full((9, 2), 20.0)
    result = 4 * len(sizes)
    taken = traced_bytes(lambda: best_ratios(sizes, anchors))
    assert result <= taken.kept and taken.peak < 4.5 * result  # both sides and their logarithms are four
    alone = best_ratios(sizes[:1], anchors)
    torch.testing.assert_close(best_ratios(sizes, anchors), alone.repeat(len(sizes)), rtol=0, atol=0)


def test_fit_by_hand():
    sizes, anchors = np.array([[10, 10], [20, 10], [100, 10.0]]), np.array([[10, 10], [40, 20.0]])
    np.testing.assert_allclose(best_ratios(sizes, anchors), [1, 0.5, 0.4], rtol=1e-6)
    assert best_possible_recall(sizes, anchors, 2.4) == pytest.approx(2 / 3)
    assert anchor_fitness(sizes, anchors, 2.4) == pytest.approx(1.5 / 3)


def test_placeholder_anchors_fit_nothing():
    np.testing.assert_array_equal(best_ratios(np.array([[5.0, 5.0]]), np.zeros((2, 2))), [0])


def test_sizes_follow_the_longer_side_and_the_jitter_its_range():
    dataset = SimpleNamespace(
        shapes=np.array([[200, 100], [50, 100]]),
        labels=[np.array([[0, 0.5, 0.5, 0.5, 0.5], [0, 0.5, 0.5, 0.0, 0.5]]), np.array([[0, 0.5, 0.5, 0.2, 1.0]])],
    )
    np.testing.assert_allclose(label_sizes(dataset, 400), [[200, 100], [40, 400]], rtol=1e-6)
    factors = label_sizes(dataset, 400, np.random.default_rng(0)) / [[200, 100], [40, 400]]
    np.testing.assert_allclose(factors[:, 0], factors[:, 1], rtol=1e-6)
    assert ((factors >= 0.9) & (factors <= 1.1)).all()
    assert factors[0, 0] != factors[1, 0]


# Search


def test_clusters_are_found():
    centres = np.array([[10, 12], [40, 30], [100, 150]])
    found = kmeans(clustered_sizes(centres), 3, np.random.default_rng(0))
    np.testing.assert_allclose(found[found[:, 0].argsort()], centres, rtol=0.05)


def test_equal_points_are_one_cluster_many_times():
    np.testing.assert_allclose(kmeans(np.full((5, 2), 7.0), 3, np.random.default_rng(0)), np.full((3, 2), 7.0))


def test_evolution_only_improves_and_keeps_a_least_size():
    sizes = clustered_sizes([[3, 3], [60, 40], [200, 220]])
    start = np.array([[1.0, 1.0], [30, 30], [300, 300]])
    found = evolve_anchors(sizes, start, 4.0, 200, np.random.default_rng(0))
    assert anchor_fitness(sizes, found, 4.0) > anchor_fitness(sizes, start, 4.0) + 0.1
    assert found.min() >= 2
    np.testing.assert_array_equal(start[0], [1, 1])  # the argument stays


def test_anchors_for_a_data_set_are_sorted_reproducible_and_good():
    sizes = clustered_sizes([[40, 30], [60, 150], [150, 90], [320, 70], [200, 250], [350, 380]])
    dataset = dataset_of(sizes)
    found = kmean_anchors(dataset, n=6, gen=200, verbose=False)
    assert found.dtype == np.float32
    assert (np.diff(found.prod(1)) >= 0).all()
    assert anchor_fitness(sizes, found, 4.0) > 0.9
    np.testing.assert_array_equal(found, kmean_anchors(dataset, n=6, gen=200, verbose=False))
    other = kmean_anchors(dataset, n=6, gen=200, verbose=False, rng=np.random.default_rng(5))
    assert not np.array_equal(found, other)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_boxes_than_anchors_still_give_anchors(count):
    sizes = np.array([[50, 40], [120, 130.0]])[:count]
    found = kmean_anchors(dataset_of(sizes), n=9, gen=50, verbose=False)
    assert found.shape == (9, 2)
    assert best_possible_recall(sizes, found, 4.0) == 1


def test_without_boxes_there_are_no_anchors():
    with pytest.raises(DatasetError, match="no labelled boxes"):
        kmean_anchors(dataset_of(np.zeros((0, 2))), verbose=False)


def test_a_data_set_yaml_is_opened(tmp_path):
    sizes = np.array([[0.2, 0.1], [0.5, 0.5], [0.05, 0.3]])
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for index, (width, height) in enumerate(sizes):
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), np.zeros((64, 128, 3), np.uint8))
        (tmp_path / "labels" / f"{index}.txt").write_text(f"0 0.5 0.5 {width} {height}\n")
    yaml_save(tmp_path / "data.yaml", {"path": tmp_path, "train": "images", "val": "images", "names": {0: "a"}})
    found = kmean_anchors(str(tmp_path / "data.yaml"), n=3, img_size=320, gen=100, verbose=False)
    want = sizes * [320, 160]
    np.testing.assert_allclose(found, want[want.prod(1).argsort()], rtol=0.1)


# Models


def test_fitting_anchors_are_left_alone(caplog):
    model = model_with([[10, 10], [12, 9], [50, 40], [45, 60], [200, 180], [150, 220]])
    before = anchors_px(model)
    with caplog.at_level("INFO", logger="yolov5"):
        check_anchors(dataset_of(clustered_sizes([[10, 11], [48, 50], [180, 200]])), model)
    np.testing.assert_array_equal(anchors_px(model), before)
    assert "fit the data" in caplog.text


def test_bad_anchors_are_replaced_in_order_of_the_strides(caplog):
    sizes = clustered_sizes([[4, 60], [70, 5], [6, 300], [400, 30], [500, 500], [8, 8]])
    model = model_with(np.full((6, 2), 30.0) * [[1, 1]])
    with caplog.at_level("INFO", logger="yolov5"):
        check_anchors(dataset_of(sizes), model)
    found = anchors_px(model)
    assert best_possible_recall(sizes, found.reshape(-1, 2), 4.0) > 0.98
    assert (np.diff(found.prod(-1).mean(-1)) > 0).all()
    assert "new anchors replace those" in caplog.text


def test_placeholders_are_replaced():
    model = model_with([[0, 1], [2, 3]] * 3)
    check_anchors(dataset_of(clustered_sizes([[30, 30], [100, 120]])), model)
    assert anchors_px(model).min() >= 2


def test_without_labels_anchors_stay_and_a_warning_says_so(caplog):
    model = model_with(np.full((6, 2), 30.0))
    check_anchors(dataset_of(np.zeros((0, 2))), model)
    assert "no labelled boxes" in caplog.text
    np.testing.assert_allclose(anchors_px(model), 30)


@pytest.mark.parametrize(
    ("anchors", "strides", "reversed_"),
    [
        ([[1, 1], [5, 5], [9, 9]], [8, 16, 32], False),
        ([[9, 9], [5, 5], [1, 1]], [8, 16, 32], True),
        ([[9, 9], [5, 5], [1, 1]], [32, 16, 8], False),
        ([[3, 3], [1, 1], [3, 3]], [8, 16, 32], False),  # placeholders: no growth either way
    ],
)
def test_anchor_order_follows_the_strides(anchors, strides, reversed_):
    head = SimpleNamespace(anchors=torch.tensor(anchors).float().view(3, 1, 2), stride=torch.tensor(strides).float())
    before = head.anchors.clone()
    check_anchor_order(head)
    torch.testing.assert_close(head.anchors, before.flip(0) if reversed_ else before)
