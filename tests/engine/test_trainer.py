"""Training for real: two epochs on eight pictures, and the parts around it."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_dataset import NAMES, make_dataset
from training_process import tiny_model

import train
import val
from engine.autobatch import FALLBACK, choose_batch_size, largest_batch
from engine.images import resize_to
from engine.options.train import TrainOptions
from engine.precision import Precision
from engine.results import CSV_COLUMNS, ResultsCsv
from engine.setup import (
    HYPERPARAMETERS,
    Names,
    build_model,
    fit_anchors,
    freeze_layers,
    load_hyperparameters,
    training_size,
)
from models.checkpoint import Checkpoint, ModelMeta, read_checkpoint, write_checkpoint
from models.yolo import DetectionModel
from utils.errors import ConfigError, DatasetError
from utils.network_input import to_network
from utils.seeding import init_seeds, random_state, restore_random_state
from utils.yaml_io import yaml_load

HYP = "data/hyps/hyp.scratch-low.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("tiny") / "set")


@pytest.fixture(scope="module")
def settings(data, tmp_path_factory):
    return {
        "cfg": "yolov5n.yaml",
        "weights": "",
        "data": str(data),
        "imgsz": 64,
        "batch_size": 4,
        "epochs": 2,
        "device": "cpu",
        "workers": 0,
        "nbs": 8,  # a step every second batch
        "project": str(tmp_path_factory.mktemp("runs")),
    }


@pytest.fixture(scope="module")
def finished(settings):
    """A finished run with everything on: (folder, options)."""
    options = train.run(**settings)
    return Path(options.save_dir), options


# A whole run ---------------------------------------------------------------------------------------------------------


def test_run_folder_has_everything(finished):
    folder, options = finished
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    pictures = {"results.png", "labels.jpg", "labels_correlogram.jpg", "confusion_matrix.png"}
    pictures |= {f"train_batch{number}.jpg" for number in range(3)}
    pictures |= {"val_batch0_labels.jpg", "val_batch0_pred.jpg"}
    assert files >= {"weights/last.pt", "weights/best.pt", "hyp.yaml", "opt.yaml", "results.csv", *pictures}
    stored = yaml_load(folder / "opt.yaml")
    assert stored["save_dir"] == str(folder)
    assert stored["hyp"] == load_hyperparameters(HYP) == yaml_load(folder / "hyp.yaml")
    assert {**stored, "hyp": options.hyp} == {**options.to_dict(), "save_dir": str(folder)}


def test_results_csv_has_the_agreed_format(finished):
    lines = (finished[0] / "results.csv").read_text().splitlines()
    assert lines[0] == ",".join(f"{name:>20}" for name in CSV_COLUMNS)
    assert [len(cell) for cell in lines[1].split(",")] == [20] * 14
    rows = list(csv.reader(lines[1:]))
    assert [int(row[0]) for row in rows] == [0, 1]
    assert all(math.isfinite(float(cell)) for row in rows for cell in row)
    first = [float(cell) for cell in rows[0]]
    assert all(loss > 0 for loss in first[1:4] + first[8:11])
    # Warm-up lasts 100 iterations; the last of the first epoch is iteration 1.
    np.testing.assert_allclose(first[11:], [0.1 + (0.01 - 0.1) / 100, 0.01 / 100, 0.01 / 100], rtol=1e-4)


def test_last_checkpoint_keeps_what_resuming_needs(finished):
    content = torch.load(finished[0] / "weights" / "last.pt", weights_only=True)
    assert content["epoch"] == 1
    assert content["updates"] == 4  # warm-up begins with a step for every batch
    assert content["optimizer"]["param_groups"][0]["momentum"] > 0
    assert content["best_fitness"] is not None
    assert content["opt"]["imgsz"] == 64
    assert set(content["extra"]) >= {"last_step", "early_stopping", "scaler", "random", "pending_gradients"}
    weights = {name: tensor for name, tensor in content["model"].items() if tensor.is_floating_point()}
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    assert any(not torch.equal(tensor, content["ema"][name]) for name, tensor in weights.items())


def test_best_checkpoint_is_stripped(finished):
    best = read_checkpoint(finished[0] / "weights" / "best.pt")
    assert (best.epoch, best.ema, best.optimizer, best.updates, best.best_fitness) == (-1, None, None, None, None)
    assert best.extra == {}
    assert best.meta.names == NAMES
    assert all(tensor.dtype != torch.float32 for tensor in best.model.values())


def test_val_on_best_agrees_with_training(finished, data):
    folder, options = finished
    figures, maps, speed = val.run(
        str(data), weights=str(folder / "weights" / "best.pt"), imgsz=64, batch_size=8, device="cpu", workers=0,
        plots=False, project=options.project, name="val",
    )  # fmt: skip
    rows = list(csv.reader((folder / "results.csv").read_text().splitlines()[1:]))
    best = max(rows, key=lambda row: 0.1 * float(row[6]) + 0.9 * float(row[7]))
    np.testing.assert_allclose(figures[:4], [float(cell) for cell in best[4:8]], atol=2e-3)  # fp16 weights
    assert figures[4:] == (0, 0, 0)
    assert maps.shape == (2,)
    assert len(speed) == 3


def test_two_runs_are_bit_identical(finished, settings):
    options = train.run(**{**settings, "noplots": True, "workers": 2, "name": "again"})
    contents = [
        torch.load(f"{folder}/weights/last.pt", weights_only=True) for folder in (finished[0], options.save_dir)
    ]
    for part in ("model", "ema"):
        for name, tensor in contents[0][part].items():
            assert torch.equal(tensor, contents[1][part][name]), f"{part} {name}"
    texts = [Path(folder, "results.csv").read_text() for folder in (finished[0], options.save_dir)]
    assert texts[0] == texts[1]


def test_noplots_noval_nosave_and_save_period(settings, tmp_path):
    folder = tmp_path / "run"
    options = train.run(
        **{
            **settings,
            "cfg": str(tiny_model(tmp_path)),
            "project": str(tmp_path),
            "name": "run",
            "noplots": True,
            "noval": True,
            "save_period": 1,
            "nbs": 4000,
        }
    )
    assert options.save_dir == str(folder)
    assert not [path for path in folder.rglob("*") if path.suffix in (".png", ".jpg")]
    assert sorted(path.name for path in (folder / "weights").iterdir()) == [
        "best.pt", "epoch0.pt", "epoch1.pt", "last.pt",
    ]  # fmt: skip
    rows = list(csv.reader((folder / "results.csv").read_text().splitlines()[1:]))
    assert [float(cell) for cell in rows[0][4:11]] == [0] * 7
    assert float(rows[1][8]) > 0
    # Warm-up asks for 1, then 11, 21, 31 batches a step: one step, and three batches' gradients are left over.
    last = read_checkpoint(folder / "weights" / "last.pt")
    assert last.updates == 1
    assert last.extra["last_step"] == 0
    assert set(last.extra["pending_gradients"]) == {name for name in last.model if name.endswith(("weight", "bias"))}


def test_nothing_to_validate_on_stops_by_patience(settings, tmp_path):
    data = make_dataset(tmp_path / "set", labelled_val=False)
    changes = {"data": str(data), "epochs": 5, "patience": 1, "nosave": True, "noplots": True, "project": str(tmp_path)}
    train.run(**{**settings, **changes, "cfg": str(tiny_model(tmp_path))})
    rows = list(csv.reader((tmp_path / "exp" / "results.csv").read_text().splitlines()[1:]))
    assert [int(row[0]) for row in rows] == [0, 1]
    assert all(float(cell) == 0 for row in rows for cell in row[4:8])


def test_a_wrong_model_leaves_no_run_behind(settings, tmp_path):
    with pytest.raises(ConfigError):
        train.run(**{**settings, "cfg": "no-such.yaml", "project": str(tmp_path)})
    assert not list(tmp_path.iterdir())


def test_training_goes_on_from_a_checkpoint_with_other_classes(finished, settings, tmp_path):
    """`train.train` with the old call, on one class, from the weights of a run with two; events arrive."""

    class Events:
        def __init__(self):
            self.names = []

        def run(self, event, **facts):
            self.names.append((event, sorted(facts)))

    events = Events()
    options = TrainOptions.from_kwargs(
        **{
            **settings,
            "cfg": "",
            "weights": str(finished[0] / "weights" / "best.pt"),
            "epochs": 1,
            "single_cls": True,
            "multi_scale": True,
            "cos_lr": True,
            "rect": True,
            "sync_bn": True,
            "label_smoothing": 0.1,
            "cache": "ram",
            "freeze": [10],
            "optimizer": "AdamW",
            "noplots": True,
            "project": str(tmp_path),
        }
    )
    results = train.train(yaml_load(HYP), options, torch.device("cpu"), events)
    assert len(results) == 7
    assert all(math.isfinite(value) for value in results)
    assert events.names == [
        ("on_train_start", ["options", "save_dir"]),
        ("on_fit_epoch_end", ["epoch", "fitness", "values"]),
        ("on_train_end", ["results", "save_dir"]),
    ]
    old = read_checkpoint(finished[0] / "weights" / "best.pt").model
    new = read_checkpoint(tmp_path / "exp" / "weights" / "last.pt")
    assert new.meta.names == {0: "item"}
    assert new.meta.nc == 1
    frozen, trained = "model.9.cv2.conv.weight", "model.10.conv.weight"
    assert torch.equal(new.model[frozen], old[frozen].float())
    assert not torch.equal(new.model[trained], old[trained].float())


# Parts ---------------------------------------------------------------------------------------------------------------


def test_hyperparameters_are_checked(tmp_path):
    good = yaml_load(HYP)
    assert load_hyperparameters(HYP) == good
    assert set(HYPERPARAMETERS) == set(good)
    with pytest.raises(ConfigError, match="missing lr0, mosaic"):
        load_hyperparameters({name: value for name, value in good.items() if name not in ("lr0", "mosaic")})
    with pytest.raises(ConfigError, match="lr0: 'high'"):
        load_hyperparameters({**good, "lr0": "high"})
    assert load_hyperparameters({**good, "anchors": 3.2})["anchors"] == 3.2


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr0", -1), ("lr0", math.nan), ("anchor_t", 0), ("momentum", 1), ("mosaic", 2), ("box", math.inf)],
)
def test_hyperparameters_that_nothing_can_train_with(name, value):
    with pytest.raises(ConfigError, match=f"{name}: {value}: expected a number"):
        load_hyperparameters({**yaml_load(HYP), name: value})


def test_missing_training_images_leave_no_run_folder(settings, data, tmp_path):
    wrong = {**yaml_load(data), "path": str(data.parent), "train": "images/gone"}
    (tmp_path / "wrong.yaml").write_text(json.dumps(wrong))
    with pytest.raises(DatasetError, match=r"wrong\.yaml: training images not found"):
        train.run(**{**settings, "data": tmp_path / "wrong.yaml", "project": tmp_path / "runs"})
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_that_cannot_be_made_is_named(settings, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ConfigError, match="choose another --project"):
        train.run(**{**settings, "project": tmp_path / "runs"})


def test_start_weights_bring_their_anchors_where_the_strides_agree(tmp_path):
    torch.manual_seed(1)
    source = DetectionModel("yolov5n.yaml", nc=3)
    source.model[-1].anchors.mul_(1.5)
    path = tmp_path / "start.pt"
    write_checkpoint(path, Checkpoint(source.state_dict(), ModelMeta.of(source)))
    two = Names(2, NAMES)
    for cfg in ("", "yolov5n.yaml", "yolov5n-biformer.yaml"):
        options = TrainOptions.from_kwargs(weights=str(path), cfg=cfg)
        model = build_model(options, two, {})
        assert model.nc == 2
        assert model.names == NAMES
        torch.testing.assert_close(model.model[-1].anchors, source.model[-1].anchors)
        assert torch.equal(model.model[0].conv.weight, source.model[0].conv.weight)
    fewer = build_model(TrainOptions.from_kwargs(weights=str(path)), two, {"anchors": 2})
    assert fewer.model[-1].anchors.shape == (3, 2, 2)
    with pytest.raises(ConfigError, match="noautoanchor"):
        fit_anchors(fewer, None, {}, 64, enabled=False)


def test_zero_loss_insertion_from_the_command_line_on(tmp_path):
    torch.manual_seed(2)
    source = DetectionModel("yolov5n.yaml", nc=2).eval()
    path = tmp_path / "start.pt"
    write_checkpoint(path, Checkpoint(source.state_dict(), ModelMeta.of(source)))
    options = TrainOptions.from_kwargs(weights=str(path), cfg="yolov5n-biformer.yaml")
    model = build_model(options, Names(2, NAMES), {}).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(image)[0], source(image)[0])


def test_freeze():
    model = DetectionModel("yolov5n.yaml", nc=2)
    assert freeze_layers(model, [0]) == []
    names = freeze_layers(model, [2])
    assert names
    assert {name.split(".")[1] for name in names} == {"0", "1"}
    assert {name.split(".")[1] for name in freeze_layers(model, [1, 10])} == {"1", "10"}
    with pytest.raises(ConfigError, match="0 to 24"):
        freeze_layers(model, [0, 25])
    with pytest.raises(ConfigError, match="nothing to train"):
        freeze_layers(model, [25])


@pytest.mark.parametrize(("asked", "used"), [(1, 64), (64, 64), (65, 96), (640, 640), (641, 672)])
def test_image_size_is_rounded_up_to_the_grid(asked, used):
    with torch.device("meta"):  # its strides are all that counts
        model = DetectionModel("yolov5n.yaml")
    assert training_size(model, asked) == used


def test_batches_become_network_inputs():
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    batch = to_network(images, torch.device("cpu"))
    torch.testing.assert_close(batch, images.float() / 255)
    assert images[0, 0, 0, 1] == 1  # the caller's batch stays as it is


@pytest.mark.parametrize(
    ("shape", "size", "expected"), [((64, 64), 64, (64, 64)), ((64, 64), 96, (96, 96)), ((64, 128), 96, (64, 96))]
)
def test_multi_scale_sizes(shape, size, expected):
    assert resize_to(torch.rand(1, 3, *shape), size, 32).shape[2:] == expected


@pytest.mark.parametrize(
    ("sizes", "used", "free", "expected"),
    [
        ([], [], 100.0, FALLBACK),
        ([1], [10.0], 100.0, FALLBACK),
        ([1, 2, 4], [12.0, 22.0, 42.0], 1000.0, 79),  # 2 + 10 b = 800
        ([1, 2], [10.0, 10.0], 1000.0, FALLBACK),  # no slope to divide by
        ([1, 2], [1000.0, 2000.0], 100.0, FALLBACK),  # leads to 0
        ([1, 2], [1.0, 2.0], 10000.0, FALLBACK),  # leads to 8000
    ],
)
def test_batch_size_from_memory(sizes, used, free, expected):
    assert largest_batch(sizes, used, free) == expected


def test_batch_size_on_the_cpu():
    cpu = torch.device("cpu")
    assert choose_batch_size(torch.nn.Identity(), 64, cpu, Precision(cpu)) == FALLBACK


def test_csv_refuses_another_number_of_values(tmp_path):
    with pytest.raises(ValueError, match="13 values"):
        ResultsCsv(tmp_path / "results.csv").append(0, [0.0])


def test_random_state_survives_a_checkpoint(tmp_path):
    def draws():
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    init_seeds(5)
    draws()
    torch.save(random_state(), tmp_path / "state.pt")
    expected = draws()
    draws()
    restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draws() == expected
