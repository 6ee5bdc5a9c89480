"""The small helpers: sizes, seeds, devices, state dicts, stripping, class weights, requirements."""

from __future__ import annotations

import logging
import os

import numpy as np
import pytest
import torch
from torch import nn

from utils.class_weights import labels_to_class_weights, labels_to_image_weights
from utils.devices import de_parallel, is_parallel, select_device, smart_inference_mode
from utils.dist import (
    all_gather,
    connected,
    from_main,
    is_main,
    local_rank,
    main_first,
    process_group,
    rank,
    world_size,
)
from utils.environment import check_requirements, print_args
from utils.errors import BackendError, CheckpointError, OptionError, first_line
from utils.log import LOGGER, colorstr
from utils.profiling import Profile, time_sync
from utils.sizes import check_img_size, grid_size, make_divisible
from utils.state_dicts import intersect_dicts
from utils.stripping import strip_optimizer
from utils.weights_file import save_atomically
from utils.wording import count_classes, describe_speed


def test_detections_are_counted_in_words():
    names = {0: "Platelets", 1: "RBC", 2: "公交车"}
    assert count_classes([1, 0, 0, 2, 1, 1, 2], names) == "2 Platelets, 3 RBCs, 2 公交车"
    assert count_classes([1, 0], names) == "1 Platelets, 1 RBC"
    assert count_classes([7], names) == "1 7"
    assert count_classes([], names) == "(no detections)"


@pytest.fixture
def log(heard):
    heard.set_level(logging.INFO, LOGGER.name)
    return heard


@pytest.mark.parametrize(
    ("x", "divisor", "expected"), [(0, 8, 0), (1, 8, 8), (8, 8, 8), (8.1, 8, 16), (33, torch.tensor([8, 32]), 64)]
)
def test_make_divisible(x, divisor, expected):
    assert make_divisible(x, divisor) == expected


@pytest.mark.parametrize(
    ("size", "settings", "expected"),
    [
        (640, {}, 640),
        (641, {}, 672),
        (1, {"floor": 64}, 64),
        ([640, 470], {}, [640, 480]),
        ((64, 65), {"s": 64}, [64, 128]),
        (100, {"s": torch.tensor([8.0, 16.0, 32.0])}, 128),
    ],
)
def test_check_img_size(size, settings, expected, log):
    assert check_img_size(size, **settings) == expected
    assert bool(log.records) == (np.ravel(size).tolist() != np.ravel(expected).tolist())


@pytest.mark.parametrize(("stride", "grid"), [(8, 32), (64, 64), (torch.tensor([8.0, 16.0, 64.0]), 64)])
def test_grid_size(stride, grid):
    assert grid_size(stride) == grid


def test_colours_of_the_terminal():
    assert colorstr("x") == "\033[34m\033[1mx\033[0m"
    assert colorstr("red", "x") == "\033[31mx\033[0m"
    assert colorstr("bright_white", "underline", "x") == "\033[97m\033[4mx\033[0m"
    with pytest.raises(KeyError):
        colorstr("beige", "x")


def test_line_about_speed():
    line = describe_speed((0.25, 12.34, 1.0), (16, 3, 320, 640))
    assert line.startswith("Speed: 0.2 ms ")
    assert "12.3 ms in the network, 1.0 ms for NMS" in line
    assert "batches of 16, 320x640 px" in line


@pytest.mark.parametrize(("text", "line"), [("", "ValueError"), ("one\ntwo", "one"), ("x" * 300, "x" * 200)])
def test_first_line_of_an_error(text, line):
    assert first_line(ValueError(text)) == line


def test_class_weights():
    labels = [np.zeros((0, 5)), np.array([[0, 0, 0, 1, 1], [0, 0, 0, 1, 1.0]]), np.array([[1, 0, 0, 1, 1.0]])]
    torch.testing.assert_close(labels_to_class_weights([], 3), torch.zeros(0))
    # Counts 2, 1 and, for the class that does not occur, 1: inverse 0.5, 1, 1.
    torch.testing.assert_close(labels_to_class_weights(labels, 3), torch.tensor([0.2, 0.4, 0.4]))
    np.testing.assert_allclose(labels_to_image_weights(labels, 3), [0, 2, 1])
    np.testing.assert_allclose(labels_to_image_weights(labels, 3, np.array([0.5, 3, 1])), [0, 1, 3])


def test_intersect_dicts():
    a = {"one": torch.zeros(2), "two": torch.zeros(3), "anchors": torch.zeros(1), "more": torch.zeros(1)}
    b = {"one": torch.ones(2), "two": torch.ones(4), "anchors": torch.ones(1)}
    assert intersect_dicts({}, b) == {}
    assert list(intersect_dicts(a, b)) == ["one", "anchors"]
    assert list(intersect_dicts(a, b, exclude=["anchor"])) == ["one"]


def checkpoint_dict(ema):
    return {
        "model": {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)},
        "ema": ema,
        "optimizer": {"state": {}},
        "updates": 7,
        "best_fitness": 0.5,
        "epoch": 3,
        "extra": {"a": 1},
        "opt": {"imgsz": 64},
        "meta": {"nc": 2},
    }


@pytest.mark.parametrize("ema", [None, {"w": torch.tensor([5.0, 6.0]), "n": torch.tensor(3)}])
def test_stripping(tmp_path, ema):
    path, other = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save(checkpoint_dict(ema), path)
    before = path.read_bytes()
    strip_optimizer(path, other)
    assert path.read_bytes() == before
    strip_optimizer(path)
    for file in (path, other):
        content = torch.load(file, weights_only=True)
        expected = (ema or checkpoint_dict(ema)["model"])["w"].half()
        assert torch.equal(content["model"]["w"], expected)
        assert content["model"]["n"].dtype == torch.int64
        cleared = ("ema", "optimizer", "updates", "best_fitness")
        assert all(content[name] is None for name in cleared)
        assert (content["epoch"], content["extra"], content["opt"]) == (-1, {}, {"imgsz": 64})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_a_weights_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "a.pt").mkdir()
    with pytest.raises(CheckpointError, match=r"a\.pt: cannot be written"):
        save_atomically({}, tmp_path / "a.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_stripping_refuses_other_files(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt", "missing.pt"):
        with pytest.raises(CheckpointError, match=name):
            strip_optimizer(tmp_path / name)


def test_select_device(log, monkeypatch):
    assert select_device("cpu") == torch.device("cpu")
    assert torch.__version__ in log.text
    assert "CPU" in log.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert select_device("") == torch.device("cpu")
    for name in ("0", "cuda:1", "0,1", "cuda"):
        with pytest.raises(BackendError, match="--device cpu"):
            select_device(name)
    with pytest.raises(BackendError, match="no device"):
        select_device("gpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_parallel_wrappers():
    model = nn.Linear(1, 1)
    assert not is_parallel(model)
    assert de_parallel(model) is model
    wrapped = nn.DataParallel(model)
    assert is_parallel(wrapped)
    assert de_parallel(wrapped) is model


def test_inference_mode_records_nothing():
    @smart_inference_mode()
    def double(x):
        return x * 2

    assert not double(torch.ones(1, requires_grad=True)).requires_grad


def test_launcher_environment(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert (world_size(), rank(), local_rank(), is_main()) == (1, -1, -1, True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert (world_size(), rank(), is_main()) == (2, 1, False)
    with (
        pytest.raises(OptionError, match=r"WORLD_SIZE=2 says several processes, .* start them with torchrun"),
        process_group(torch.device("cpu")),
    ):
        pytest.fail("there is nobody to meet")
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(OptionError, match="many"):
        world_size()


def test_a_process_of_its_own_gathers_from_itself():
    with process_group(torch.device("cpu")), main_first():
        assert not connected()
        assert all_gather({"a": 1}) == [{"a": 1}]
        assert from_main("mine") == "mine"


def test_profile_adds_up():
    watch = Profile(t=1.0)
    for _ in range(2):
        with watch:
            start = time_sync()
            while time_sync() - start < 0.002:
                pass
    assert watch.dt >= 0.002
    assert watch.t >= 1.004


def test_requirements(tmp_path):
    check_requirements([])
    check_requirements("torch>=2.0")
    check_requirements(["numpy", "no-such-package-here==1"], exclude=["no-such-package-here"])
    file = tmp_path / "requirements.txt"
    file.write_text("# comment\n\nnumpy>=1\nno-such-package-here>=3  # why\n")
    with pytest.raises(BackendError, match='pip install "no-such-package-here>=3"'):
        check_requirements(file)


def test_print_args(log):
    def example(first, second=2):
        print_args()
        print_args({"a": 1}, show_file=False, show_func=True)

    example("x")
    assert "test_small_parts: " in log.messages[0]
    assert log.messages[0].endswith("first=x, second=2")
    assert "example: " in log.messages[1]
    assert log.messages[1].endswith("a=1")
