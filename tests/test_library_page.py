"""The library's documentation: every block of code runs as it stands."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
from picture_detector import picture_detector, random_picture, save_picture_detector

from models.common import AutoShape
from utils.image_io import write_image
from yolov5_biformer.__main__ import available, main

ROOT = Path(__file__).resolve().parent.parent
PAGE, README = ROOT / "docs" / "library.md", ROOT / "README.md"


def section(heading: str) -> str:
    return README.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(autouse=True)
def folder_of_the_page(tmp_path, monkeypatch, logger_as_before):
    """What the page speaks of, and everything in the process as it was afterwards."""
    settings = dict(mpl.rcParams)
    save_picture_detector(tmp_path / "best.pt")
    for seed, name in enumerate(("bus.jpg", "street.jpg")):
        write_image(tmp_path / name, random_picture(96, 128, seed))
    (tmp_path / "yolov5-biformer").symlink_to(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield
    mpl.rcParams.update(settings)


def run_blocks(text: str) -> dict:
    names: dict = {}
    for code in blocks(text, "python"):
        if "import supervision" in code and not importlib.util.find_spec("supervision"):
            continue
        exec(compile(code, "block of the page", "exec"), names)
    return names


def test_the_pages_code_runs(tmp_path):
    names = run_blocks(PAGE.read_text(encoding="utf-8"))
    results, model = names["results"], names["model"]
    assert len(results) == 4 and len(names["boxes"]) > 5 and len(names["table"]) == len(names["boxes"])
    assert 0 < len(names["buses"]) < len(names["table"])
    assert len(names["crops"]) == sum(map(len, results.pred)) and results.ims is names["drawn"]
    assert sorted(path.name for path in names["folder"].iterdir()) == [
        "bus.jpg",
        "bus2.jpg",
        "image2.jpg",
        "image3.jpg",
    ]
    assert names["untrained"].nc == 3
    assert len(model("bus.jpg").pred[0]) == len(names["boxes"])  # yolov5_biformer.load gives the same detector


def test_settings_of_the_page_are_the_first_values():
    fresh = AutoShape(picture_detector(), verbose=False)
    shown = re.findall(r"^model\.(\w+) = ([\w.]+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(shown) == 7
    assert {name: str(getattr(fresh, name)) for name, _ in shown} == dict(shown)


def test_the_readmes_code_runs(tmp_path):
    names = run_blocks(section("As a library"))
    assert len(names["results"]) == 2 and names["results"].pred[0][:, 4].min() > 0.4
    assert len(list((tmp_path / "runs" / "detect" / "exp").iterdir())) == 2


def test_the_pages_commands_run(tmp_path, monkeypatch):
    commands = [line for block in blocks(PAGE.read_text(encoding="utf-8"), "bash") for line in block.splitlines()]
    own = [shlex.split(line) for line in commands if line.startswith("yolov5-biformer ")]
    assert own and commands[0] == "pip install ."  # which tests/test_installed.py does
    for words in own:
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
    assert (tmp_path / "runs" / "detect" / "exp" / "bus.jpg").is_file()


def test_all_commands_are_named_on_the_page():
    text = PAGE.read_text(encoding="utf-8").split("## Installed\n")[1]
    assert not [name for name in available() if f"`{name}`" not in text and f"yolov5-biformer {name}`" not in text]
