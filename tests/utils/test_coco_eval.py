"""Our average precision is that of pycocotools, and pycocotools as we call it is that of pycocotools called by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from coco_oracle import cocoeval, crowded_images, figures, records_of

from utils.coco_eval import CocoFigures, coco_figures, coco_figures_of_files
from utils.matching import match_predictions, process_batch
from utils.metrics import IOU_THRESHOLDS, DetectionMetrics
from utils.slices import SIZES

VARIANTS = [{}, {"ties": True}, {"whole": True}, {"whole": True, "ties": True}]


@pytest.fixture(scope="module", params=VARIANTS, ids=["plain", "ties", "whole", "whole-ties"])
def images(request):
    return crowded_images(**request.param)


@pytest.fixture(scope="module")
def records(images):
    return records_of(images)


@pytest.fixture(scope="module")
def evaluation(images):
    return cocoeval(images, nc=3, areas=[(0, 1e10), *SIZES.values()])


def test_the_mean_is_pycocotools(records, evaluation):
    metrics = DetectionMetrics(nc=3)
    metrics.records = records
    result = metrics.compute()
    want = evaluation.eval["precision"][:, :, :, 0, 0].mean(1)  # (10 thresholds, classes)
    assert 0.1 < want.mean() < 0.9  # the data tell something
    np.testing.assert_allclose(result.ap.T, want, atol=1e-9)
    np.testing.assert_allclose((result.map50, result.map), figures(evaluation), atol=1e-9)
    np.testing.assert_allclose(result.curves.ap, result.ap)


def test_matching_is_pycocotools_detection_by_detection(images, evaluation):
    late = 0
    for entry in filter(None, evaluation.evalImgs):
        if entry["aRng"] != [0, 1e10]:
            continue
        found, labels = map(torch.from_numpy, images[entry["image_id"]])
        mine = found[found[:, 5] == entry["category_id"]]
        mine = mine[mine[:, 4].argsort(descending=True, stable=True)]
        correct = match_predictions(mine, labels)
        np.testing.assert_array_equal(correct.numpy().T, entry["dtMatches"] > 0)
        late += int((correct ^ process_batch(mine, labels, torch.from_numpy(IOU_THRESHOLDS))).sum())
    assert late > 0  # the images tell COCO's rule from YOLOv5's


def test_called_from_records_it_says_the_same_and_prints_nothing(records, evaluation, capsys):
    found = coco_figures(records, nc=3, max_det=10_000)
    assert capsys.readouterr() == ("", "")
    np.testing.assert_allclose((found.map50, found.map), figures(evaluation), atol=1e-12)
    sizes = [figures(evaluation, area)[1] for area in (1, 2, 3)]
    np.testing.assert_allclose((found.small, found.medium, found.large), sizes, atol=1e-12)


def test_the_number_of_detections_counts():
    images = crowded_images(ties=True)
    few = coco_figures(records_of(images), nc=3, max_det=3)
    assert (few.map50, few.map) == pytest.approx(figures(cocoeval(images, nc=3, max_det=3)), abs=1e-12)
    assert few.map50 < coco_figures(records_of(images), nc=3).map50


NOTHING, LABEL = np.zeros((0, 6), np.float32), np.array([[1, 0, 0, 200, 200]], np.float32)
FOUND = np.array([[0, 0, 200, 200, 0.9, 1]], np.float32)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([], CocoFigures()),
        ([(NOTHING, LABEL)], CocoFigures()),
        ([(FOUND, LABEL[:0])], CocoFigures()),
        ([(NOTHING, LABEL), (FOUND, LABEL[:0])], CocoFigures(large=0.0)),
        ([(FOUND, LABEL)], CocoFigures(1.0, 1.0, large=1.0)),
    ],
)
def test_without_labels_or_detections_there_are_zeros(images, expected):
    found = coco_figures(records_of(images), nc=2)
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(expected))


def test_cocos_own_files(tmp_path, caplog, capsys):
    truth = {"images": [{"id": 7}], "categories": [{"id": 1}], "info": {}}
    truth["annotations"] = [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "none.json").write_text("[]")
    (tmp_path / "found.json").write_text(
        json.dumps([{"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 6], "score": 0.5}])
    )
    assert coco_figures_of_files(tmp_path / "truth.json", tmp_path / "none.json", [7]) == (0, 0)
    with caplog.at_level("INFO", logger="yolov5"):
        found = coco_figures_of_files(tmp_path / "truth.json", tmp_path / "found.json", [7])
    assert found == pytest.approx((0.4, 1.0))  # IoU 2/3: right at four of ten thresholds
    assert "Average Precision" in caplog.text
    assert capsys.readouterr().out == ""
