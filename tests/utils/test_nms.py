"""Non-maximum suppression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from golden_formulas import as_f32, assert_golden, check_numbers, generator, golden_arrays, golden_json
from utils import nms as suppression
from utils.errors import OptionError
from utils.nms import non_max_suppression


def clustered_prediction(text: str, count: int, classes: int, clusters: int = 40, batch: int = 1) -> np.ndarray:
    images = []
    for image in range(batch):
        draw = generator(f"{text}:{image}")
        centre = draw.integers(400, 4 * 640 - 400, (clusters, 2))
        half = draw.integers(48, 241, (clusters, 2))
        member = np.arange(count) % clusters
        middle = (centre[member] + draw.integers(-36, 37, (count, 2))) / 4
        extent = np.maximum(half[member] + draw.integers(-24, 25, (count, 2)), 16) / 2
        objectness = draw.random(count)
        scores = 0.6 * draw.random((count, classes))
        scores[np.arange(count), member % classes] += 0.4 * draw.random(count)
        images.append(np.concatenate([middle, extent, objectness[:, None], scores], 1))
    return as_f32(np.stack(images))


def row(x: float, y: float, w: float, h: float, objectness: float, *scores: float) -> list[float]:
    return [x, y, w, h, objectness, *scores]


@pytest.mark.parametrize("shape", [(0, 0, 7), (2, 0, 7), (1, 5, 7)])
def test_nothing_in_or_nothing_confident_gives_empty_results(shape):
    found = non_max_suppression(torch.zeros(shape))
    assert [tuple(image.shape) for image in found] == [(0, 6)] * shape[0]


def test_by_hand_overlap_classes_and_order():
    prediction = torch.tensor(
        [
            [
                row(50, 50, 20, 20, 0.9, 0.5, 0.1),
                row(51, 50, 20, 20, 0.8, 0.9, 0.1),  # overlaps the first, higher score
                row(50, 50, 20, 20, 0.7, 0.1, 0.9),  # same place, other class
                row(90, 90, 10, 10, 0.2, 1.0, 0.0),  # not confident
            ]
        ]
    )
    (found,) = non_max_suppression(prediction)
    want = [[41, 40, 61, 60, 0.72, 0], [40, 40, 60, 60, 0.63, 1]]
    torch.testing.assert_close(found, torch.tensor(want))
    (merged,) = non_max_suppression(prediction, agnostic=True)
    torch.testing.assert_close(merged, torch.tensor(want[:1]))


def test_one_box_stands_for_several_classes_only_when_asked():
    prediction = torch.tensor([[row(50, 50, 20, 20, 1.0, 0.5, 0.6, 0.1)]])
    assert non_max_suppression(prediction)[0][:, 5].tolist() == [1]
    assert non_max_suppression(prediction, multi_label=True)[0][:, 5].tolist() == [1, 0]
    assert non_max_suppression(prediction, multi_label=True, classes=[0, 2, 99])[0][:, 5].tolist() == [0]
    assert non_max_suppression(prediction, classes=[0])[0].shape == (0, 6)  # the best class is another


def test_labels_join_with_score_one_and_beat_what_overlaps_them():
    prediction = torch.tensor([[row(50, 50, 20, 20, 0.9, 0.1, 0.9)], [row(10, 10, 5, 5, 0.9, 0.1, 0.9)]])
    first, second = non_max_suppression(prediction, labels=[torch.tensor([[1.0, 51, 50, 20, 20]]), torch.zeros(0, 5)])
    torch.testing.assert_close(first, torch.tensor([[41.0, 40, 61, 60, 1, 1]]))
    torch.testing.assert_close(second[:, 4], torch.tensor([0.81]))


def test_extra_columns_pass_through_and_lists_are_unwrapped():
    prediction = torch.tensor([[[*row(50, 50, 20, 20, 1.0, 0.5, 0.6), 7.0, 8.0]]])
    (found,) = non_max_suppression([prediction, "raw levels"], nm=2)
    torch.testing.assert_close(found, torch.tensor([[40, 40, 60, 60, 0.6, 1, 7.0, 8.0]]))


def test_half_precision_keeps_far_classes_apart():
    prediction = torch.tensor([[row(50, 50, 20, 20, 1.0, *[0.9] * 20)]]).half()
    assert len(non_max_suppression(prediction, multi_label=True)[0]) == 20


@pytest.mark.parametrize("wrong", [{"conf_thres": -0.1}, {"conf_thres": 25}, {"iou_thres": 1.5}])
def test_thresholds_outside_their_range_are_refused(wrong):
    with pytest.raises(OptionError, match=r"expected a number from 0 to 1"):
        non_max_suppression(torch.zeros(1, 1, 6), **wrong)


def all_at_once(rows, conf_thres, iou_thres, multi_label, agnostic, max_det):
    """What is found on an image, written plainly: every candidate is compared with every other."""
    rows = rows[rows[:, 4] > conf_thres]
    scores = rows[:, 5:] * rows[:, 4:5]
    counts = scores > conf_thres
    if not multi_label:
        counts &= torch.arange(scores.shape[1]) == scores.argmax(1, keepdim=True)
    source, kind = counts.nonzero(as_tuple=True)
    centre, half = rows[source, :2], rows[source, 2:4] / 2
    boxes, score = torch.cat([centre - half, centre + half], 1), scores[source, kind]
    keep = nms(boxes + (0 if agnostic else kind[:, None] * 7680.0), score, iou_thres)[:max_det]
    return torch.cat([boxes, score[:, None], kind[:, None].float()], 1)[keep]


@pytest.mark.parametrize("max_det", [0, 1, 50, 300, 9000])
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize(
    ("classes", "rows", "multi_label"), [(1, 900, False), (3, 900, False), (3, 700, True), (80, 20, True)]
)
@pytest.mark.parametrize("ties", [False, True])
def test_sparing_comparisons_changes_nothing(ties, classes, rows, multi_label, agnostic, max_det):
    prediction = torch.from_numpy(clustered_prediction("spare", rows, classes, clusters=90, batch=4))
    if ties:
        prediction[..., 4:] = (prediction[..., 4:] * 8).round() / 8
    prediction[1, :, 4] = 0  # nothing on it
    prediction[2, 9:, 4] = 0  # unlike the image before
    settings = {"conf_thres": 0.001, "iou_thres": 0.6, "agnostic": agnostic, "max_det": max_det}
    found = non_max_suppression(prediction, **settings, multi_label=multi_label)
    for image, predicted in zip(found, prediction, strict=True):
        expected = all_at_once(predicted, **settings, multi_label=multi_label)
        torch.testing.assert_close(image, expected, rtol=0, atol=0)


def test_only_the_best_candidates_are_let_in(monkeypatch):
    monkeypatch.setattr(suppression, "MAX_CANDIDATES", 3)
    rows = [row(20 * index, 50, 5, 5, 1.0, 0.3 + index / 100) for index in range(10)]
    (found,) = non_max_suppression(torch.tensor([rows]))
    torch.testing.assert_close(found[:, 4], torch.tensor([0.39, 0.38, 0.37]))


@pytest.mark.golden
@pytest.mark.parametrize("name", list(golden_json("nms")["cases"]))
def test_golden(name):
    case = golden_json("nms")["cases"][name]
    prediction = clustered_prediction(case["input"], case["n"], case["nc"], batch=case.get("batch", 1))
    for image in case.get("silent", []):
        prediction[image, :, 4] = 0.01
    np.testing.assert_allclose(check_numbers(prediction), case["input_check"])
    found = non_max_suppression(torch.from_numpy(prediction), **case["kw"])
    assert [len(image) for image in found] == case["kept"]
    for index, image in enumerate(found):
        assert_golden(image, golden_arrays("nms")[f"{name}.image{index}"])
