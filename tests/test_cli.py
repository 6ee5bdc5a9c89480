"""The commands' flags are a contract: a flag that comes or goes must be meant."""

from __future__ import annotations

import argparse
import errno
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli import run_command
from engine.options.ablate import AblateOptions
from engine.options.benchmark import AttentionBenchmarkOptions, DetectBenchmarkOptions, FormatsBenchmarkOptions
from engine.options.detect import DetectOptions
from engine.options.export import ExportOptions
from engine.options.growth_benchmark import GrowthBenchmarkOptions
from engine.options.index_benchmark import IndexBenchmarkOptions
from engine.options.pipeline_benchmark import PipelineBenchmarkOptions
from engine.options.tiling_benchmark import TilingBenchmarkOptions
from engine.options.train import TrainOptions
from engine.options.val import ValOptions

ROOT = Path(__file__).resolve().parent.parent

TRAIN = """--weights=yolov5s.pt --cfg= --data=data/shapes.yaml --download=False --hyp=data/hyps/hyp.scratch-low.yaml
--epochs=100 --batch-size=16 --imgsz=640 --img=640 --img-size=640 --rect=False --resume=False --nosave=False
--noval=False --noautoanchor=False --noplots=False --evolve=None --evolve_population=data/hyps --resume_evolve=None
--cache=None --image-weights=False --device= --multi-scale=False --single-cls=False --optimizer=None --sync-bn=False
--workers=8 --project=runs/train --name=exp --exist-ok=False --quad=False --cos-lr=False --label-smoothing=0.0
--patience=100 --freeze=[0] --save-period=-1 --seed=0 --nbs=None --insert=[] --amp=True --no-amp=True --bf16=False
--deterministic=None --no-deterministic=None --compile=False"""
VAL = """--data=data/shapes.yaml --download=False --weights=['yolov5s.pt'] --batch-size=32 --imgsz=640 --img=640
--img-size=640 --conf-thres=0.001 --iou-thres=0.6 --max-det=300 --task=val --device= --workers=8 --single-cls=False
--augment=False --verbose=False --save-txt=False --save-hybrid=False --save-conf=False --save-json=False
--coco-eval=False --slices=False --project=runs/val --name=exp --exist-ok=False --half=False --dnn=False"""
DETECT = """--weights=['yolov5s.pt'] --source=data/images --data= --imgsz=[640] --img=[640] --img-size=[640]
--conf-thres=0.25 --iou-thres=0.45 --max-det=1000 --device= --view-img=False --save-txt=False --save-format=0
--save-csv=False --save-conf=False --save-crop=False --nosave=False --classes=None --agnostic-nms=False
--augment=False --visualize=False --update=False --project=runs/detect --name=exp --exist-ok=False --line-thickness=3
--hide-labels=False --hide-conf=False --half=False --dnn=False --vid-stride=1 --recursive=False --batch-size=1
--save-json=False --verbose=False --show-routing= --tile=0 --overlap=0.2 --tile-only=False"""
BENCHMARK_ATTENTION = """--sizes=[320,640,960,1280] --imgsz=[320,640,960,1280] --levels=['P3','P4','P5'] --batch-size=1
--repeats=20 --seconds=6.0 --max-gflops=400.0 --device= --threads=2 --precision= --quick=False --docs=
--project=runs/benchmark --name=attention --exist-ok=False"""
BENCHMARK_TILING = """--weights=runs/demo/exp/train/weights/best.pt --imgsz=192 --tile=192 --overlap=0.2 --images=8
--side=1280 --device= --docs= --project=runs/benchmark --name=tiling --exist-ok=False"""
BENCHMARK_DETECT = """--weights= --source= --frames=120 --imgsz=640 --img=640 --img-size=640 --conf-thres=0.25
--batch-size=1 --repeats=5 --device= --threads=2 --quick=False --docs= --project=runs/benchmark --name=detect
--exist-ok=False"""
BENCHMARK_INDEX = """--records=1000000 --boxes=[10,1] --files=100000 --processes=2 --quick=False --docs=
--project=runs/benchmark --name=index --exist-ok=False"""
BENCHMARK_GROWTH = """--cfg=['yolov5n.yaml','yolov5n-biformer.yaml'] --sizes=[320,480,640,960,1280]
--batches=[1,2,4,8,16,32,64] --labels=[100,1000,10000,100000,1000000] --workers=[0,1,2] --imgsz=192 --img=192
--img-size=192 --batch-size=1 --images=128 --repeats=3 --max-memory=8.0 --device= --threads=2 --quick=False --docs=
--project=runs/benchmark --name=growth --exist-ok=False"""
BENCHMARK_PIPELINE = """--data=data/shapes.yaml --cfg=yolov5n.yaml --weights= --imgsz=320 --img=320 --img-size=320
--batch-size=16 --workers=2 --repeats=7 --epochs=3 --images=48 --device= --threads=2 --quick=False --docs=
--project=runs/benchmark --name=pipeline --exist-ok=False"""
ABLATE = """--baseline=yolov5n.yaml --variants=[] --seeds=[0,1,2] --split=val --resume=False --data=data/shapes.yaml
--weights= --hyp=data/hyps/hyp.scratch-low.yaml --epochs=100 --batch-size=16 --imgsz=640 --img=640 --img-size=640
--optimizer=None --nbs=None --cos-lr=False --label-smoothing=0.0 --rect=False --quad=False --multi-scale=False
--image-weights=False --single-cls=False --noautoanchor=False --noval=False --amp=True --no-amp=True --bf16=False
--cache=None --device= --workers=8 --project=runs/ablate --name=exp --exist-ok=False"""
EXPORT = """--data=data/shapes.yaml --weights=['yolov5s.pt'] --imgsz=[640,640] --img=[640,640] --img-size=[640,640]
--batch-size=1 --device=cpu --half=False --int8=False --dynamic=False --simplify=False --opset=17 --optimize=False
--nms=False --iou-thres=0.45 --conf-thres=0.25 --include=['torchscript']"""
BENCHMARK_FORMATS = """--weights=['yolov5s.pt'] --data=data/shapes.yaml --imgsz=640 --img=640 --img-size=640
--formats=['pytorch','torchscript','torchscript-half','onnx','onnx-half','onnx-int8','opencv','openvino','openvino-half','openvino-int8']
--repeats=50 --seconds=30.0
--threads=2 --workers=0 --docs= --project=runs/benchmark --name=formats --exist-ok=False"""
FLAGS = [
    (FormatsBenchmarkOptions, BENCHMARK_FORMATS),
    (ExportOptions, EXPORT),
    (TrainOptions, TRAIN),
    (ValOptions, VAL),
    (DetectOptions, DETECT),
    (AttentionBenchmarkOptions, BENCHMARK_ATTENTION),
    (TilingBenchmarkOptions, BENCHMARK_TILING),
    (IndexBenchmarkOptions, BENCHMARK_INDEX),
    (DetectBenchmarkOptions, BENCHMARK_DETECT),
    (GrowthBenchmarkOptions, BENCHMARK_GROWTH),
    (PipelineBenchmarkOptions, BENCHMARK_PIPELINE),
    (AblateOptions, ABLATE),
]


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    return {
        f"{name}={action.default}".replace(", ", ",")
        for action in parser._actions
        for name in action.option_strings
        if name not in ("-h", "--help")
    }


@pytest.mark.parametrize(("options", "frozen"), FLAGS)
def test_flags_and_defaults_are_frozen(options, frozen):
    assert flags_of(options.parser()) == set(frozen.split())


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["train.py"], "--weights"),
        (["val.py"], "--weights"),
        (["detect.py"], "--weights"),
        (["export.py"], "--include"),
        (["benchmark.py"], "attention"),
        (["benchmark.py", "attention"], "--max-gflops"),
        (["benchmark.py", "tiling"], "--overlap"),
        (["benchmark.py", "growth"], "--batches"),
        (["benchmark.py", "pipeline"], "--workers"),
        (["ablate.py"], "--variants"),
        (["tools/convert.py"], "--one-based"),
    ],
)
def test_help_does_not_wait_for_torch(words, flag):
    code = (
        "import runpy, sys\n"
        f"sys.argv = {[*words, '--help']!r}\n"
        "try:\n"
        f"    runpy.run_path({words[0]!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "heavy = [name for name in ('torch', 'cv2', 'numpy', 'matplotlib', 'pandas') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert flag in done.stdout


@pytest.fixture
def data(tmp_path):
    """A set of no images, which nothing here gets as far as to miss."""
    (tmp_path / "images").mkdir()
    file = tmp_path / "data.yaml"
    file.write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [thing]\n")
    return file


@pytest.fixture
def exit_code(tmp_path, monkeypatch):
    """Runs a script as a program, but in this process: starting another one takes seconds."""
    monkeypatch.chdir(tmp_path)

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        return stop.value.code

    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train.py", "--cfg", "yolov5n.yaml", "--weights", "nowhere.pt"], "nowhere.pt"),
        (["train.py", "--cfg", "no-such-model.yaml", "--weights", ""], "no-such-model.yaml"),
        (["train.py", "--resume"], "--resume"),
        (["val.py", "--weights", "nowhere.pt"], "nowhere.pt"),
        (["ablate.py", "--variants", "no-such-model.yaml"], "no-such-model.yaml"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(arguments, expected, data, tmp_path, exit_code, capsys):
    assert exit_code(*arguments, "--data", str(data), "--device", "cpu", "--project", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert expected in said.strip().splitlines()[-1]


def test_a_users_mistake_in_a_process_of_its_own(data, tmp_path):
    words = ["--cfg", "yolov5n.yaml", "--weights", "", "--device", "7", "--data", str(data), "--project", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "--device cpu" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_no_place_to_write_is_one_line_and_exit_2(number, capsys):
    def write():
        raise OSError(number, os.strerror(number), "runs/results.csv")

    assert run_command(write) == 2
    assert capsys.readouterr().err.startswith(f"error: runs/results.csv: {os.strerror(number)}; ")


def test_a_note_about_what_was_being_done_is_on_the_line(capsys):
    def write():
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error.add_note("while writing the results of clip.mp4, frame 7")
        raise error

    assert run_command(write) == 2
    assert capsys.readouterr().err.endswith("another place; while writing the results of clip.mp4, frame 7\n")


@pytest.mark.parametrize(
    ("set_before", "quietly", "spins"),
    [({}, True, "30000"), ({}, False, None), ({"GOMP_SPINCOUNT": "7"}, True, "7"),
     ({"OMP_WAIT_POLICY": "ACTIVE"}, True, None), ({"KMP_BLOCKTIME": "1"}, True, None)],
)  # fmt: skip
def test_how_long_waiting_threads_spin_is_set_unless_somebody_else_has(set_before, quietly, spins, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # for it to be gone again afterwards
        monkeypatch.delenv(name)
    for name, value in set_before.items():
        monkeypatch.setenv(name, value)
    assert run_command(lambda: None, quietly=quietly) == 0
    assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_other_errors_keep_their_traceback():
    def stumble():
        raise OSError(errno.EBADF, "a defect")

    with pytest.raises(OSError, match="a defect"):
        run_command(stumble)


def test_several_processes_that_cannot_find_each_other(monkeypatch, exit_code, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert exit_code("train.py", "--cfg", "yolov5n.yaml", "--weights", "") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: WORLD_SIZE=2 says several processes")


def test_scripts_stay_small():
    for script in ("train.py", "val.py", "detect.py", "export.py", "benchmark.py", "ablate.py"):
        assert len((ROOT / script).read_text().splitlines()) < 150
