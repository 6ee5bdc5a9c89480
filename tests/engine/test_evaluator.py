"""Evaluation: exact answers for known detectors, nothing changed by it, and the writers that observe it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_dataset import NAMES, make_dataset
from torch import nn

from engine.evaluator import Thresholds, evaluate
from engine.results import coco_line, evaluation_header, evaluation_table, slice_table, write_slices
from engine.val_outputs import COCO_CATEGORY_IDS, CocoJson, LabelFiles, is_coco
from models.yolo import DetectionModel
from utils.boxes import xyxy2xywh
from utils.coco_eval import CocoFigures
from utils.datasets.batching import create_dataloader
from utils.datasets.config import check_dataset
from utils.network_input import to_network
from utils.nms import non_max_suppression
from utils.slices import SliceResult

CPU = torch.device("cpu")


class Oracle(nn.Module):
    """Predicts the labels of the batches it will be shown, class by class, at a given confidence."""

    def __init__(self, loader, nc: int = 2, confidence: float = 0.9, shift: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.answers, self.names, self.stride = [], dict(NAMES), torch.tensor([32])
        for images, targets, _, _ in loader:
            count, _, height, width = images.shape
            rows = torch.zeros(count, 4, 5 + nc)
            for number in range(count):
                own = targets[targets[:, 0] == number]
                rows[number, : len(own), :4] = own[:, 2:] * torch.tensor([width, height, width, height]) + shift
                rows[number, : len(own), 4] = 1.0
                rows[number, range(len(own)), 5 + own[:, 1].long()] = confidence
            self.answers.append(rows)
        self.calls = 0

    def forward(self, images: torch.Tensor):
        self.calls += 1
        return self.answers[(self.calls - 1) % len(self.answers)], None


class Cells(nn.Module):
    """Finds the coloured boxes on a grid of cells, so that its answer depends on where the padding puts an image."""

    def __init__(self, side: int = 12) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        cells = nn.functional.avg_pool2d(images, self.side)
        return torch.stack([self._rows(red - green) for red, green, _ in cells])

    def _rows(self, difference: torch.Tensor) -> torch.Tensor:
        """(2, 7), a row for each class."""
        rows = torch.zeros(2, 7)
        for kind, strength in enumerate((difference, -difference)):
            place = (strength > 0.2).nonzero()
            if len(place):
                low, high = place.min(0).values.flip(0) * self.side, (place.max(0).values.flip(0) + 1) * self.side
                rows[kind, :4] = torch.cat([(low + high) / 2, (high - low).float()])
                rows[kind, 4], rows[kind, 5 + kind] = 1, strength.max()
        return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("tiny") / "set")


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("tiny") / "set", labelled_val=False)


def val_loader(file, **settings):
    return create_dataloader(
        check_dataset(file)["val"], 64, 2, 32, pad=0.5, rect=True, workers=0, prefix="val: ", **settings
    )[0]


def measure(model, loader, **settings):
    return evaluate(model, loader, device=CPU, nc=2, names=NAMES, **settings)


# Figures -------------------------------------------------------------------------------------------------------------


def test_no_labels_give_zeros_and_a_note(unlabelled):
    model = DetectionModel("yolov5n.yaml", nc=2)
    result = measure(model, val_loader(unlabelled), confusion=True, coco=True, slices=True)
    assert result.coco == CocoFigures()
    assert {(part.instances, part.map50, part.map) for part in result.slices} == {(0, None, None)}
    assert result.summary == (0,) * 7
    assert result.metrics.maps.tolist() == [0, 0]
    assert "no labels" in result.notes[0]
    assert evaluation_table(result, NAMES) == [f"{'all':>22}{4:>11}{0:>11}" + f"{0:>11}" * 4]


def test_no_images_give_zeros_and_a_note():
    result = measure(nn.Identity(), [], confusion=True, coco=True, slices=True)
    assert result.coco == CocoFigures()
    assert len(result.slices) == 7
    assert result.summary == (0,) * 7
    assert result.speed_ms == (0, 0, 0)
    assert "no image" in result.notes[0]


def test_no_predictions_give_zeros_and_a_note(data):
    loader = val_loader(data)
    result = measure(Oracle(loader, confidence=0.0), loader, confusion=True, coco=True, slices=True)
    assert result.summary == (0,) * 7
    assert (result.coco.map50, result.coco.map) == (0, 0)
    assert {part.map for part in result.slices} == {0, None}
    assert result.notes == ["nothing was found above confidence 0.001: all figures are 0"]
    assert result.metrics.instances.sum() > 0
    assert len(evaluation_table(result, NAMES)) == 3


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_perfect_detector_is_perfect_whatever_the_batch(data, batch):
    loader = create_dataloader(check_dataset(data)["val"], 64, batch, 32, pad=0.5, rect=True, workers=0)[0]
    result = measure(Oracle(loader), loader, confusion=True)
    np.testing.assert_allclose(result.summary[:4], 1.0, atol=0.01)
    assert result.images == 4
    matrix = result.confusion.matrix
    assert matrix.diagonal()[:2].sum() == matrix.sum() == result.metrics.instances.sum()


def test_figures_do_not_depend_on_batches_and_workers(tmp_path):
    images = check_dataset(make_dataset(tmp_path / "set", train=1, val=9))["val"]

    def summary(batch: int, workers: int = 0, **shape) -> tuple[float, ...]:
        return measure(Cells(), create_dataloader(images, 64, batch, 32, workers=workers, **shape)[0]).summary

    own_rectangle = {"rect": True, "pad": 0.5}
    alone = summary(1, **own_rectangle)
    assert 0.1 < alone[3] < 0.9
    assert summary(1) != alone  # this detector notices other padding
    for batch, workers in ((2, 0), (9, 0), (4, 2)):
        assert summary(batch, workers, **own_rectangle) == alone


def test_figures_agree_with_pycocotools(data):
    loader = val_loader(data)
    for model in (Oracle(loader, shift=1.5), Cells()):
        result = measure(model, loader, coco=True)
        assert 0.1 < result.metrics.map < 0.95
        np.testing.assert_allclose(
            (result.metrics.map50, result.metrics.map), (result.coco.map50, result.coco.map), atol=1e-9
        )


def test_a_shifted_detector_is_right_at_low_iou_only(data):
    loader = val_loader(data)
    metrics = measure(Oracle(loader, shift=1.5), loader).metrics
    assert metrics.map50 > 0.99
    assert 0 < metrics.map < 0.9


def test_thresholds_and_single_class(data):
    loader = val_loader(data)
    assert measure(Oracle(loader, confidence=0.4), loader, thresholds=Thresholds(conf=0.5)).metrics.map == 0
    one = evaluate(
        Oracle(loader), val_loader(data, single_cls=True), device=CPU, nc=1, names={0: "item"}, single_cls=True
    )
    assert one.metrics.map50 > 0.99
    assert evaluation_table(one, {0: "item"}) == evaluation_table(one, {0: "item"}, every_class=True)
    # The same from a loader that knows of no single class.
    again = evaluate(Oracle(loader), loader, device=CPU, nc=1, names={0: "item"}, single_cls=True)
    assert again.summary == one.summary


def test_hybrid_labels_join_the_predictions(data):
    loader = val_loader(data)
    assert measure(Oracle(loader, confidence=0.0), loader, hybrid=True).metrics.map50 > 0.99


def test_loss_is_averaged_over_batches(data):
    loader = val_loader(data)
    seen = []

    def loss(levels, targets):
        seen.append(len(levels))
        return torch.zeros(1), torch.tensor([1.0, 2.0, float(len(seen))])

    result = measure(DetectionModel("yolov5n.yaml", nc=2), loader, compute_loss=loss)
    assert seen == [3] * len(loader)
    assert result.losses == (1, 2, sum(range(1, len(seen) + 1)) / len(seen))


def seen_detections(model, loader, **settings) -> list[torch.Tensor]:
    """What an evaluation finds, image by image, in px of the batches."""
    found: list[torch.Tensor] = []
    measure(model, loader, observers=[lambda batch: found.extend(batch.detections)], **settings)
    return found


def test_autocast_reaches_the_network(data):
    torch.manual_seed(3)
    model, loader = DetectionModel("yolov5n.yaml", nc=2), val_loader(data)
    exact, short = (torch.cat(seen_detections(model, loader, autocast=kind)) for kind in (None, torch.bfloat16))
    assert short.dtype == torch.float32
    assert exact.shape != short.shape or not torch.equal(exact, short)
    np.testing.assert_allclose(exact[0, 4], short[0, 4], rtol=0.05)


def test_augmentation_reaches_the_network(data):
    torch.manual_seed(3)
    model, loader = DetectionModel("yolov5n.yaml", nc=2).eval(), val_loader(data)
    found = seen_detections(model, loader, augment=True)
    with torch.no_grad():
        answers = [model(to_network(images, CPU), augment=True)[0] for images, *_ in loader]
    expected = [rows for answer in answers for rows in non_max_suppression(answer, 0.001, 0.6, multi_label=True)]
    assert sum(map(len, found)) > 0
    for rows, want in zip(found, expected, strict=True):
        torch.testing.assert_close(rows, want)
    plain = seen_detections(model, loader)
    assert any(rows.shape != want.shape or not torch.equal(rows, want) for rows, want in zip(found, plain, strict=True))


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_model_bit_identical(data, training, autocast):
    torch.manual_seed(3)
    model = DetectionModel("yolov5n.yaml", nc=2).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    buffers = {name: tensor.clone() for name, tensor in model.named_buffers()}
    measure(model, val_loader(data), autocast=autocast)
    assert model.training is training
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name]), name
    for name, tensor in model.named_buffers():
        assert torch.equal(tensor, buffers[name]), name
    levels = model.train()(torch.rand(2, 3, 64, 64))
    sum(level.sum() for level in levels).backward()  # what evaluation cached must not stand in training's way


def test_table_columns():
    assert evaluation_header() == "".join(
        [f"{'Class':>22}", *(f"{name:>11}" for name in ("Images", "Instances", "P", "R", "mAP50", "mAP50-95"))]
    )


def test_pycocotools_line(data):
    loader = val_loader(data)
    result = measure(Oracle(loader), loader)
    line = coco_line(CocoFigures(0.99, 1.0), result.metrics)
    assert line == (
        "pycocotools: mAP50 0.9900, mAP50-95 1.0000; ours: 1.0000, 1.0000; difference +1.00 and +0.00 points"
    )


def test_slices_as_a_table_and_a_file(tmp_path):
    parts = [
        SliceResult("size", "small", "area up to 32 x 32 px", 2, 3, 0.5, 0.123456789),
        SliceResult("size", "large", "area from 96 x 96 px", 0, 0, None, None),
    ]
    header, small, large = slice_table(parts)
    assert header.split() == ["Slice", "Images", "Instances", "mAP50", "mAP50-95"]
    assert small.split()[:5] == ["small", "2", "3", "0.5", "0.123"]
    assert large.split()[:5] == ["large", "0", "0", "-", "-"]
    write_slices(tmp_path / "slices.csv", parts)
    assert (tmp_path / "slices.csv").read_text() == (
        "group,slice,rule,images,instances,mAP50,mAP50-95\n"
        "size,small,area up to 32 x 32 px,2,3,0.5,0.123457\n"
        "size,large,area from 96 x 96 px,0,0,,\n"
    )
    assert slice_table([]) == []


# Files ---------------------------------------------------------------------------------------------------------------


class Batch:
    """As much of an evaluated batch as the writers read: one picture of 100 x 200 px."""

    def __init__(self, rows) -> None:
        self.paths, self.shapes_hw = ["/pictures/0007.jpg"], [(100, 200)]
        self.native = [torch.tensor(rows).reshape(-1, 6)]


def test_label_files(tmp_path):
    writer = LabelFiles(tmp_path / "labels")
    writer(Batch([]))
    assert not list((tmp_path / "labels").iterdir())
    row = [20.0, 10.0, 60.0, 40.0, 0.87654321, 1.0]
    writer(Batch([row]))
    writer(Batch([row]))
    assert (tmp_path / "labels" / "0007.txt").read_text() == "1 0.2 0.25 0.2 0.3\n" * 2
    box = xyxy2xywh(torch.tensor([row])[:, :4]) / torch.tensor([200, 100, 200, 100])
    torch.testing.assert_close(box, torch.tensor([[0.2, 0.25, 0.2, 0.3]]))
    LabelFiles(tmp_path / "more", with_confidence=True)(Batch([row]))
    assert (tmp_path / "more" / "0007.txt").read_text() == "1 0.2 0.25 0.2 0.3 0.876543\n"


def test_coco_json(tmp_path):
    collector = CocoJson(COCO_CATEGORY_IDS)
    collector(Batch([]))
    collector(Batch([[1.0004, 2.0, 4.0, 6.0, 0.1234567, 79.0]]))
    collector.write(tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == [
        {"image_id": 7, "category_id": 90, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.12346}
    ]
    assert len(COCO_CATEGORY_IDS) == 80
    assert COCO_CATEGORY_IDS[:12] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [("/data/coco/val2017.txt", True), ("/data/mine/val2017.txt", False), (["/data/coco/val2017.txt"], False)],
)
def test_coco_is_known_by_its_list(listed, expected):
    assert is_coco({"val": listed}) is expected
