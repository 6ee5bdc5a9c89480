"""Average precision of parts: by pycocotools where it can say it, by hand where it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from coco_oracle import cocoeval, crowded_images, figures, records_of

from utils.boxes import box_iou
from utils.matching import match_views
from utils.slices import OCCLUDED_ABOVE, SIZES, covered_share, measure_slices

NOTHING, NO_LABEL = np.zeros((0, 6), np.float32), np.zeros((0, 5), np.float32)


def by_name(records) -> dict:
    return {part.name: part for part in measure_slices(records)}


def square(x: float, side: float, *rest: float) -> list[float]:
    return [x, 0, x + side, side, *rest]


@pytest.fixture(scope="module", params=[{}, {"whole": True, "ties": True}], ids=["plain", "whole-ties"])
def images(request):
    return crowded_images(**request.param)


def test_sizes_are_pycocotools(images):
    evaluation, parts = cocoeval(images, nc=3, areas=list(SIZES.values())), by_name(records_of(images))
    for place, name in enumerate(SIZES):
        assert parts[name].instances > 10
        want = figures(evaluation, place)
        assert min(want) > 0.05
        np.testing.assert_allclose((parts[name].map50, parts[name].map), want, atol=1e-9)


def test_occlusion_is_pycocotools_with_the_other_labels_set_aside(images):
    parts = by_name(records_of(images))
    shares = [covered_share(labels[:, 1:]) for _, labels in images]
    for name, wanted in (("occluded", True), ("free", False)):
        member = [(share > OCCLUDED_ABOVE) == wanted for share in shares]
        evaluation = cocoeval(
            images, 3, areas=[(1, 2)], area_of=lambda image, label, member=member: float(member[image][label])
        )
        assert parts[name].instances == sum(int(part.sum()) for part in member) > 10
        np.testing.assert_allclose((parts[name].map50, parts[name].map), figures(evaluation), atol=1e-9)


def test_crowding_is_pycocotools_on_the_images_of_a_kind(images):
    parts = by_name(records_of(images))
    median = np.median([len(labels) for _, labels in images if len(labels)])
    for name, part in (
        ("crowded", [pair for pair in images if len(pair[1]) > median]),
        ("sparse", [pair for pair in images if len(pair[1]) <= median]),
    ):
        assert (parts[name].images, f"{median:g} labels" in parts[name].rule) == (len(part), True)
        np.testing.assert_allclose((parts[name].map50, parts[name].map), figures(cocoeval(part, 3)), atol=1e-9)
    assert sum(parts[name].images for name in ("crowded", "sparse")) == len(images)


def test_share_of_a_box_within_another():
    boxes = np.array([square(0, 10), square(5, 10), [0, 0, 100, 100], square(200, 10), [7, 7, 7, 7]], np.float32)
    np.testing.assert_allclose(covered_share(boxes), [1, 1, 0.01, 0, 0])
    np.testing.assert_allclose(covered_share(boxes[:2]), [0.5, 0.5])
    assert covered_share(boxes[:0]).shape == (0,)


def test_a_detection_of_another_part_does_not_count():
    labels = np.array([[0, *square(0, 20)], [0, *square(100, 60)]], np.float32)
    found = np.array([square(100, 60, 0.9, 0), square(0, 20, 0.8, 0), square(300, 50, 0.7, 0)], np.float32)
    parts = by_name(records_of([(found, labels)]))
    assert (parts["small"].instances, parts["small"].map) == (1, 1)
    assert (parts["medium"].instances, parts["medium"].map) == (1, 1)
    wrong_first = found[[2, 0, 1]].copy()
    wrong_first[:, 4] = [0.9, 0.8, 0.7]  # a false one of medium size harms medium alone
    parts = by_name(records_of([(wrong_first, labels)]))
    assert (parts["small"].map, parts["medium"].map) == (1, 0.5)


def test_a_label_on_the_limit_is_of_both_sizes():
    parts = by_name(records_of([(NOTHING, np.array([[0, *square(0, 32)]], np.float32))]))
    assert [parts[name].instances for name in SIZES] == [1, 1, 0]


@pytest.mark.parametrize(
    "images",
    [
        [],
        [(NOTHING, NO_LABEL)],
        [(np.array([square(0, 9, 0.5, 0)], np.float32), NO_LABEL)],
        [(NOTHING, np.array([[0, *square(0, 9)]], np.float32))],
    ],
)
def test_nothing_to_measure(images):
    parts = measure_slices(records_of(images))
    assert [part.name for part in parts] == ["small", "medium", "large", "crowded", "sparse", "occluded", "free"]
    for part in parts:
        assert (part.map50, part.map) == ((0, 0) if part.instances else (None, None))
    labelled = [part.name for part in parts if part.instances]
    assert labelled == (["small", "sparse", "free"] if images and len(images[0][1]) else [])


def test_a_label_that_does_not_count_is_taken_last():
    labels = np.array([[0, *square(0, 10)], [0, *square(2, 10)]], np.float32)
    found = np.array([square(0, 10, 0.9, 0), square(0, 10, 0.8, 0), square(0, 10, 0.7, 0)], np.float32)
    right, excused = match_views(found, labels, np.array([[True, False]]), np.array([0.5]))
    assert right[:, 0, 0].tolist() == [True, False, False]  # takes the worse one, which counts
    assert excused[:, 0, 0].tolist() == [False, True, False]


def in_turn(found, labels, ignored, threshold):
    """COCO's rule written plainly, for one view at one threshold: per detection 1 right, -1 excused, 0 wrong."""
    overlap = box_iou(found[:, :4].astype(float), labels[:, 1:].astype(float), eps=0)
    free, verdict = set(range(len(labels))), np.zeros(len(found), int)
    for detection in np.argsort(-found[:, 4], kind="stable"):
        fits = [
            (not ignored[label], overlap[detection, label], label)
            for label in free
            if labels[label, 0] == found[detection, 5] and overlap[detection, label] >= threshold
        ]
        if fits:
            counts, _, label = max(fits)
            free.remove(label)
            verdict[detection] = 1 if counts else -1
    return verdict


@pytest.mark.parametrize("spread", [0.0, 2.0, 40.0])  # from labels in one heap to labels that hardly meet
@pytest.mark.parametrize("ties", [False, True])
def test_choosing_in_rounds_is_choosing_in_turn(spread, ties):
    draw = np.random.default_rng(5)
    corner = draw.normal(0, spread + 1, (12, 2))
    box = np.concatenate([corner, corner + 30], 1)
    labels = np.concatenate([draw.integers(0, 2, (12, 1)), box], 1)
    chosen = draw.integers(0, 12, 80)
    near = box[chosen] + draw.normal(0, 2, (80, 4))
    found = np.concatenate([near, draw.random((80, 1)), labels[chosen, :1]], 1)
    if ties:
        labels, found = labels.round(), found.round()
    ignored = draw.random((3, 12)) < 0.5
    thresholds = np.array([0.5, 0.7, 0.9])
    right, excused = match_views(found, labels, ignored, thresholds)
    for view, threshold in np.ndindex(3, 3):
        verdict = in_turn(found, labels, ignored[view], thresholds[threshold])
        np.testing.assert_array_equal(right[:, view, threshold].astype(int) - excused[:, view, threshold], verdict)
