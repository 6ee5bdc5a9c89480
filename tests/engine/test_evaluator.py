"""Evaluation: exact answers for known detectors, nothing changed by it, and the files that val.py writes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_dataset import NAMES, make_dataset
from torch import nn

import val
from engine.evaluator import Thresholds, evaluate
from engine.options.val import ValOptions
from engine.results import evaluation_header, evaluation_table
from engine.val_outputs import COCO_CATEGORY_IDS, CocoJson, LabelFiles, is_coco
from models.checkpoint import Checkpoint, ModelMeta, write_checkpoint
from models.yolo import DetectionModel
from utils.boxes import xyxy2xywh
from utils.datasets.batching import create_dataloader
from utils.datasets.config import check_dataset
from utils.errors import ConfigError, DatasetError, OptionError
from utils.log import LOGGER
from utils.metrics import process_batch

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


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("tiny") / "set")


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("tiny") / "set", labelled_val=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = DetectionModel("yolov5n.yaml", nc=2)
    model.names = dict(NAMES)
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    write_checkpoint(path, Checkpoint(model.state_dict(), ModelMeta.of(model)))
    return path


def val_loader(file, **settings):
    return create_dataloader(
        check_dataset(file)["val"], 64, 2, 32, pad=0.5, rect=True, workers=0, prefix="val: ", **settings
    )[0]


def measure(model, loader, **settings):
    return evaluate(model, loader, device=CPU, nc=2, names=NAMES, **settings)


# Figures -------------------------------------------------------------------------------------------------------------


def test_no_labels_give_zeros_and_a_note(unlabelled):
    result = measure(DetectionModel("yolov5n.yaml", nc=2), val_loader(unlabelled), confusion=True)
    assert result.summary == (0,) * 7
    assert result.metrics.maps.tolist() == [0, 0]
    assert "no labels" in result.notes[0]
    assert evaluation_table(result, NAMES) == [f"{'all':>22}{4:>11}{0:>11}" + f"{0:>11}" * 4]


def test_no_images_give_zeros_and_a_note():
    result = measure(nn.Identity(), [])
    assert result.summary == (0,) * 7
    assert result.speed_ms == (0, 0, 0)
    assert "no image" in result.notes[0]


def test_no_predictions_give_zeros(data):
    loader = val_loader(data)
    result = measure(Oracle(loader, confidence=0.0), loader)
    assert result.summary == (0,) * 7
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


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_model_bit_identical(data, training):
    torch.manual_seed(3)
    model = DetectionModel("yolov5n.yaml", nc=2).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure(model, val_loader(data), half=True)
    assert model.training is training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    levels = model.train()(torch.rand(2, 3, 64, 64))
    sum(level.sum() for level in levels).backward()  # what evaluation cached must not stand in training's way


def test_table_columns():
    assert evaluation_header() == "".join(
        [f"{'Class':>22}", *(f"{name:>11}" for name in ("Images", "Instances", "P", "R", "mAP50", "mAP50-95"))]
    )


# val.py --------------------------------------------------------------------------------------------------------------


def run_val(data, checkpoint, tmp_path, **flags):
    options = {"imgsz": 64, "batch_size": 2, "device": "cpu", "workers": 0, "project": str(tmp_path), **flags}
    return val.run(str(data), weights=str(checkpoint), **options)


def test_val_writes_pictures_text_and_json(data, checkpoint, tmp_path):
    figures, maps, speed = run_val(
        data, checkpoint, tmp_path, save_txt=True, save_conf=True, save_json=True, save_hybrid=True
    )
    assert len(figures) == 7
    assert maps.shape == (2,)
    assert all(ms >= 0 for ms in speed)
    folder = tmp_path / "exp"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"confusion_matrix.png", "PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png"}
    assert names >= {"val_batch0_labels.jpg", "val_batch0_pred.jpg"}
    rows = json.loads((folder / "tiny_predictions.json").read_text())
    assert set(rows[0]) == {"image_id", "category_id", "bbox", "score"}
    assert {row["image_id"] for row in rows} <= {0, 1, 2, 3}
    lines = [line.split() for path in (folder / "labels").iterdir() for line in path.read_text().splitlines()]
    assert len(lines) == len(rows)
    assert all(len(line) == 6 for line in lines)


def test_val_with_the_callers_model_makes_no_folder(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loader = val_loader(data)
    figures, _, _ = val.run(check_dataset(data), model=Oracle(loader), dataloader=loader)
    assert figures[2] > 0.99
    assert not list(tmp_path.iterdir())


def test_coco_asks_for_no_file_of_a_caller_with_its_own_model(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loader, content = val_loader(data), check_dataset(data)
    images = sorted((content["path"] / "images" / "val").iterdir())
    listing = tmp_path / "coco" / "val2017.txt"
    listing.parent.mkdir()
    listing.write_text("".join(f"{image}\n" for image in images))
    coco = {**content, "path": listing.parent, "train": content["train"], "val": listing.name}
    val.run(coco, model=Oracle(loader), dataloader=loader)
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]
    val.run(coco, model=Oracle(loader), dataloader=loader, save_dir=listing.parent, plots=False)
    assert [path.name for path in listing.parent.iterdir() if path != listing] == ["model_predictions.json"]


def test_a_single_class_has_one_row_and_no_borrowed_name(data, checkpoint, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(LOGGER, "propagate", True)
    caplog.set_level("INFO", LOGGER.name)
    run_val(data, checkpoint, tmp_path, single_cls=True, plots=False)
    rows = [text.split()[0] for text in caplog.messages if text.startswith(" " * 10)]
    assert rows == ["all"]


def test_val_refuses_another_class_count(data, tmp_path):
    model = DetectionModel("yolov5n.yaml", nc=3)
    path = tmp_path / "three.pt"
    write_checkpoint(path, Checkpoint(model.state_dict(), ModelMeta.of(model)))
    with pytest.raises(ConfigError, match="3 classes"):
        run_val(data, path, tmp_path)
    run_val(data, path, tmp_path, single_cls=True, plots=False)


def test_val_tasks(data, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--data", str(data), "--weights", str(checkpoint), "--img", "64", "--device", "cpu", "--workers", "0"]
    flags += ["--project", str(tmp_path / "runs")]
    assert val.main(ValOptions.parse([*flags, "--task", "speed"])).images == 4
    assert val.main(ValOptions.parse([*flags, "--task", "train"])).images == 8
    with pytest.raises(DatasetError, match="test"):
        val.main(ValOptions.parse([*flags, "--task", "test"]))
    assert len(list((tmp_path / "runs").iterdir())) == 2  # the mistake left no folder


def test_val_study_writes_a_row_per_size(data, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("engine.validator.STUDY_SIZES", range(64, 129, 64))
    options = ValOptions.from_kwargs(
        data=str(data), weights=[str(checkpoint)], task="study", device="cpu", workers=0, project=str(tmp_path)
    )
    val.main(options)
    assert np.loadtxt(tmp_path / "study_data_tiny.txt").shape == (2, 10)
    assert (tmp_path / "study.png").exists()


def test_val_keywords(data):
    with pytest.raises(OptionError, match="did you mean conf_thres"):
        val.run(data, conf_thre=0.1)
    assert val.process_batch is process_batch
    with pytest.raises(AttributeError, match="nothing"):
        _ = val.nothing


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
