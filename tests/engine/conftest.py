"""What several tests of this folder start from; none of it is to be changed."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from exported_detector import FILES, SIZE, save_awake_detector
from tiny_dataset import make_dataset

import export
from tiny_detector import save_detector

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector whose answers are known."""
    return save_detector(tmp_path_factory.mktemp("weights") / "tiny.pt")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``best.pt`` and what the README's command makes of it, for batches of 2 images of 64 x 64 px."""
    folder = tmp_path_factory.mktemp("exported")
    save_awake_detector(folder / "best.pt")
    lines = README.read_text(encoding="utf-8").splitlines()
    (command,) = [line for line in lines if line.startswith("python export.py ")]
    words = [*command.partition(" #")[0].split()[2:], "--img", str(SIZE), "--batch-size", "2", "--device", "cpu"]
    with contextlib.chdir(folder):
        export.main(export.parse_opt(words))
    assert sorted(path.name for path in folder.iterdir()) == sorted(["best.pt", *FILES.values()])
    return folder


@pytest.fixture(scope="session")
def with_suppression(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with suppression inside, confidence above 0.3, IoU up to 0.5, for single images."""
    folder = tmp_path_factory.mktemp("suppression")
    weights = shutil.copyfile(exported / "best.pt", folder / "best.pt")
    options = {"imgsz": SIZE, "nms": True, "conf_thres": 0.3, "iou_thres": 0.5, "optimize": True}
    written = export.run(weights=weights, include=list(FILES), **options)
    assert written == [str(folder / name) for name in FILES.values()]
    return folder


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a data set: 4 pictures to train on, 3 to validate on."""
    return make_dataset(tmp_path_factory.mktemp("tiny_set") / "set", train=4, val=3, side=SIZE)
