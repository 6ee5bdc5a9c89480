"""Without a network every documented command works: each is listed with a run of it that has none."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.checkpoint import Checkpoint, ModelMeta, write_checkpoint
from models.yolo import DetectionModel
from utils.datasets.shapes import CLASSES

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "engine"))
from tiny_dataset import make_dataset  # noqa: E402 - the folder has just been put on the path

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS_AN_INDEX = {"make setup", "make demo", "make test", "make check", "make fmt", "pip"}  # their first call installs

BEST = "runs/train/exp/weights/best.pt"  # what the run of train.py writes
# Command -> a small run of it; {data}, {set} and {voc} are made for the test
RUNS = {
    "train.py": "--data {data} --cfg yolov5n-biformer.yaml --weights '' --img 64 --batch 4 --epochs 1 "
    "--workers 1 {cpu}",
    "val.py": "--data {data} --weights {best} --img 64 --workers 1 --coco-eval --slices {cpu}",
    "detect.py": "--weights {best} --source {set} --recursive --img 64 --conf 0.001 --show-routing 32,32 {cpu}",
    "export.py": "--weights {best} --include torchscript onnx openvino --img 64",
    "ablate.py": "--data {data} --img 64 --epochs 1 --batch 4 --seeds 0 1 --variants +BiFormerBlock@after:sppf "
    "--baseline yolov5n.yaml --workers 0 {cpu}",
    "benchmark.py attention": "--sizes 64 --levels P5 --repeats 2 --seconds 0.1 --quick {cpu}",
    "benchmark.py tiling": "--weights shapes.pt --imgsz 64 --tile 64 --images 1 --side 320 {cpu}",
    "benchmark.py detect": "--weights {best} --imgsz 64 --frames 4 --repeats 1 --quick {cpu}",
    "benchmark.py formats": "--weights {best} --data {data} --img 64 --formats pytorch onnx --repeats 1",
    "benchmark.py index": "--quick",
    "benchmark.py growth": "--quick {cpu}",
    "benchmark.py pipeline": "--data {data} --quick {cpu}",
    "tools.doctor": "{data} --img 64",
    "tools.model": "yolov5s.yaml --insert BiFormerBlock@after:sppf",
    "tools.checkpoint": "show {best}",
    "tools.convert": "voc {voc} converted",
    "tools.fuzz": "--cases 40 --folder fuzzed",
    "yolov5-biformer": "model yolov5n.yaml",
    "torchrun": "--standalone --nproc_per_node 2 {root}/train.py --data {data} --cfg yolov5n.yaml --weights '' "
    "--img 64 --batch 4 --epochs 1 --workers 0 --noplots {cpu}",
}

REACHING = re.compile(r"^\s*(?:import|from) (urllib\.request|socket|requests|ftplib|smtplib)\b", re.MULTILINE)

# What Python runs first in every process: whatever leaves this machine is written down, and fails.
BLOCKADE = """
import os, socket, sys
HERE = ("127.0.0.1", "::1", "localhost", "", None, "0.0.0.0", "::", socket.gethostname())
def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        host = address[0] if isinstance(address, tuple) else None if event == "socket.connect" else address
        if host not in HERE:
            with open(os.environ["LEFT"], "a") as file:
                print(event, host, file=file)
            raise OSError("there is no network")
sys.addaudithook(watch)
"""


def documented() -> Iterator[str]:
    """Every command in a shell block of the documentation, by its name."""
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                yield from (name_of(part.split()) for part in re.split(r"&&|;|\|", line.split("#")[0]) if part.strip())


def name_of(words: list[str]) -> str:
    """``benchmark.py tiling`` of ``python benchmark.py tiling --docs``."""
    while "=" in words[0]:
        words = words[1:]
    if words[0].startswith("python"):
        words = words[2:] if words[1] == "-m" else words[1:]
    return " ".join(words[: 2 if words[0] in ("benchmark.py", "make", "git") else 1])


def test_every_documented_command_has_a_run():
    found = set(documented())
    assert len(found) > 10
    assert not found - set(RUNS) - NEEDS_AN_INDEX, "documented, but not run without a network"


def test_runs_name_only_what_is_there():
    scripts = {path.name for path in ROOT.glob("*.py")} - {"setup.py", "hubconf.py"}
    assert scripts <= {name.split()[0] for name in RUNS}
    for name in RUNS:
        place = name.split()[0].removeprefix("tools.") if name.startswith("tools.") else ""
        assert not place or (ROOT / "tools" / f"{place}.py").is_file() or (ROOT / "tools" / place).is_dir()


def test_the_suite_is_offline():
    import socket
    import urllib.request

    for reach in (
        lambda: urllib.request.urlopen("http://example.org", timeout=1),
        lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
        lambda: socket.socket().connect_ex(("192.0.2.1", 80)),
    ):
        with pytest.raises(OSError, match="offline"):
            reach()


def test_no_module_of_the_project_reaches_out_but_those_that_are_told_to():
    """Addresses are opened for pictures and streams that the user names, and for --download."""
    reaching = {"utils/image_io.py", "utils/datasets/download.py"}
    for package in ("utils", "models", "engine", "tools", "yolov5_biformer"):
        for path in (ROOT / package).rglob("*.py"):
            opens = REACHING.findall(path.read_text(encoding="utf-8"))
            assert not opens or str(path.relative_to(ROOT)) in reaching, f"{path} imports {opens}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the runs need, in which train.py has been run."""
    folder = tmp_path_factory.mktemp("offline")
    make_dataset(folder / "set", train=8, val=4)
    for name in ("Annotations", "JPEGImages"):
        (folder / "voc" / name).mkdir(parents=True)
    cv2.imwrite(str(folder / "voc" / "JPEGImages" / "a.jpg"), np.zeros((32, 32, 3), np.uint8))
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    text = f"<annotation><object><name>dog</name>{box}</object></annotation>"
    (folder / "voc" / "Annotations" / "a.xml").write_text(text)
    (folder / "block").mkdir()
    (folder / "block" / "sitecustomize.py").write_text(BLOCKADE)
    model = DetectionModel("yolov5n.yaml", nc=len(CLASSES))
    model.names = dict(enumerate(CLASSES))
    write_checkpoint(folder / "shapes.pt", Checkpoint(model.state_dict(), ModelMeta.of(model)))
    run_blocked("train.py", folder)
    return folder


def run_blocked(name: str, folder: Path) -> None:
    """Run a command in processes that cannot reach anything; it must end well, and must not have tried."""
    words = RUNS[name].format(
        data=folder / "set" / "data.yaml", set="set", voc="voc", best=BEST, root=ROOT, cpu="--device cpu"
    )
    done = started([*program(name), *shlex.split(words)], folder)
    assert done.returncode == 0, f"{name}: {done.stderr[-2000:]}"
    assert not (folder / "left.txt").exists(), f"{name}: {(folder / 'left.txt').read_text()}"


def started(words: list[str], folder: Path) -> subprocess.CompletedProcess:
    variables = {
        "PYTHONPATH": f"{folder / 'block'}{os.pathsep}{ROOT}",
        "LEFT": str(folder / "left.txt"),
        "OMP_NUM_THREADS": "1",
    }
    environment = {**os.environ, **variables}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)


def program(name: str) -> list[str]:
    """What starts a command."""
    first, *rest = name.split()
    module = {"yolov5-biformer": "yolov5_biformer", "torchrun": "torch.distributed.run"}.get(first, first)
    return [sys.executable, *([str(ROOT / first), *rest] if first.endswith(".py") else ["-m", module])]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RUNS if name != "train.py"])
def test_a_documented_command_works_without_a_network(name: str, place: Path):
    run_blocked(name, place)


def test_the_blockade_sees_what_it_should(tmp_path: Path):
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "sitecustomize.py").write_text(BLOCKADE)
    done = started([sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 1)"], tmp_path)
    assert done.returncode == 1 and "there is no network" in done.stderr
    assert "192.0.2.1" in (tmp_path / "left.txt").read_text()
