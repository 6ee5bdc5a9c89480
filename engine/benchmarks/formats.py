"""``python benchmark.py formats``: latency and mAP of detectors in each format that they can be exported to.

All formats see the same images: square ones of the size asked for. Latency is that of the network alone, one image at a
time; the formats of a detector take turns. Whether suppression takes longer for one of them than for another is not a
question.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from engine.benchmarks.interleaved import Rounds, interleaved
from engine.benchmarks.machine import describe_machine, threads_of_torch
from engine.benchmarks.page import ResultPlace
from engine.evaluator import evaluate
from engine.exporting.exporter import run_export
from engine.options.benchmark import FormatsBenchmarkOptions
from engine.options.export import ExportOptions
from models.backends.choice import OPENVINO_FOLDER
from models.backends.multi import DetectMultiBackend
from utils.datasets.batching import create_dataloader
from utils.datasets.config import check_dataset
from utils.errors import ConfigError
from utils.markdown import paragraph, table
from utils.network_input import to_network
from utils.paths import find_weights
from utils.sizes import check_img_size

_CPU = torch.device("cpu")
_LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Form:
    """One way to run a detector: the ending of its file, what ``export.py`` is asked for, and what runs it.

    ``numbers`` is the flag of ``export.py`` that says which ones the file computes with; empty for float32.
    """

    ending: str
    include: str = ""
    numbers: str = ""
    dnn: bool = False
    package: str = "torch"


FORMS = {
    "pytorch": Form(".pt"),
    "torchscript": Form(".torchscript", "torchscript"),
    "torchscript-half": Form(".torchscript", "torchscript", "half"),
    "onnx": Form(".onnx", "onnx", package="onnxruntime"),
    "onnx-half": Form(".onnx", "onnx", "half", package="onnxruntime"),
    "onnx-int8": Form("_int8.onnx", "onnx", "int8", package="onnxruntime"),
    "opencv": Form(".onnx", "onnx", dnn=True, package="opencv"),
    "openvino": Form(OPENVINO_FOLDER, "openvino", package="openvino"),
    "openvino-half": Form(OPENVINO_FOLDER, "openvino", "half", package="openvino"),
    "openvino-int8": Form(f"_int8{OPENVINO_FOLDER}", "openvino", "int8", package="openvino"),
}


@dataclass(frozen=True)
class FormatRow:
    """What was measured of one file: megabytes, seconds an image, mAP50 and mAP50-95 in 0..1."""

    weights: str
    name: str
    megabytes: float
    seconds: float
    map50: float
    map: float


@dataclass(frozen=True)
class FormatsResult:
    """What a run found: the folder of files and ``formats.md``, a row a file, and the text of the tables."""

    folder: Path
    rows: list[FormatRow]
    text: str


def run_formats(given: FormatsBenchmarkOptions) -> FormatsResult:
    """Export each checkpoint into each format, then measure all of them.

    Raises:
        ProjectError: when weights, data or a package is missing, or a file does not give what PyTorch gives.
    """
    options = given.settled()
    place = ResultPlace(options)
    checkpoints, data = [find_weights(weights) for weights in options.weights], check_dataset(options.data)
    if not data.get("val"):
        raise ConfigError(f"{options.data}: has no `val` entry to measure on")
    folder = place.make_folder()
    rows = []
    with threads_of_torch(options.threads):
        for number, (weights, path) in enumerate(zip(options.weights, checkpoints, strict=True), 1):
            files = _export(path, folder / f"{number}-{path.stem}", options)
            rows += _measure(weights, files, options, data)
        machine = describe_machine(_CPU, torch.get_num_threads())
    text = _report(rows, options, machine)
    place.publish(folder, text, summary=text)
    return FormatsResult(folder, rows, text)


def _export(weights: Path, folder: Path, options: FormatsBenchmarkOptions) -> dict[str, Path]:
    """The file of each format; those of other numbers than float32 in folders of their own."""
    files = {}
    for numbers in dict.fromkeys(FORMS[name].numbers for name in options.formats):
        copy = folder / numbers / f"{weights.stem}.pt"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, copy)
        names = [name for name in options.formats if FORMS[name].numbers == numbers]
        wanted = {FORMS[name].include for name in names} - {""}
        if wanted:
            settings = {"weights": copy, "imgsz": options.imgsz, "data": options.data}
            run_export(
                ExportOptions.from_kwargs(include=sorted(wanted), **settings, **({numbers: True} if numbers else {}))
            )
        files.update({name: copy.with_name(f"{copy.stem}{FORMS[name].ending}") for name in names})
    return {name: files[name] for name in options.formats}


def _measure(
    weights: str, files: Mapping[str, Path], options: FormatsBenchmarkOptions, data: Mapping
) -> list[FormatRow]:
    backends = {name: DetectMultiBackend(file, dnn=FORMS[name].dnn) for name, file in files.items()}
    first = next(iter(backends.values()))
    stride = max(backend.stride for backend in backends.values())
    loader, _ = create_dataloader(
        data["val"], check_img_size(options.imgsz, stride), 1, stride, workers=options.workers, prefix="val: "
    )
    image = to_network(next(iter(loader))[0], _CPU)
    runs = {name: _run_of(backend, image) for name, backend in backends.items()}
    for run in runs.values():
        run()  # what is slow at its first call
    seconds = interleaved(runs, _CPU, Rounds(min(_LEAST_ROUNDS, options.repeats), options.repeats, options.seconds))
    figures = {
        name: evaluate(backend, loader, device=_CPU, nc=data["nc"], names=first.names, progress=name).metrics
        for name, backend in backends.items()
    }
    return [
        FormatRow(weights, name, _megabytes(files[name]), seconds[name], float(found.map50), float(found.map))
        for name, found in figures.items()
    ]


def _run_of(backend: DetectMultiBackend, image: torch.Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return backend(image)

    return run


def _megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def _report(rows: Sequence[FormatRow], options: FormatsBenchmarkOptions, machine: str) -> str:
    about = (
        f"At {options.imgsz} px on the validation images of `{options.data}`, one at a time, square. Measured on "
        f"{machine}, {_versions(rows)}; times are medians of rounds in which the formats take turns. *points* are "
        f"those of mAP50-95 more than {options.formats[0]} has."
    )
    tables = [
        f"`{weights}`\n\n{_table([row for row in rows if row.weights == weights])}"
        for weights in dict.fromkeys(row.weights for row in rows)
    ]
    return "\n".join([paragraph(about), f"```bash\n{options.command()}\n```\n", *tables])


def _table(rows: Sequence[FormatRow]) -> str:
    """One detector's formats, compared with the first of them."""
    first = rows[0]
    lines = [
        [
            row.name,
            f"{row.megabytes:.1f}",
            f"{1e3 * row.seconds:.1f}",
            f"{first.seconds / row.seconds:.2f}",
            f"{row.map50:.4f}",
            f"{row.map:.4f}",
            f"{100 * (row.map - first.map):+.2f}",
        ]
        for row in rows
    ]
    titles = ["format", "MB", "ms an image", f"times as fast as {first.name}", "mAP50", "mAP50-95", "points"]
    return table(titles, lines, left=1)


def _versions(rows: Iterable[FormatRow]) -> str:
    packages = dict.fromkeys(FORMS[row.name].package for row in rows)
    known = {name: cv2.__version__ if name == "opencv" else importlib.metadata.version(name) for name in packages}
    return ", ".join(f"{name} {version.split('+')[0]}" for name, version in known.items() if name != "torch") or "torch"
