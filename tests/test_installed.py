"""The project installed: one package and one command, which finds its files and writes only where it is run."""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from picture_detector import save_picture_detector

from yolov5_biformer.__main__ import COMMANDS, available

ROOT = Path(__file__).resolve().parent.parent
NAME = "yolov5_biformer"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
SOURCES = ("models", "utils", "engine", "tools", "data", NAME)


def started(words: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


def of_clone(words: list[str], folder: Path) -> subprocess.CompletedProcess:
    return started([sys.executable, "-m", NAME, *words], folder, PYTHONPATH=str(ROOT))


# -- what is listed is all there is --------------------------------------------------------------------------------


def test_every_package_of_the_tree_is_installed():
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts) for name in SOURCES for path in (ROOT / name).rglob("__init__.py")
    }
    installed = {name if name == NAME else f"{NAME}.{name}" for name in packages}
    assert set(SETTINGS["packages"]) == {*installed, f"{NAME}.data"}


@pytest.mark.parametrize("folder", ["models", "data"])
def test_every_data_file_is_installed(folder):
    patterns = SETTINGS["package-data"][f"{NAME}.{folder}"]
    files = [
        path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.*") if path.suffix in {".yaml", ".jpg"}
    ]
    assert len(files) > 5
    assert not [str(file) for file in files if not any(fnmatch.fnmatch(str(file), pattern) for pattern in patterns)]


def test_every_script_has_a_command():
    scripts = {path.stem for path in ROOT.glob("*.py")} - {"setup", "hubconf"}
    assert scripts <= set(available())
    assert scripts == {module for module, _ in COMMANDS.values() if "." not in module and module in available()}


# -- the command, from a clone -------------------------------------------------------------------------------------


def test_help_lists_the_commands_and_does_not_wait_for_torch(tmp_path):
    done = of_clone(["--help"], tmp_path)
    assert done.returncode == 0 and all(f"\n  {name} " in done.stdout for name in available())
    code = f"import sys; sys.argv = ['x', 'detect', '--help']\nfrom {NAME}.__main__ import main\n"
    code += "try:\n    main()\nexcept SystemExit as stop:\n    print(stop.code, 'torch' in sys.modules)"
    done = started([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(ROOT))
    assert done.stdout.startswith("usage: yolov5-biformer detect") and done.stdout.endswith("\n0 False\n")


@pytest.mark.parametrize("words", [[], ["fly"], ["detect", "--max-det", "0"]])
def test_a_users_mistake_ends_with_2(words, tmp_path):
    done = of_clone(words, tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: " in done.stderr.splitlines()[-1]


def test_another_package_of_the_same_name_is_named(tmp_path):
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; import utils; sys.path.append({str(ROOT)!r})\n"
    code += f"import {NAME}\n{NAME}.load('best.pt')"
    done = started([sys.executable, "-c", code], tmp_path)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: this program has another package `utils` loaded") and str(tmp_path) in last


def test_one_that_is_not_loaded_yet_stands_back(tmp_path):
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; sys.path.append({str(ROOT)!r})\n"
    code += f"import {NAME}; {NAME}.add_to_path(); {NAME}.add_to_path()\nimport utils.errors\n"
    code += f"assert sys.path.count({str(ROOT)!r}) == 1 and sys.path[0] == {str(ROOT)!r}"
    done = started([sys.executable, "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr


# -- the wheel -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, since building leaves files behind."""
    pytest.importorskip("setuptools", minversion="70.1")
    copy = tmp_path_factory.mktemp("source") / "project"
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=unwanted)
    for path in [*ROOT.glob("*.py"), *(ROOT / name for name in ("pyproject.toml", "requirements.txt", "README.md"))]:
        shutil.copy(path, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = started([*pip, "--wheel-dir", str(copy.parent), str(copy)], copy)
    assert done.returncode == 0, done.stderr
    (built,) = copy.parent.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_has_one_package_with_everything(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {NAME}
    wanted = [path for name in SOURCES[:-1] for path in (ROOT / name).rglob("*.*")] + list(ROOT.glob("*.py"))
    files = {str(path.relative_to(ROOT)) for path in wanted if path.suffix in {".py", ".yaml", ".jpg"}} - {"setup.py"}
    assert not {name for name in files if f"{NAME}/{name}" not in names}


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """The wheel installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    done = started([*pip, str(folder), str(wheel)], folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def installed(site, tmp_path):
    """Runs the installed command in an empty folder."""

    def run(*words: str) -> subprocess.CompletedProcess:
        done = started([str(site / "bin" / "yolov5-biformer"), *words], tmp_path, PYTHONPATH=str(site))
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.mark.slow
def test_every_installed_command_has_help(installed):
    for name in available():
        assert "usage: " in installed(name, "--help").stdout


@pytest.mark.slow
def test_installed_it_trains_and_detects_in_an_empty_folder(installed, site, tmp_path):
    """With the set and the pictures of its own, found by their usual names."""
    before = {path for path in site.rglob("*") if "__pycache__" not in path.parts}
    installed("model", "yolov5s6.yaml")
    settings = ["--img", "32", "--batch-size", "60", "--epochs", "1", "--workers", "0", "--noplots", "--device", "cpu"]
    installed("train", "--cfg", "yolov5n.yaml", "--weights", "", "--hyp", "hyp.VOC.yaml", *settings)
    assert (tmp_path / "datasets" / "shapes" / "images" / "train").is_dir()
    weights = "runs/train/exp/weights/best.pt"
    said = installed("detect", "--weights", weights, "--img", "64", "--device", "cpu").stderr
    assert f"{site / NAME / 'data' / 'images'}" in said
    assert len(list((tmp_path / "runs" / "detect" / "exp").glob("*.jpg"))) == 3
    assert {path for path in site.rglob("*") if "__pycache__" not in path.parts} == before  # nothing written there


@pytest.mark.slow
def test_installed_it_is_a_library(site, tmp_path):
    save_picture_detector(tmp_path / "best.pt")
    code = (
        "import yolov5_biformer, sys\n"
        "assert 'torch' not in sys.modules\n"
        "model = yolov5_biformer.load('best.pt', device='cpu', verbose=False)\n"
        "from models.common import DetectMultiBackend\n"
        "import models\n"
        "picture = yolov5_biformer.project_folder() / 'data' / 'images' / 'shapes_plain.jpg'\n"
        "print(models.__file__, len(model(picture, size=64).xyxy[0]) > 0)\n"
    )
    done = started([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(site))
    assert done.stdout == f"{site / NAME / 'models' / '__init__.py'} True\n", done.stderr
    assert not done.stderr
