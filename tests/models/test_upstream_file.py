"""Checkpoints as YOLOv5 writes them: read without its classes, computing what they computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.options.train import TrainOptions
from engine.setup import Names, build_model
from golden_formulas import assert_golden, golden_arrays, golden_json, uniform
from models.checkpoint import model_from_checkpoint, read_checkpoint, write_checkpoint
from models.experimental import attempt_load
from utils.errors import CheckpointError
from utils.stripping import strip_optimizer

NAMES = {0: "cat", 1: "狗"}


def predictions(model: torch.nn.Module, size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.from_numpy(uniform("upstream picture", (1, 3, *size))))[0]


@pytest.mark.parametrize("name", ["v5", "v3", "module", "parallel"])
def test_the_network_computes_what_it_did(name: str, upstream_files: Path) -> None:
    wanted = torch.load(upstream_files / "expected.pt", weights_only=True)[name]
    model = model_from_checkpoint(read_checkpoint(upstream_files / f"{name}.pt"))
    assert model.names == NAMES
    torch.testing.assert_close(predictions(model), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(predictions(attempt_load(upstream_files / f"{name}.pt")), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.golden
def test_a_file_with_the_golden_weights_predicts_what_yolov5_did(upstream_files: Path) -> None:
    case = golden_json("forward")["cases"]["n_eval"]
    model = model_from_checkpoint(read_checkpoint(upstream_files / "last.pt"))
    with torch.no_grad():
        found = model(torch.from_numpy(uniform(case["input"], case["shape"])))[0]
    assert_golden(found, golden_arrays("forward")["n_eval.pred"], case["tol_pred"])


def test_a_stripped_file(upstream_files: Path) -> None:
    checkpoint = read_checkpoint(upstream_files / "best.pt")
    assert (checkpoint.epoch, checkpoint.best_fitness, checkpoint.ema, checkpoint.updates) == (-1, None, None, None)
    assert {t.dtype for t in checkpoint.model.values() if t.is_floating_point()} == {torch.float16}
    assert checkpoint.opt["data"] == "/data/coco.yaml"  # was a path
    assert checkpoint.git == {"remote": "https://example.org/yolov5", "branch": "master", "commit": "abc"}
    assert checkpoint.date == "2023-05-01T12:00:00.123456"
    assert (checkpoint.meta.names, checkpoint.meta.nc, checkpoint.meta.stride) == (NAMES, 2, [4.0, 8.0])
    model = model_from_checkpoint(checkpoint)
    assert model.imgsz == 320
    wanted = torch.load(upstream_files / "expected.pt", weights_only=True)["best"]
    torch.testing.assert_close(predictions(model), wanted, rtol=0.05, atol=0.5)  # px; half precision lost the rest


def test_a_file_from_the_middle_of_a_training(upstream_files: Path) -> None:
    checkpoint = read_checkpoint(upstream_files / "last.pt")
    assert (checkpoint.epoch, checkpoint.best_fitness, checkpoint.updates) == (7, 0.25, 123)
    assert checkpoint.opt == {"imgsz": 640, "save_dir": "runs/exp", "freeze": [0], "seen": [1, 2]}
    assert checkpoint.meta.hyp == {"lr0": 0.01, "anchors": 3}
    assert type(checkpoint.meta.hyp["lr0"]) is float
    assert checkpoint.meta.nc == 80
    assert list(checkpoint.ema) == list(checkpoint.model)
    changed = [name for name in checkpoint.model if not torch.equal(checkpoint.model[name], checkpoint.ema[name])]
    assert changed == []  # gradients were 0


def test_a_file_of_v5(upstream_files: Path) -> None:
    checkpoint = read_checkpoint(upstream_files / "v5.pt")
    assert (checkpoint.epoch, checkpoint.best_fitness, checkpoint.updates) == (2, 0.5, 55)
    assert checkpoint.opt == {"save_dir": "C:\\runs\\exp"}
    assert not [name for name in checkpoint.model if "anchor_grid" in name]


def test_what_only_the_objects_tell_is_in_the_yaml(upstream_files: Path) -> None:
    checkpoint = read_checkpoint(upstream_files / "v3.pt")
    keys = ("activation", "block_activation", "bn_eps", "bn_momentum")
    assert [checkpoint.meta.yaml[key] for key in keys] == ["nn.Hardswish()", "nn.LeakyReLU(0.1)", 1e-5, 0.1]
    assert not set(keys) & set(read_checkpoint(upstream_files / "module.pt").meta.yaml)


@pytest.mark.parametrize("name", ["best", "last", "v5", "v3"])
def test_what_is_written_again_is_plain_data(name: str, upstream_files: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(upstream_files / f"{name}.pt")
    write_checkpoint(tmp_path / "new.pt", checkpoint)
    torch.load(tmp_path / "new.pt", weights_only=True)
    again = read_checkpoint(tmp_path / "new.pt")
    assert again.meta == checkpoint.meta
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in checkpoint.weights.items())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("uneven", r"model\.1\.act is nn\.ReLU\(\), but its yaml builds nn\.SiLU\(\)"),
        ("dilated", r"model\.3\.conv\.dilation is \[2, 2\], but its yaml builds \(1, 1\)"),
        ("unadded", r"model\.2\.m\.0\.add is False"),
        ("rewired", r"model\.8\.f is \[-1, 3\]"),
        ("other-kind", r"model\.4 is a SPPF, but its yaml builds a SPP:"),
        ("strides", r"strides of size \(1000,\) for 2 levels"),
        ("long", r"model\.1\.conv\.dilation is \[1, 1, 1"),
        ("odd-act", r"activation 'nn\.LeakyReLU\(1267650600228229401496703205376\)'"),
        ("map", r"Upsample makes a map of size"),
        ("pruned", r"12 tensors do not fit the file's own yaml: model\.2\.m\.0\.cv1\.conv\.weight missing"),
        ("other-average", "12 tensors do not fit"),
        ("fused", "norms were folded"),
        ("unknown", r"asks for models\.common\.CBAM, which this project does not have"),
        ("nameless", "1 class names for 2 classes"),
        ("no-yaml", "no `yaml` to build it from"),
        ("longer", r"longer\.yaml: its rows ask for 19,8\d\d layers"),
        ("cyclic", "deeper than 30 levels"),
        ("linear", r"holds a torch\.nn\.modules\.linear\.Linear, which is no detection model"),
    ],
)
def test_a_network_that_cannot_be_the_same_here_is_refused(name: str, words: str, upstream_files: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{name}\.pt: .*{words}"):
        read_checkpoint(upstream_files / f"{name}.pt")


def test_a_part_with_changed_bits_is_noticed(upstream_files: Path, tmp_path: Path) -> None:
    content = bytearray((upstream_files / "best.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "changed.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"changed\.pt: damaged.*CRC"):
        read_checkpoint(tmp_path / "changed.pt")


def test_stripping_points_at_the_converter(upstream_files: Path) -> None:
    before = (upstream_files / "v5.pt").read_bytes()
    with pytest.raises(CheckpointError, match=r"python -m tools\.checkpoint convert .*v5\.pt"):
        strip_optimizer(upstream_files / "v5.pt")
    assert (upstream_files / "v5.pt").read_bytes() == before


def test_raw_weights_and_anchors_go_over_to_another_network(upstream_files: Path) -> None:
    options = TrainOptions.from_kwargs(weights=str(upstream_files / "last.pt"), cfg="yolov5n.yaml")
    model = build_model(options, Names(2, dict(NAMES)), {})
    source = read_checkpoint(upstream_files / "last.pt").model
    assert torch.equal(model.model[0].conv.weight, source["model.0.conv.weight"].float())
    assert torch.equal(model.model[-1].anchors, source["model.24.anchors"].float())
