"""What single flags of train.py change in a training; those with files of their own are tested there."""

from __future__ import annotations

import csv
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from training_process import TINY_MODEL, tiny_settings

import train
from engine.callbacks import Callback
from engine.failures import explained
from engine.options.train import TrainOptions
from engine.run_files import RunFolder, claimed_folder
from engine.setup import image_weights, load_data, load_hyperparameters
from engine.trainer import Trainer
from models.checkpoint import read_checkpoint
from utils.errors import ConfigError, TrainingError
from utils.seeding import set_determinism
from utils.yaml_io import yaml_load, yaml_save

HYP = "data/hyps/hyp.scratch-low.yaml"
SMALL = "data/hyps/hyp.small-data.yaml"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return tiny_settings(tmp_path_factory.mktemp("flags"))


@pytest.fixture(autouse=True)
def usual_algorithms():
    yield
    set_determinism(None)


def prepared(settings: dict, hyp: str = HYP, **changes) -> Trainer:
    """A trainer on the point of its first epoch."""
    options = TrainOptions.from_kwargs(**{**settings, **changes})
    trainer = Trainer(options, load_hyperparameters(hyp), load_data(options), CPU, RunFolder(Path("none")))
    trainer.build()
    trainer.prepare()
    return trainer


def last_of(options: TrainOptions):
    return read_checkpoint(Path(options.save_dir) / "weights" / "last.pt")


# Optimizer and recipe ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "hyp", "kind", "accumulate"),
    [
        ({}, HYP, torch.optim.SGD, 16),
        ({"optimizer": "Adam", "nbs": 8}, HYP, torch.optim.Adam, 2),
        ({}, SMALL, torch.optim.AdamW, 4),
        ({"optimizer": "SGD", "nbs": 64}, SMALL, torch.optim.SGD, 16),
    ],
)
def test_recipe_and_flags_choose_optimizer_and_nominal_batch(settings, changes, hyp, kind, accumulate):
    trainer = prepared(settings, hyp, **changes)
    assert type(trainer.optimizer) is kind
    assert trainer.schedule.accumulate == accumulate


@pytest.mark.parametrize("wrong", ["LION", 3])
def test_a_recipe_with_an_unknown_optimizer_is_refused(wrong):
    with pytest.raises(ConfigError, match=f"optimizer: {wrong!r}: expected one of SGD, Adam, AdamW"):
        load_hyperparameters({**yaml_load(HYP), "optimizer": wrong})


def test_few_steps_an_epoch_are_pointed_out(settings, caplog):
    caplog.set_level("INFO")
    prepared(settings)
    assert "8 images make 0.1 optimizer steps an epoch, which is few: --hyp hyp.small-data.yaml" in caplog.text


def test_odd_data_is_pointed_out_before_the_first_epoch(settings, caplog):
    caplog.set_level("INFO")
    prepared(settings)
    assert "train: class " in caplog.text and "objects in train" in caplog.text
    assert f"python -m tools.doctor {settings['data']} --img {settings['imgsz']} says more" in caplog.text


def test_a_number_for_a_seed(settings):
    first, again, other = (
        last_of(train.run(**{**settings, "seed": seed, "name": f"seed{place}"})) for place, seed in enumerate((1, 1, 2))
    )
    name = "model.0.conv.weight"
    assert torch.equal(first.model[name], again.model[name])
    assert not torch.equal(first.model[name], other.model[name])


def test_cosine_and_label_smoothing_reach_schedule_and_loss(settings):
    usual, changed = prepared(settings, epochs=4), prepared(settings, epochs=4, cos_lr=True, label_smoothing=0.1)
    assert [round(usual.schedule.factor(epoch), 4) for epoch in range(4)] == [1.0, 0.7525, 0.505, 0.2575]
    assert [round(changed.schedule.factor(epoch), 4) for epoch in range(4)] == [1.0, 0.855, 0.505, 0.155]
    images, targets, _, _ = next(iter(usual.loaders.train))
    changed.model.load_state_dict(usual.model.state_dict())
    losses = []
    for trainer in (usual, changed):
        torch.manual_seed(0)  # for the dropout
        losses.append(trainer.step(trainer._inputs(images, 0, 0), targets, 0))
    assert torch.equal(losses[0][:2], losses[1][:2])
    assert losses[0][2] != losses[1][2]


# Batches -------------------------------------------------------------------------------------------------------------


def test_multi_scale_changes_the_size_of_every_batch(settings):
    trainer = prepared(settings, multi_scale=True, imgsz=320)
    pixels = torch.zeros(1, 3, 320, 320, dtype=torch.uint8)
    sizes = [tuple(trainer._inputs(pixels, 0, index).shape[2:]) for index in range(60)]
    assert all(height == width and height % 32 == 0 and 160 <= height <= 480 + 32 for height, width in sizes)
    assert len(set(sizes)) > 8
    assert sizes == [tuple(trainer._inputs(pixels, 0, index).shape[2:]) for index in range(60)]


def test_quad_makes_a_quarter_of_the_images_count_four_times(settings):
    trainer, usual = prepared(settings, quad=True), prepared(settings)
    images, targets, _, _ = next(iter(trainer.loaders.train))
    assert images.shape == (1, 3, 128, 128)
    batch = trainer._inputs(images, 0, 0)
    for one in (trainer, usual):
        one.model.load_state_dict(usual.model.state_dict())
        one.model.train()
        one.progress.last_step = 0  # as if a step had just been made: the gradients stay
        torch.manual_seed(0)  # for the dropout
        one.step(batch, targets, 0)
    for name, parameter in trainer.model.named_parameters():
        alone = dict(usual.model.named_parameters())[name]
        torch.testing.assert_close(parameter.grad, 4 * alone.grad, rtol=1e-4, atol=1e-6)


def test_image_weights_favour_rare_and_badly_found_classes():
    labels = [np.array([[0, 0, 0, 0, 0]], np.float32)] * 3 + [np.array([[1, 0, 0, 0, 0]], np.float32)]
    rare = torch.tensor([0.25, 0.75])
    np.testing.assert_allclose(image_weights(labels, rare, np.zeros(2)), [0.25, 0.25, 0.25, 0.75])
    np.testing.assert_allclose(image_weights(labels, rare, np.array([0.0, 0.5])), [0.25, 0.25, 0.25, 0.1875])
    assert image_weights(labels, rare, np.ones(2)) is None


def test_image_weights_reach_the_loader(settings):
    trainer = prepared(settings, image_weights=True, batch_size=8)
    trainer.progress.class_map = np.array([1.0, 0.0])  # class 0 is perfect: only images with class 1 are of use
    trainer.train_epoch(0)
    trainer.loaders.train.set_epoch(1)
    drawn = [path for _, _, paths, _ in trainer.loaders.train for path in paths]
    with_one = {
        path
        for path, rows in zip(trainer.loaders.dataset.im_files, trainer.loaders.dataset.labels, strict=True)
        if (rows[:, 0] == 1).any()
    }
    assert len(drawn) == 8
    assert set(drawn) <= with_one
    assert len(with_one) < 8


@pytest.mark.parametrize("rect", [False, True])
def test_rect_fixes_the_batches(settings, rect):
    trainer = prepared(settings, rect=rect)
    shapes = {tuple(images.shape[2:]) for images, _, _, _ in trainer.loaders.train}
    assert shapes == ({(64, 64)} if not rect else {(64, 64), (64, 64)})
    assert trainer.loaders.dataset.rect is rect
    assert trainer.loaders.dataset.mosaic is not rect


@pytest.mark.parametrize("kind", ["ram", "disk", "none", None])
def test_cache_reaches_both_splits(settings, kind):
    loaders = prepared(settings, cache=kind).loaders
    for dataset in (loaders.dataset, loaders.val.dataset):
        assert (dataset._ram is not None) == (kind in ("ram", None))  # a small set is kept unless somebody objects
        assert (dataset._disk is not None) == (kind == "disk")


@pytest.mark.parametrize("kind", ["ram", None])
def test_without_validation_its_images_are_not_kept(settings, kind):
    loaders = prepared(settings, cache=kind, noval=True).loaders
    assert loaders.dataset._ram is not None
    assert loaders.val.dataset._ram is None


def test_sync_bn_says_where_it_has_no_use(settings, caplog):
    prepared(settings, sync_bn=True)
    assert "--sync-bn has no effect in a single process" in caplog.text


# Files ---------------------------------------------------------------------------------------------------------------


def test_noautoanchor_keeps_the_anchors(settings):
    wide = [[10, 13, 16, 30], [30, 61, 62, 45]]
    kept = prepared(settings, noautoanchor=True).model.model[-1]
    pixels = (kept.anchors * kept.stride.view(-1, 1, 1)).flatten(1)
    torch.testing.assert_close(pixels, torch.tensor(wide, dtype=torch.float32), rtol=1e-3, atol=0)


class Weights(Callback):
    """Notes which weights there are after each epoch."""

    def __init__(self) -> None:
        self.after = []

    def on_train_start(self, options, save_dir):
        self.folder = save_dir / "weights"

    def on_fit_epoch_end(self, epoch, values, fitness):
        self.after.append(sorted(path.name for path in self.folder.iterdir()))


def test_nosave_keeps_the_last_epoch_only(settings, tmp_path):
    """Also in a folder with the weights of another run, which are not taken for this one's."""
    options = TrainOptions.from_kwargs(**{**settings, "epochs": 2, "nosave": True, "project": str(tmp_path)})
    (tmp_path / "exp" / "weights").mkdir(parents=True)
    (tmp_path / "exp" / "weights" / "best.pt").write_bytes(b"another run's")
    options.save_dir = str(tmp_path / "exp")
    seen = Weights()
    train.train(HYP, options, CPU, seen)
    assert seen.after == [[], ["best.pt", "last.pt"]]
    assert read_checkpoint(tmp_path / "exp" / "weights" / "best.pt").optimizer is None


def test_two_runs_at_once_get_folders_of_their_own(tmp_path):
    with (
        claimed_folder(tmp_path / "a" / "exp", False) as first,
        claimed_folder(tmp_path / "a" / "exp", False) as second,
    ):
        assert (first, second) == (tmp_path / "a" / "exp", tmp_path / "a" / "exp2")
        (second / "file").touch()
    assert not first.exists()
    assert second.exists()


def test_exist_ok_begins_a_new_table(settings, tmp_path):
    changes = {"project": str(tmp_path), "name": "same", "exist_ok": True}
    for epochs in (2, 1):
        options = train.run(**{**settings, **changes, "epochs": epochs})
    assert options.save_dir == str(tmp_path / "same")
    rows = list(csv.reader((tmp_path / "same" / "results.csv").open()))
    assert [row[0].strip() for row in rows] == ["epoch", "0"]


# Precision and algorithms --------------------------------------------------------------------------------------------


def test_bf16_trains_in_bfloat16_and_keeps_its_weights_whole(settings):
    trainer = prepared(settings, bf16=True)
    seen = []
    trainer.model.model[0].conv.register_forward_hook(lambda *facts: seen.append(facts[-1].dtype))
    trainer.train_epoch(0)
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
    before = {name: value.clone() for name, value in trainer.ema.ema.state_dict().items()}
    trainer.evaluate()
    assert all(torch.equal(value, before[name]) for name, value in trainer.ema.ema.state_dict().items())
    assert not trainer.scaler.is_enabled()


@pytest.mark.parametrize("flags", [{}, {"amp": False}])
def test_on_a_cpu_training_is_in_float32(settings, flags):
    trainer = prepared(settings, **flags)
    assert not trainer.precision.mixed
    assert not trainer.scaler.is_enabled()


def unrepeatable() -> torch.Tensor:
    """An operation that torch has no deterministic implementation of, on the CPU either."""
    return torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


def test_deterministic_by_default_warns_and_names_the_operation(settings):
    prepared(settings)
    assert torch.are_deterministic_algorithms_enabled()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        unrepeatable()
    assert any("put_" in str(warning.message) for warning in caught)


def test_deterministic_when_asked_for_ends_with_the_name_of_the_operation(settings):
    prepared(settings, deterministic=True)
    with pytest.raises(TrainingError, match=r"--deterministic: put_ has no repeatable implementation"), explained():
        unrepeatable()


def test_no_deterministic(settings):
    prepared(settings, deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark


def test_other_failures_pass():
    with pytest.raises(RuntimeError, match="shape"), explained(compiled=True):
        torch.zeros(2) @ torch.zeros(3, 3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compile_trains_to_the_same_losses(settings, tmp_path):
    cfg = tmp_path / "attentive.yaml"  # with attention, and without dropout, for which a compiled network draws anew
    cfg.write_text(TINY_MODEL.replace("nn.Dropout, [0.1]", "BiFormerBlock, []"))
    assert "BiFormerBlock" in cfg.read_text()
    rows = []
    for compiled in (False, True):
        options = train.run(**{**settings, "cfg": str(cfg), "compile": compiled, "name": f"compile-{compiled}"})
        (row,) = list(csv.reader((Path(options.save_dir) / "results.csv").read_text().splitlines()[1:]))
        rows.append([float(cell) for cell in row])
    np.testing.assert_allclose(rows[1][:4], rows[0][:4], rtol=1e-3)
    eager, compiled = (
        read_checkpoint(Path(settings["project"]) / f"compile-{state}" / "weights" / "last.pt").model
        for state in (False, True)
    )
    assert list(eager) == list(compiled)


def test_a_run_writes_settings_that_load_again(settings, tmp_path):
    options = train.run(**{**settings, "hyp": SMALL, "project": str(tmp_path)})
    stored = yaml_load(Path(options.save_dir) / "opt.yaml")
    assert stored["hyp"]["optimizer"] == "AdamW"
    yaml_save(tmp_path / "again.yaml", yaml_load(Path(options.save_dir) / "hyp.yaml"))
    assert load_hyperparameters(tmp_path / "again.yaml") == load_hyperparameters(SMALL)
