"""``train.py --insert``: a row put in from the command line, in a run that can be repeated, resumed and built upon."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_dataset import NAMES
from training_process import tiny_model, tiny_settings

import train
from engine.options.train import TrainOptions
from engine.setup import Names, build_model, fit_anchors
from models.checkpoint import Checkpoint, ModelMeta, read_checkpoint, write_checkpoint
from models.yolo import DetectionModel
from utils.errors import ConfigError, OptionError
from utils.yaml_io import yaml_load

ROW = "BiFormerBlock[0, 4, 2]@after:c3"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return tiny_settings(tmp_path_factory.mktemp("insert"))


def saved(folder: Path, source: DetectionModel) -> Path:
    path = folder / "start.pt"
    write_checkpoint(path, Checkpoint(source.state_dict(), ModelMeta.of(source)))
    return path


def test_a_run_with_an_inserted_row(settings, tmp_path):
    """The written YAML is the network of the run, and a resumed run goes on with it, whatever became of --cfg."""
    cfg = tiny_model(tmp_path)
    options = {**settings, "cfg": str(cfg), "insert": [ROW], "name": "inserted"}
    folder = Path(train.run(**options).save_dir)
    text = (folder / "model.yaml").read_text()
    assert text.startswith('# tiny.yaml with --insert; put in for this run: "BiFormerBlock[0, 4, 2]@after:c3"\n')
    written = yaml_load(folder / "model.yaml")
    assert written["backbone"][4] == [-1, 1, "BiFormerBlock", [0, 4, 2]]
    assert written["head"] == [[[5, 6], 1, "Detect", ["nc", "anchors"]]]
    assert yaml_load(folder / "opt.yaml")["insert"] == [ROW]
    last = read_checkpoint(folder / "weights" / "last.pt")
    assert {name: value for name, value in last.meta.yaml.items() if name != "yaml_file"} == written
    again = DetectionModel(folder / "model.yaml")
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == {
        name: tensor.shape for name, tensor in last.model.items()
    }
    cfg.unlink()
    train.run(resume=str(folder), epochs=2)
    assert yaml_load(folder / "opt.yaml")["insert"] == [ROW]
    assert read_checkpoint(folder / "weights" / "last.pt").epoch == 1
    assert (folder / "model.yaml").read_text() == text

    train.run(**{**settings, "name": "inserted", "exist_ok": True})
    assert not (folder / "model.yaml").exists()  # the new run there has none of its own


def test_a_place_that_is_not_there_leaves_no_run_folder(settings, tmp_path):
    options = {**settings, "project": str(tmp_path / "runs")}
    with pytest.raises(OptionError, match=r"tiny\.yaml has no row 'sppf'"):
        train.run(**options, insert="BiFormerBlock@after:sppf")
    with pytest.raises(ConfigError, match=r"tiny\.yaml with --insert: backbone row 4 .*unknown module 'Blok'"):
        train.run(**options, insert="Blok@after:c3")
    assert not (tmp_path / "runs").exists()


def test_into_a_checkpoints_own_network(tmp_path):
    """--weights alone: the row goes into what the checkpoint was built from, and nothing is predicted differently."""
    torch.manual_seed(2)
    source = DetectionModel("yolov5n.yaml", nc=2).eval()
    rows = ["BiFormerBlock@after:sppf", "WindowAttention@before:detect", "C3BiFormer@replace:c3#3"]
    options = TrainOptions.from_kwargs(weights=str(saved(tmp_path, source)), insert=rows)
    model = build_model(options, Names(2, NAMES), {}).eval()
    assert [layer.type.split(".")[-1] for layer in model.model].count("WindowAttention") == 3
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(image)[0], source(image)[0])


def test_autoanchor_says_when_it_replaces_a_checkpoints_anchors(tmp_path, caplog):
    cfg = str(tiny_model(tmp_path))
    source = DetectionModel(cfg)
    weights = str(saved(tmp_path, source))
    sizes = np.random.default_rng(0).uniform((0.6, 0.02), (0.9, 0.03), (40, 2))  # wide and flat, as no usual anchor
    labels = [np.concatenate([np.zeros((40, 3)), sizes], 1)]
    flat_boxes = SimpleNamespace(shapes=np.array([[320, 320]]), labels=labels)

    def lines(enabled: bool = True, **flags) -> list[str]:
        caplog.clear()
        model = build_model(TrainOptions.from_kwargs(**flags), Names(2, NAMES), {})
        fit_anchors(model, flat_boxes, {"anchor_t": 4.0}, 320, enabled)
        assert torch.equal(model.model[-1].anchors, source.model[-1].anchors) == (not enabled)
        return [line for line in caplog.messages if "replaced the anchors of" in line]

    (said,) = lines(weights=weights, insert=ROW)
    assert weights in said
    assert "--noautoanchor" in said
    assert lines(weights=weights, enabled=False) == []
    assert lines(weights="", cfg=cfg) == []  # those of the YAML are nobody's
