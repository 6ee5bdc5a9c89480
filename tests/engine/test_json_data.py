"""Training and validation on COCO's JSON, named in data.yaml: as on the label files that it was made from."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tiny_dataset import NAMES, make_dataset
from training_process import tiny_model

import train
import val
from utils.annotations.conversion import Conversion, convert
from utils.yaml_io import yaml_save


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, str]:
    """One set as label files and as JSON."""
    root = tmp_path_factory.mktemp("sets")
    labels = make_dataset(root / "labels")
    convert(Conversion(source=labels, target=root / "json", source_format="yolo", target_format="coco"))
    splits = {split: f"annotations/instances_{split}.json" for split in ("train", "val")}
    yaml_save(root / "json" / "data.yaml", {"path": str(root / "json"), **splits, "names": dict(NAMES)})
    return {"labels": str(labels), "json": str(root / "json" / "data.yaml")}


@pytest.fixture(scope="module")
def runs(sets, tmp_path_factory) -> dict[str, Path]:
    """One epoch on each."""
    project = tmp_path_factory.mktemp("runs")
    settings = {"cfg": str(tiny_model(project)), "weights": "", "imgsz": 64, "batch_size": 4, "epochs": 1}
    settings |= {"device": "cpu", "workers": 0, "nbs": 4, "noplots": True, "project": str(project)}
    return {
        name: Path(train.run(**settings, data=data, name=name).save_dir) for name, data in sets.items()
    }  # fmt: skip


def test_an_epoch_is_the_same(runs):
    losses = {name: np.loadtxt(folder / "results.csv", delimiter=",", skiprows=1) for name, folder in runs.items()}
    assert losses["labels"][1] > 0
    np.testing.assert_allclose(losses["json"], losses["labels"], rtol=1e-3)  # labels are rounded to six digits


def test_results_bear_the_numbers_of_the_json(sets, runs, tmp_path, monkeypatch):
    """The figure that val.py gives is pycocotools' own, in which a crowd is an ignored region."""
    folder = Path(sets["json"]).parent
    file = folder / "annotations" / "instances_val.json"
    truth = json.loads(file.read_text())
    for image in truth["images"]:
        image["id"] += 1000
    for entry in truth["annotations"]:
        entry["image_id"] += 1000
        entry["category_id"] += 16
    for category in truth["categories"]:
        category["id"] += 16
    truth["annotations"][0]["iscrowd"] = 1
    changed = file.with_name("instances_val_changed.json")
    changed.write_text(json.dumps(truth))
    data = {"path": str(folder), "train": "images/train", "val": f"annotations/{changed.name}", "names": dict(NAMES)}
    yaml_save(tmp_path / "data.yaml", data)
    weights = runs["json"] / "weights" / "last.pt"
    settings = {"imgsz": 64, "device": "cpu", "workers": 0, "project": str(tmp_path), "plots": False}
    result, _, _ = val.run(str(tmp_path / "data.yaml"), weights=str(weights), save_json=True, **settings)
    found = json.loads((tmp_path / "exp" / "last_predictions.json").read_text())
    assert {row["category_id"] for row in found} <= {17, 18}
    assert {row["image_id"] for row in found} <= {image["id"] for image in truth["images"]}
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(changed))
        run = COCOeval(coco, coco.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert run.stats[0] > 0
    assert result[3] == pytest.approx(run.stats[0])
