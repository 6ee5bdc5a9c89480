"""val.py: what each flag does, seen from the files, the log and the figures it leaves."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_dataset import NAMES, make_dataset
from torch import nn
from training_process import TINY_MODEL

import val
from engine.options.val import ValOptions
from engine.validator import Given, run_task, validate
from models.checkpoint import Checkpoint, ModelMeta, read_checkpoint, write_checkpoint
from models.yolo import DetectionModel
from utils.boxes import box_iou
from utils.datasets.batching import create_dataloader
from utils.datasets.config import check_dataset
from utils.errors import ConfigError, DatasetError, OptionError
from utils.log import LOGGER
from utils.metrics import process_batch
from utils.yaml_io import yaml_load, yaml_save

UPSTREAM = """--data --weights --batch-size --imgsz --img --img-size --conf-thres --iou-thres --max-det --task --device
--workers --single-cls --augment --verbose --save-txt --save-hybrid --save-conf --save-json --project --name --exist-ok
--half --dnn"""


def write_model(path: Path, nc: int = 2, seed: int = 0) -> Path:
    """A small network that has learned nothing and believes in many boxes."""
    torch.manual_seed(seed)
    model = DetectionModel(yaml.safe_load(TINY_MODEL), nc=nc)
    model.names = dict(NAMES) if nc == 2 else {number: f"kind{number}" for number in range(nc)}
    with torch.no_grad():
        for layer in model.model[-1].m:
            layer.weight.normal_(0, 600)  # what reaches it is weak
            layer.bias.view(2, -1)[:, 4] = 2
    write_checkpoint(path, Checkpoint(model.state_dict(), ModelMeta.of(model)))
    return path


class Known(nn.Module):
    """Finds the labels of the batches it was shown, and nothing else."""

    def __init__(self, loader) -> None:
        super().__init__()
        self.weight, self.names, self.stride = nn.Parameter(torch.zeros(1)), dict(NAMES), torch.tensor([32])
        self.answers = {}
        for images, targets, _, _ in loader:
            count, _, height, width = images.shape
            rows = torch.zeros(count, 4, 7)
            for number in range(count):
                own = targets[targets[:, 0] == number]
                rows[number, : len(own), :4] = own[:, 2:] * torch.tensor([width, height, width, height])
                rows[number, range(len(own)), 5 + own[:, 1].long()] = rows[number, : len(own), 4] = 1.0
            self.answers[float(images.sum())] = rows

    def forward(self, images: torch.Tensor):
        key = min(self.answers, key=lambda total: abs(total - 255 * float(images.double().sum())))
        return self.answers[key], None


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("tiny") / "set")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("weights") / "tiny.pt")


@pytest.fixture
def log(heard):
    heard.set_level("INFO", LOGGER.name)
    return heard


def val_loader(file):
    return create_dataloader(check_dataset(file)["val"], 64, 2, 32, pad=0.5, rect=True, workers=0)[0]


def run_val(data, checkpoint, tmp_path, **flags):
    settings = {"imgsz": 64, "batch_size": 2, "device": "cpu", "workers": 0, "project": str(tmp_path), "plots": False}
    weights = checkpoint if isinstance(checkpoint, list) else str(checkpoint)
    return val.run(str(data), weights=weights, **{**settings, **flags})


def written(tmp_path, data, checkpoint, **flags) -> list[dict]:
    """The rows that --save-json writes with these flags."""
    run_val(data, checkpoint, tmp_path, save_json=True, **flags)
    (file,) = tmp_path.glob("exp/*_predictions.json")
    return json.loads(file.read_text())


def largest_overlap(rows: list[dict]) -> float:
    """Largest IoU of two boxes of one class in one image, among those that the image does not clip."""
    largest = 0.0
    for image, kind in itertools.product(range(4), range(2)):
        boxes = [row["bbox"] for row in rows if (row["image_id"], row["category_id"]) == (image, kind)]
        boxes = np.array(boxes).reshape(-1, 4)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        corners = corners[(corners > 0.1).all(1) & (corners < 47.9).all(1)]
        largest = max(largest, (box_iou(corners, corners) - np.eye(len(corners))).max(initial=0))
    return largest


def table(log) -> list[str]:
    """First words of the rows of figures."""
    return [text.split()[0] for text in log.messages if text.startswith(" " * 10)]


# Files ---------------------------------------------------------------------------------------------------------------


def test_pictures(data, checkpoint, tmp_path):
    figures, maps, speed = run_val(data, checkpoint, tmp_path, plots=True)
    assert len(figures) == 7
    assert maps.shape == (2,)
    assert all(ms >= 0 for ms in speed)
    names = {path.name for path in (tmp_path / "exp").iterdir()}
    assert names >= {"confusion_matrix.png", "PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png"}
    assert names >= {"val_batch0_labels.jpg", "val_batch0_pred.jpg"}
    assert "labels" not in names  # nobody asked for them


@pytest.mark.parametrize("flags", [{"save_txt": True}, {"save_txt": True, "save_conf": True}, {"save_hybrid": True}])
def test_label_files(data, checkpoint, tmp_path, flags):
    rows = written(tmp_path, data, checkpoint, **flags)
    files = list((tmp_path / "exp" / "labels").iterdir())
    assert {path.stem for path in files} == {"000", "001", "002", "003"}
    lines = [line.split() for path in files for line in path.read_text().splitlines()]
    assert len(lines) == len(rows) > 0
    assert {len(line) for line in lines} == {6 if "save_conf" in flags else 5}
    assert all(0 <= float(value) <= 1 for line in lines for value in line[1:])
    # Labels among the detections are certain of themselves; the network never is.
    certain = sum(row["score"] == 1 for row in rows)
    labels = Path(check_dataset(data)["val"].replace("images", "labels"))
    count = sum(len(path.read_text().splitlines()) for path in labels.iterdir() if path.suffix == ".txt")
    assert certain == (count if "save_hybrid" in flags else 0)


def test_json(data, checkpoint, tmp_path):
    rows = written(tmp_path, data, checkpoint)
    assert set(rows[0]) == {"image_id", "category_id", "bbox", "score"}
    assert {row["image_id"] for row in rows} == {0, 1, 2, 3}


def test_save_conf_alone_is_warned_about(data, checkpoint, tmp_path, log):
    run_val(data, checkpoint, tmp_path, save_conf=True)
    assert any("--save-conf" in text for text in log.messages)
    assert not (tmp_path / "exp" / "labels").exists()


def test_run_folders(data, checkpoint, tmp_path):
    for flags in ({}, {}, {"name": "mine"}, {"name": "mine", "exist_ok": True}):
        run_val(data, checkpoint, tmp_path, **flags)
    assert {path.name for path in tmp_path.iterdir()} == {"exp", "exp2", "mine"}


def test_the_callers_model_makes_no_folder(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loader = val_loader(data)
    figures, _, _ = val.run(check_dataset(data), model=Known(loader), dataloader=loader)
    assert figures[2] > 0.99
    assert not list(tmp_path.iterdir())


def coco_copy(data, folder: Path) -> dict:
    """The data set as COCO's file describes its own."""
    content = check_dataset(data)
    listing = folder / "coco" / "val2017.txt"
    listing.parent.mkdir()
    images = sorted((Path(content["path"]) / "images" / "val").iterdir())
    listing.write_text("".join(f"{image}\n" for image in images))
    return {**content, "path": listing.parent, "train": content["train"], "val": listing.name}


def test_coco_asks_for_no_file_of_a_caller_with_its_own_model(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loader, coco = val_loader(data), coco_copy(data, tmp_path)
    val.run(coco, model=Known(loader), dataloader=loader)
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]
    val.run(coco, model=Known(loader), dataloader=loader, save_dir=coco["path"], plots=False)
    names = {path.name for path in coco["path"].iterdir()}
    assert names == {"val2017.txt", "model_predictions.json"}


def test_cocos_own_annotations_have_the_last_word(data, tmp_path, log):
    loader, coco = val_loader(data), coco_copy(data, tmp_path)
    (coco["path"] / "annotations").mkdir()
    images = [{"id": number} for number in range(4)]
    label = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0}
    truth = {"info": {}, "images": images, "categories": [{"id": 1}], "annotations": [label]}
    (coco["path"] / "annotations" / "instances_val2017.json").write_text(json.dumps(truth))
    figures, _, _ = val.run(coco, model=Known(loader), dataloader=loader, save_dir=coco["path"], plots=False)
    assert figures[2:4] == (0, 0)  # all labels found, but not this one
    assert "Average Precision" in log.text


# Figures -------------------------------------------------------------------------------------------------------------


def test_confidence_iou_and_number_of_detections(data, checkpoint, tmp_path):
    every = written(tmp_path / "a", data, checkpoint)
    assert min(row["score"] for row in every) < 0.3 < max(row["score"] for row in every)
    confident = written(tmp_path / "b", data, checkpoint, conf_thres=0.3)
    assert len(every) > len(confident) > 0
    assert all(row["score"] > 0.2999 for row in confident)
    few = written(tmp_path / "c", data, checkpoint, max_det=5)
    for image in range(4):
        best = sorted((row["score"] for row in every if row["image_id"] == image), reverse=True)[:5]
        assert [row["score"] for row in few if row["image_id"] == image] == best
    apart = written(tmp_path / "d", data, checkpoint, iou_thres=0.1)
    assert len(apart) < len(every)
    assert largest_overlap(apart) < 0.11 < 0.46 < largest_overlap(every) < 0.61


def test_a_high_confidence_is_warned_about(data, checkpoint, tmp_path, log):
    options = {"data": str(data), "weights": [str(checkpoint)], "device": "cpu", "workers": 0, "imgsz": 64}
    run_task(ValOptions.from_kwargs(**options, conf_thres=0.5, project=str(tmp_path)))
    assert any("--conf-thres 0.5 cuts" in text for text in log.messages)


def test_augment(data, checkpoint, tmp_path):
    plain, augmented = (written(tmp_path / name, data, checkpoint, augment=name == "b") for name in "ab")
    assert plain != augmented


def test_several_weights_vote_together(data, checkpoint, tmp_path):
    other = write_model(tmp_path / "other.pt", seed=1)
    one = written(tmp_path / "a", data, checkpoint)
    assert written(tmp_path / "b", data, [checkpoint, checkpoint]) == one  # an echo adds nothing
    both, second = written(tmp_path / "c", data, [checkpoint, other]), written(tmp_path / "d", data, other)
    scores = {row["score"] for row in both}
    assert scores & {row["score"] for row in one}
    assert scores & {row["score"] for row in second}
    assert both not in (one, second)


def test_half_on_the_cpu_is_warned_about_and_changes_nothing(data, checkpoint, tmp_path, log):
    full = written(tmp_path / "a", data, checkpoint)
    assert not any("--half" in text for text in log.messages)
    assert written(tmp_path / "b", data, checkpoint, half=True) == full
    assert any("--half" in text for text in log.messages)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_on_a_gpu(data, checkpoint, tmp_path):
    full, half = (run_val(data, checkpoint, tmp_path, device="0", half=half) for half in (False, True))
    np.testing.assert_allclose(full[0], half[0], atol=0.05)


def test_single_class(data, checkpoint, tmp_path, log):
    rows = written(tmp_path, data, checkpoint, single_cls=True)
    assert {row["category_id"] for row in rows} == {0}
    assert table(log) == ["all"]  # one row, and no borrowed name


def test_verbose_lists_many_classes(data, tmp_path, log):
    many = yaml_load(data) | {"names": {number: f"kind{number}" for number in range(60)}}
    yaml_save(tmp_path / "many.yaml", many)
    weights = write_model(tmp_path / "many.pt", nc=60)
    for verbose, rows in ((False, ["all"]), (True, ["all", "kind0", "kind1"])):
        log.clear()
        run_val(tmp_path / "many.yaml", weights, tmp_path, verbose=verbose, max_det=10)
        assert table(log) == rows


def test_another_class_count_is_refused(data, tmp_path):
    path = write_model(tmp_path / "three.pt", nc=3)
    with pytest.raises(ConfigError, match="3 classes"):
        run_val(data, path, tmp_path)
    run_val(data, path, tmp_path, single_cls=True)


@pytest.mark.parametrize("flags", [{}, {"single_cls": True}])
def test_coco_eval_and_slices(data, tmp_path, log, flags):
    loader = val_loader(data)
    run = {"model": Known(loader), "dataloader": loader, "save_dir": tmp_path, "plots": False}
    val.run(check_dataset(data), **run, coco_eval=True, slices=True, **flags)
    assert sum("pycocotools: mAP50 1.0000, mAP50-95 1.0000; ours: 1.0000, 1.0000" in text for text in log.messages) == 1
    with (tmp_path / "slices.csv").open() as stream:
        rows = {row["slice"]: row for row in csv.DictReader(stream)}
    assert set(rows) <= set(table(log))
    assert rows["small"]["mAP50"] == "1"
    assert (rows["large"]["instances"], rows["large"]["mAP50"], rows["large"]["mAP50-95"]) == ("0", "", "")
    assert not list(tmp_path.glob("*.json"))


def test_coco_eval_and_slices_without_labels(tmp_path, checkpoint, log):
    bare = make_dataset(tmp_path / "set", labelled_val=False)
    figures, _, _ = run_val(bare, checkpoint, tmp_path, coco_eval=True, slices=True)
    assert figures == (0,) * 7
    assert any("no labels" in text for text in log.messages)
    assert any(text.startswith("pycocotools: mAP50 0.0000") for text in log.messages)


# Tasks and flags -----------------------------------------------------------------------------------------------------


def test_splits(data, checkpoint, tmp_path):
    tested = tmp_path / "tested.yaml"
    yaml_save(tested, yaml_load(data) | {"test": "images/train"})
    settings = {"weights": [str(checkpoint)], "imgsz": 64, "device": "cpu", "workers": 0, "project": str(tmp_path)}
    for task, images in (("val", 4), ("train", 8), ("test", 8)):
        options = ValOptions.from_kwargs(data=str(tested), task=task, **settings)
        assert validate(options, Given(plots=False)).images == images
    with pytest.raises(DatasetError, match="test"):
        validate(ValOptions.from_kwargs(data=str(data), task="test", **settings))
    assert {path.name for path in tmp_path.iterdir()} == {"tested.yaml", "exp", "exp2", "exp3"}  # the mistake left none


@pytest.fixture
def command(data, checkpoint, tmp_path):
    """The command line of a validation into tmp_path/runs."""
    flags = ["--data", str(data), "--weights", str(checkpoint), "--img", "64", "--device", "cpu", "--workers", "0"]
    return [*flags, "--project", str(tmp_path / "runs")]


def test_speed_has_its_own_thresholds_and_square_images(command, tmp_path, log):
    assert val.main(ValOptions.parse([*command, "--task", "speed", "--save-json"])).images == 4
    rows = json.loads((tmp_path / "runs" / "exp" / "tiny_predictions.json").read_text())
    assert min(row["score"] for row in rows) > 0.2499
    assert 0 < largest_overlap(rows) < 0.46
    pictures = {path.name for path in (tmp_path / "runs" / "exp").glob("val_batch*_labels.jpg")}
    assert pictures == {"val_batch0_labels.jpg"}  # one shape for all: in rectangles of their own there are two
    assert not any("--conf-thres" in text for text in log.messages)


def test_study_writes_a_row_per_size(command, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ValOptions.parse([*command, "--task", "study"])
    result = run_task(options, study_sizes=(64, 96))
    rows = np.loadtxt(tmp_path / "study_data_tiny.txt")
    assert rows.shape == (2, 10)
    np.testing.assert_allclose(rows[1, :7], result.summary, rtol=1e-3, atol=1e-6)
    single = validate(ValOptions.parse(command), Given(plots=False))
    np.testing.assert_allclose(rows[0, :7], single.summary, rtol=1e-3, atol=1e-6)
    assert (tmp_path / "study.png").exists()


def test_keywords(data):
    with pytest.raises(OptionError, match="did you mean conf_thres"):
        val.run(data, conf_thre=0.1)
    assert val.process_batch is process_batch
    with pytest.raises(AttributeError, match="nothing"):
        _ = val.nothing


def named(prefix: str, flags: list[str]) -> set[str]:
    """The flags that argparse takes a prefix for."""
    return {prefix} if prefix in flags else {flag for flag in flags if flag.startswith(prefix)}


def test_new_flags_leave_the_prefixes_of_the_old_ones_alone():
    old = UPSTREAM.split()
    flags = [name for action in ValOptions.parser()._actions for name in action.option_strings]
    assert set(old) < set(flags)
    prefixes = {flag[:length] for flag in old for length in range(len("--con"), len(flag) + 1)}
    clear = {prefix for prefix in prefixes if len(named(prefix, old)) == 1}
    assert {"--batch", "--conf", "--iou", "--img", "--save-t"} <= clear
    assert all(named(prefix, flags) == named(prefix, old) for prefix in clear)


# What surprises people ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("imgsz", "said"), [(64, False), (96, True)])
def test_another_size_than_that_of_the_training_is_pointed_out(data, checkpoint, tmp_path, log, imgsz, said):
    trained = tmp_path / "trained.pt"
    write_checkpoint(trained, dataclasses.replace(read_checkpoint(checkpoint), opt={"imgsz": 64}))
    run_val(data, trained, tmp_path, imgsz=imgsz, plots=True)
    assert ("trained at 64 px, used at 96: --img 64" in log.text) == said


def test_equal_names_in_different_folders_are_pointed_out(data, checkpoint, tmp_path, log):
    root = tmp_path / "set"
    shutil.copytree(data.parent, root)
    (root / "images" / "val" / "deeper").mkdir()
    shutil.copy(root / "images" / "val" / "000.png", root / "images" / "val" / "deeper" / "000.png")
    file = root / "data.yaml"
    yaml_save(file, {**yaml_load(file), "path": str(root)})
    run_val(file, checkpoint, tmp_path)
    assert "more than once" not in log.text
    run_val(file, checkpoint, tmp_path, save_txt=True)
    assert "1 file names come more than once, such as 000" in log.text


def test_val_works_in_one_process(data, checkpoint, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match="torchrun started 2"):
        run_task(ValOptions.from_kwargs(data=str(data), weights=str(checkpoint)))
