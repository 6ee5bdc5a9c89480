"""Checkpoints: plain data, whole or not there, and clear words for anything else."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from golden_formulas import fill_module
from models.checkpoint import (
    Checkpoint,
    ModelMeta,
    model_from_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from models.common import DetectMultiBackend
from models.experimental import attempt_load
from models.yolo import DetectionModel
from utils.errors import BackendError, CheckpointError, ConfigError
from utils.stripping import strip_optimizer


def small_model(nc: int = 2) -> DetectionModel:
    model = fill_module(DetectionModel("yolov5n.yaml", nc=nc), "golden:", 1.5).eval()
    model.names = {0: "cat", 1: "狗"}
    return model


def checkpoint_of(model: DetectionModel, **parts) -> Checkpoint:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return Checkpoint(model=state, meta=ModelMeta.of(model), **parts)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("written") / "last.pt"
    write_checkpoint(file, checkpoint_of(small_model(), epoch=3, best_fitness=0.5, opt={"epochs": 9}))
    return file


@pytest.fixture
def saved(written: Path, tmp_path: Path) -> Path:
    """A copy of one's own, to change at will."""
    return Path(shutil.copy(written, tmp_path))


def predictions(model: torch.nn.Module) -> torch.Tensor:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model(x)[0]


def test_round_trip(saved: Path) -> None:
    checkpoint = read_checkpoint(saved)
    assert (checkpoint.epoch, checkpoint.best_fitness, checkpoint.opt) == (3, 0.5, {"epochs": 9})
    model = model_from_checkpoint(checkpoint)
    assert model.names == {0: "cat", 1: "狗"}
    assert not model.training
    torch.testing.assert_close(predictions(model), predictions(small_model()), rtol=0, atol=0)


def test_the_file_is_plain_data(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    assert {"epoch", "best_fitness", "model", "ema", "updates", "optimizer", "opt", "git", "date"} <= set(content)


def test_the_average_is_what_predicts(tmp_path: Path) -> None:
    model, average = small_model(), {name: t * 0.5 for name, t in small_model().state_dict().items()}
    checkpoint = checkpoint_of(model, ema=average)
    write_checkpoint(tmp_path / "x.pt", checkpoint)
    loaded = model_from_checkpoint(read_checkpoint(tmp_path / "x.pt"))
    torch.testing.assert_close(loaded.model[0].conv.weight, average["model.0.conv.weight"], rtol=0, atol=0)
    raw = model_from_checkpoint(checkpoint, ema=False)
    torch.testing.assert_close(raw.model[0].conv.weight, model.model[0].conv.weight, rtol=0, atol=0)


def test_stripping(tmp_path: Path, saved: Path) -> None:
    strip_optimizer(saved, tmp_path / "small.pt")
    small = read_checkpoint(tmp_path / "small.pt")
    assert (small.epoch, small.best_fitness, small.ema, small.optimizer, small.updates) == (-1, None, None, None, None)
    assert {t.dtype for t in small.model.values() if t.is_floating_point()} == {torch.float16}
    assert (tmp_path / "small.pt").stat().st_size < 0.6 * saved.stat().st_size
    assert read_checkpoint(saved).epoch == 3  # the source stays


def test_a_failed_write_leaves_the_old_file_and_no_litter(saved: Path) -> None:
    broken = checkpoint_of(small_model(), extra={"no data": lambda: None})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        write_checkpoint(saved, broken)
    assert read_checkpoint(saved).epoch == 3
    assert [path.name for path in saved.parent.iterdir()] == ["last.pt"]


class Hostile:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", b"PK\x03\x04 torn", pickle.dumps({"model": 1}), pickle.dumps(Hostile())],
    ids=["empty", "text", "torn", "pickle", "hostile"],
)
def test_damaged_and_hostile_files(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.pt"):
        read_checkpoint(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.pt"]


@pytest.mark.parametrize(
    "content",
    [
        {},
        [1, 2],
        {"format": 1, "meta": {}},
        {"format": 99, "meta": {}, "model": {}},
        {"format": 1, "meta": {}, "model": {"a": 1}},
        {"format": 1, "meta": {"yaml": 1, "names": 2, "nc": 3, "stride": 4, "hyp": 5}, "model": {}},
    ],
    ids=repr,
)
def test_other_pytorch_files(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt"):
        read_checkpoint(tmp_path / "other.pt")


def test_truncated_file(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        attempt_load(saved)


def test_tensors_that_do_not_fit_the_description(saved: Path) -> None:
    checkpoint = read_checkpoint(saved)
    del checkpoint.model["model.0.conv.weight"]
    write_checkpoint(saved, checkpoint)
    with pytest.raises(CheckpointError, match=r"last\.pt: .*does not fit"):
        attempt_load(saved)


def test_missing_file_is_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is downloaded"):
        attempt_load(tmp_path / "yolov5s.pt")


def test_attempt_load_fuses_and_predicts_alike(saved: Path) -> None:
    model = attempt_load(str(saved))
    assert not [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    torch.testing.assert_close(predictions(model), predictions(small_model()), rtol=1e-4, atol=1e-4)


def test_ensemble(saved: Path) -> None:
    one, two = attempt_load(saved), attempt_load([saved, saved])
    rows = predictions(one).shape[1]
    joined = predictions(two)
    assert joined.shape[1] == 2 * rows
    torch.testing.assert_close(joined[:, :rows], joined[:, rows:])
    assert (two.names, two.nc) == (one.names, one.nc)


def test_ensemble_of_unlike_models_is_refused(tmp_path: Path, saved: Path) -> None:
    write_checkpoint(tmp_path / "five.pt", checkpoint_of(DetectionModel("yolov5n.yaml", nc=5)))
    with pytest.raises(CheckpointError, match="same number of classes"):
        attempt_load([saved, tmp_path / "five.pt"])


def test_multi_backend(saved: Path) -> None:
    backend = DetectMultiBackend(saved)
    assert (backend.stride, backend.names, backend.pt, backend.onnx) == (32, {0: "cat", 1: "狗"}, True, False)
    backend.warmup()
    found = backend(torch.zeros(1, 3, 64, 64))
    assert isinstance(found, list)
    assert found[0].shape == (1, 252, 7)


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [({"weights": "model.engine"}, "TensorRT"), ({"dnn": True}, "OpenCV runs .onnx files")],
)
def test_multi_backend_refusals(kwargs: dict, expected: str, saved: Path) -> None:
    with pytest.raises(BackendError, match=expected):
        DetectMultiBackend(**{"weights": saved, **kwargs})


def test_half_precision_on_the_cpu_is_a_warning(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = DetectMultiBackend(saved, fp16=True)
    assert "single precision" in caplog.text
    assert not backend.fp16
    assert backend(torch.zeros(1, 3, 64, 64))[0].dtype == torch.float32


def test_names_of_a_data_set_replace_numbers_only(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [one, two]")
    assert DetectMultiBackend(saved, data=tmp_path / "data.yaml").names == {0: "cat", 1: "狗"}
    numbered = DetectionModel("yolov5n.yaml", nc=2)
    write_checkpoint(tmp_path / "numbered.pt", checkpoint_of(numbered))
    assert DetectMultiBackend(tmp_path / "numbered.pt", data=tmp_path / "data.yaml").names == {0: "one", 1: "two"}
    with pytest.raises(ConfigError, match=r"nope\.yaml"):
        DetectMultiBackend(saved, data="nope.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": torch.ones(3)}, "has format"),
        ({"format": "1" * 5000}, "has format"),
        ({"opt": [1]}, "`opt` cannot be a list"),
        ({"epoch": "3"}, "`epoch` cannot be a str"),
        ({"model": {3: torch.ones(1)}}, "`model` must be a dict of tensors"),
        ({"model": dict.fromkeys(map(str, range(100)), torch.ones(10_000))}, "values of its own"),
        ({"meta": {"yaml": {}, "names": {0: 1}, "nc": 1, "stride": [], "hyp": None}}, "a name for each"),
        ({"meta": {"yaml": {}, "names": {}, "nc": 10**30, "stride": [], "hyp": None}}, "a name for each"),
        ({"meta": {"yaml": {}, "names": {0: "\ud800"}, "nc": 1, "stride": [], "hyp": None}}, "a name for each"),
    ],
)
def test_parts_of_a_wrong_kind(change: dict, words: str, saved: Path) -> None:
    torch.save({**torch.load(saved, weights_only=True), **change}, saved)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_checkpoint(saved)
    assert len(str(caught.value)) < 200 + len(str(saved))


def test_a_description_cannot_ask_for_memory() -> None:
    checkpoint = checkpoint_of(DetectionModel("yolov5n.yaml", nc=2))
    checkpoint.meta.yaml["width_multiple"] = 100
    with pytest.raises(CheckpointError, match="does not fit its own description"):
        model_from_checkpoint(checkpoint)
