"""Matching, average precision, confusion matrix, fitness and the totals of a validation run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from golden_formulas import as_f32, assert_golden, check_numbers, generator, golden_arrays, golden_json, uniform
from utils.average_precision import coco_envelope
from utils.metrics import (
    ConfusionMatrix,
    DetectionMetrics,
    ap_per_class,
    coco_ap,
    compute_ap,
    fitness,
    match_predictions,
    precision_recall,
    process_batch,
    smooth,
)

IOUV = torch.linspace(0.5, 0.95, 10)


def detections_and_labels(text: str, labels=12, extra=10, nc=5, size=320, jitter=8.0):
    draw = generator(text)
    extent = draw.uniform(24, 120, (labels, 2))
    corner = draw.uniform(0, 1, (labels, 2)) * (size - extent)
    box = np.concatenate([corner, corner + extent], 1)
    kind = draw.integers(0, nc, labels)
    near = box + draw.normal(0, jitter / 2, (labels, 4))
    nearish = box + draw.normal(0, jitter, (labels, 4))
    other = np.where(draw.random(labels) < 0.5, kind, draw.integers(0, nc, labels))
    stray_extent = draw.uniform(24, 120, (extra, 2))
    stray_corner = draw.uniform(0, 1, (extra, 2)) * (size - stray_extent)
    stray = np.concatenate([stray_corner, stray_corner + stray_extent], 1)
    stray_kind = draw.integers(0, nc, extra)
    count = 2 * labels + extra
    confidence = np.sort((draw.permutation(count) + 0.5) / count)[::-1]
    order = draw.permutation(count)
    found = np.concatenate([near, nearish, stray])[order]
    found_kind = np.concatenate([kind, other, stray_kind])[order]
    detections = as_f32(np.concatenate([found, confidence[:, None], found_kind[:, None]], 1))
    return torch.from_numpy(detections), torch.from_numpy(as_f32(np.concatenate([kind[:, None], box], 1)))


def statistics(text: str, n=400, labels=300, nc=5, thresholds=10):
    draw = generator(text)
    confidence = as_f32((draw.permutation(n) + 0.5) / n)
    predicted = draw.integers(0, nc, n).astype(np.float32)
    quality = draw.random(n)
    tp = quality[:, None] > 0.45 + 0.05 * np.arange(thresholds)
    return tp, confidence, predicted, draw.integers(0, nc, labels).astype(np.float32)


def box(x: float, width: float = 10, *rest: float) -> list[float]:
    """A box of height 10 that begins at x."""
    return [x, 0, x + width, 10, *rest]


# Matching


@pytest.mark.parametrize("rule", [process_batch, match_predictions])
@pytest.mark.parametrize(("found", "wanted"), [(0, 0), (0, 3), (3, 0)])
def test_nothing_matches_nothing(rule, found, wanted):
    correct = rule(torch.rand(found, 6), torch.rand(wanted, 5), IOUV)
    assert correct.dtype == torch.bool
    assert correct.shape == (found, 10)
    assert not correct.any()


@pytest.mark.parametrize("rule", [process_batch, match_predictions])
@pytest.mark.parametrize(
    ("found", "wanted", "passed"),
    [
        ([box(0, 10, 0.9, 0)], [[0, *box(0)]], [10]),  # exact
        ([box(0, 10, 0.9, 1)], [[0, *box(0)]], [0]),  # another class
        ([box(0, 5, 0.9, 0)], [[0, *box(0)]], [1]),  # IoU exactly 0.50
        ([box(0, 8, 0.9, 0), box(0, 10, 0.8, 0)], [[0, *box(0)]], [7, 3]),  # IoU exactly 0.80, the next for the rest
        ([box(0, 10, 0.9, 0), box(0, 10, 0.8, 0)], [[0, *box(0)]], [10, 0]),  # a label counts once
    ],
)
def test_matching_by_hand(rule, found, wanted, passed):
    assert rule(torch.tensor(found), torch.tensor(wanted), IOUV).sum(1).tolist() == passed


def test_a_late_claimant_tries_another_label_only_by_cocos_rule():
    labels = torch.tensor([[0, *box(0)], [0, *box(2)]])
    found = torch.tensor([box(0.5, 10, 0.9, 0), box(0.9, 10, 0.8, 0)])  # both overlap the first label more
    assert process_batch(found, labels, IOUV[:1]).tolist() == [[True], [False]]
    assert match_predictions(found, labels, IOUV[:1]).tolist() == [[True], [True]]


def test_of_two_labels_as_near_the_later_one_is_taken():
    labels = torch.tensor([[0, *box(0)], [0, *box(5)]])
    found = torch.tensor([box(2.5, 10, 0.9, 0), box(5, 10, 0.8, 0)])  # the first takes what the second is made for
    assert match_predictions(found, labels, IOUV[:1]).tolist() == [[True], [False]]
    assert match_predictions(found, labels.flip(0), IOUV[:1]).tolist() == [[True], [True]]


def test_float64_thresholds_are_taken_to_the_last_bit():
    found, labels = torch.tensor([box(0, 7, 0.9, 0)]), torch.tensor([[0, *box(0)]])
    overlap = 70 / 100
    assert match_predictions(found, labels, np.array([overlap, np.nextafter(overlap, 1)])).tolist() == [[True, False]]


def test_cocos_rule_goes_by_confidence_whatever_the_order_of_rows():
    found, labels = detections_and_labels("order", jitter=20.0, nc=2)
    shuffled = torch.from_numpy(np.random.default_rng(3).permutation(len(found)))
    torch.testing.assert_close(match_predictions(found[shuffled], labels), match_predictions(found, labels)[shuffled])


@pytest.mark.golden
@pytest.mark.parametrize("index", range(3))
def test_golden_matching(index):
    case = golden_json("metrics")["match"][index]
    found, labels = detections_and_labels(
        case["input"], case["labels"], case["extra"], case["nc"], jitter=case.get("jitter", 8.0)
    )
    np.testing.assert_allclose(check_numbers(found.numpy()), case["det_check"])
    correct = process_batch(found, labels, IOUV)
    np.testing.assert_array_equal(correct.numpy(), golden_arrays("metrics")[f"{case['name']}.correct"])
    assert int(correct.sum()) == case["correct_sum"]


# Average precision


def test_cocos_average_precision_by_hand():
    recall, precision = np.array([[0.5], [0.5], [1.0]]), np.array([[1.0], [0.5], [2 / 3]])
    np.testing.assert_allclose(coco_ap(recall, precision), [(51 * 1 + 50 * 2 / 3) / 101])  # recalls 0 to 0.5, then on
    np.testing.assert_allclose(coco_ap(recall[:1], precision[:1]), [51 / 101])  # never reached: 0
    curve = coco_envelope(recall[:, 0], precision[:, 0], np.linspace(0, 1, 101))
    np.testing.assert_allclose(curve.mean(), coco_ap(recall, precision)[0])  # what is drawn is what is measured
    assert coco_envelope(recall[:1, 0], precision[:1, 0], np.array([0.5, 0.51])).tolist() == [1, 0]
    np.testing.assert_allclose(coco_ap(recall[:0], precision[:0]), [0])
    np.testing.assert_allclose(coco_ap(np.ones((1, 2)), np.ones((1, 2))), [1, 1])


def test_area_under_a_curve_by_hand():
    area, envelope, reached = compute_ap(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3]))
    np.testing.assert_allclose(envelope, [1, 1, 2 / 3, 2 / 3, 0])
    np.testing.assert_allclose(reached, [0, 0.5, 0.5, 1, 1])
    # 1 up to recall 0.5, then 2/3, joined by straight lines one hundredth wide; at recall 1 the curve ends at 0.
    np.testing.assert_allclose(area, (50 * 1 - (1 - 2 / 3) / 2 + 50 * 2 / 3 - (2 / 3) / 2) / 100)


def test_no_statistics_give_empty_results():
    found = ap_per_class(np.zeros((0, 10), bool), np.zeros(0), np.zeros(0), np.zeros(0))
    assert [len(part) for part in found] == [0] * 7


def test_perfect_detections_score_one():
    tp, classes = np.ones((4, 10), bool), np.array([0, 0, 2, 2])
    right, wrong, p, r, f1, ap, kinds = ap_per_class(tp, np.array([0.9, 0.8, 0.7, 0.6]), classes, classes)
    np.testing.assert_allclose([p, r, f1], np.ones((3, 2)))
    np.testing.assert_allclose(ap, np.full((2, 10), 0.995))  # the last hundredth falls to 0
    np.testing.assert_array_equal([right, wrong, kinds], [[2, 2], [0, 0], [0, 2]])


def test_one_class_at_a_time_precision_and_recall_by_hand():
    tp = np.array([[True], [False], [True], [False]])
    curves = precision_recall(tp, np.array([0.9, 0.7, 0.5, 0.3]), np.zeros(4), np.zeros(4))
    at = (curves.confidence[:, None] >= np.array([0.901, 0.7, 0.5, 0.3])).argmax(0)
    np.testing.assert_allclose(curves.p[0, at], [1, 1 / 2, 2 / 3, 1 / 2], atol=0.01)
    np.testing.assert_allclose(curves.r[0, at], [0, 1 / 4, 1 / 2, 1 / 2], atol=0.01)


def test_curves_are_drawn_when_asked(tmp_path):
    tp, confidence, predicted, true = statistics("drawn", 60, 40, 3)
    ap_per_class(tp, confidence, predicted, true, plot=True, save_dir=tmp_path, names={0: "a", 1: "b", 2: "c"})
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == ["F1_curve.png", "PR_curve.png", "P_curve.png", "R_curve.png"]


@pytest.mark.golden
@pytest.mark.parametrize("index", range(2))
def test_golden_average_precision(index):
    case = golden_json("metrics")["ap"][index]
    tp, confidence, predicted, true = statistics(case["stats"], case["n"], case["labels"], case["nc"])
    kept = ~np.isin(predicted, case.get("drop_predicted", []))
    tp, confidence, predicted = tp[kept], confidence[kept], predicted[kept]
    true = true[~np.isin(true, case.get("drop_labelled", []))]
    np.testing.assert_allclose(check_numbers(confidence), case["conf_check"])
    assert int(tp.sum()) == case["tp_sum"]
    found = ap_per_class(tp, confidence, predicted, true)
    for name, value in zip(("tp", "fp", "p", "r", "f1", "ap", "classes"), found, strict=True):
        assert_golden(value, golden_arrays("metrics")[f"{case['name']}.{name}"], tol=1e-5)
    assert precision_recall(tp, confidence, predicted, true).best == case["best_index"]


@pytest.mark.golden
def test_golden_smoothing():
    case = golden_json("metrics")["smooth"]
    want = next(value for key, value in golden_arrays("metrics").items() if key.startswith("smooth"))
    assert_golden(smooth(uniform(case["curve"], (1000,)), case["fraction"]), want, tol=1e-5)


@pytest.mark.golden
def test_golden_fitness():
    scores = uniform(golden_json("metrics")["fitness"]["scores"], (6, 7))
    want = next(value for key, value in golden_arrays("metrics").items() if key.startswith("fitness"))
    assert_golden(fitness(scores), want, tol=1e-6)


# Confusion matrix


def test_confusion_by_hand():
    matrix = ConfusionMatrix(nc=2)
    labels = torch.tensor([[0, *box(0)], [1, *box(100)], [1, *box(200)]])
    found = torch.tensor(
        [
            box(0, 10, 0.9, 0),  # right
            box(1, 10, 0.8, 1),  # a second one on the same label: made up
            box(101, 10, 0.7, 0),  # right place, wrong class
            box(200, 10, 0.2, 1),  # not confident: its label is missed
        ]
    )
    matrix.process_batch(found, labels)
    np.testing.assert_array_equal(matrix.matrix, [[1, 1, 0], [0, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(matrix.tp_fp(), [[1, 0], [1, 1]])


@pytest.mark.parametrize("labels", [torch.zeros(0, 5), torch.tensor([[1, *box(500)]])])
def test_false_positives_count_on_images_where_nothing_matches(labels):
    matrix = ConfusionMatrix(nc=2)
    matrix.process_batch(torch.tensor([box(0, 10, 0.9, 0), box(50, 10, 0.9, 1)]), labels)
    assert matrix.matrix[:, 2].tolist() == [1, 1, 0]
    assert matrix.matrix[2].tolist() == [0, len(labels), 0]


def test_confusion_is_printed_and_drawn(tmp_path, caplog):
    matrix = ConfusionMatrix(nc=2)
    matrix.process_batch(None, torch.tensor([0.0, 0.0, 1.0]))
    with caplog.at_level("INFO", logger="yolov5"):
        matrix.print()
    assert [record.message for record in caplog.records] == ["0 0 0", "0 0 0", "2 1 0"]
    matrix.plot(save_dir=tmp_path, names=["a", "b"])
    assert (tmp_path / "confusion_matrix.png").stat().st_size > 0


@pytest.mark.golden
def test_golden_confusion():
    case, want = golden_json("metrics")["confusion"], golden_arrays("metrics")
    matrix = ConfusionMatrix(case["nc"], case["conf"], case["iou_thres"])
    for index, step in enumerate(case["steps"]):
        found, labels = detections_and_labels(step["input"], step["labels"], step["extra"], case["nc"], jitter=14)
        np.testing.assert_allclose(check_numbers(found.numpy()), step["det_check"])
        matrix.process_batch(found, labels)
        np.testing.assert_array_equal(matrix.matrix, want[f"confusion.step{index}"])
    matrix.process_batch(None, labels[:, 0])
    np.testing.assert_array_equal(matrix.matrix, want["confusion.step2_no_detections"])


# A validation run


@pytest.mark.parametrize(
    "images",
    [
        [],  # no image at all
        [(torch.zeros(0, 6), torch.zeros(0, 5))],  # nothing on it
        [(torch.zeros(0, 6), torch.tensor([[1, *box(0)]]))],  # nothing found
        [(torch.tensor([box(0, 10, 0.9, 0)]), torch.zeros(0, 5))],  # nothing to find
        [(torch.tensor([box(0, 10, 0.9, 0)]), torch.tensor([[1, *box(0)]]))],  # nothing right
    ],
)
def test_without_right_detections_everything_is_zero(images):
    metrics = DetectionMetrics(nc=3, names={0: "a", 1: "b", 2: "c"})
    for found, labels in images:
        metrics.update(found, labels)
    result = metrics.compute()
    assert (result.mp, result.mr, result.map50, result.map) == (0, 0, 0, 0)
    assert result.curves is None
    np.testing.assert_array_equal(result.maps, np.zeros(3))
    assert result.ap.shape == (len(result.ap_class), 10)
    assert result.images == len(images)
    assert result.instances.sum() == sum(len(labels) for _, labels in images)


def test_totals_by_hand():
    metrics = DetectionMetrics(nc=4, names=["a", "b", "c", "d"])
    metrics.update(torch.tensor([box(0, 10, 0.9, 1)]), torch.tensor([[1, *box(0)], [1, *box(50)]]))
    metrics.update(torch.tensor([box(0, 10, 0.8, 1), box(50, 10, 0.7, 3)]), torch.tensor([[3, *box(50)]]))
    result = metrics.compute()
    assert result.ap_class.tolist() == [1, 3]
    assert result.instances.tolist() == [0, 2, 0, 1]
    assert result.images_with_class.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(result.maps, [result.map, result.ap[0].mean(), result.map, result.ap[1].mean()])
    np.testing.assert_allclose(result.ap[1], 1.0)
    np.testing.assert_allclose(result.map50, result.ap[:, 0].mean())
    assert result.curves.p_of_recall.shape == (2, 1000)
    metrics.reset()
    assert metrics.compute().images == 0
