"""``python benchmark.py formats``: latency and mAP of a detector in each format that it can be exported to.

All formats see the same images: square ones of the size asked for. Latency is that of the network alone, one image at a
time; the formats take turns. Whether suppression takes longer for one of them than for another is not a question.
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
from engine.benchmarks.page import replace_section, section_bounds
from engine.evaluator import evaluate
from engine.exporting.exporter import run_export
from engine.options.benchmark import FormatsBenchmarkOptions
from engine.options.export import ExportOptions
from models.backends.choice import OPENVINO_FOLDER
from models.backends.multi import DetectMultiBackend
from utils.atomic import replacing
from utils.datasets.batching import create_dataloader
from utils.datasets.config import check_dataset
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.markdown import paragraph, table
from utils.network_input import to_network
from utils.paths import check_file, find_weights, increment_path
from utils.sizes import check_img_size

_CPU = torch.device("cpu")
_SECTION = "formats"
_LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Form:
    """One way to run a detector: the ending of its file, what ``export.py`` is asked for, and what runs it."""

    ending: str
    include: str = ""
    int8: bool = False
    dnn: bool = False
    package: str = "torch"


FORMS = {
    "pytorch": Form(".pt"),
    "torchscript": Form(".torchscript", "torchscript"),
    "onnx": Form(".onnx", "onnx", package="onnxruntime"),
    "onnx-int8": Form("_int8.onnx", "onnx", int8=True, package="onnxruntime"),
    "opencv": Form(".onnx", "onnx", dnn=True, package="opencv"),
    "openvino": Form(OPENVINO_FOLDER, "openvino", package="openvino"),
    "openvino-int8": Form(f"_int8{OPENVINO_FOLDER}", "openvino", int8=True, package="openvino"),
}


@dataclass(frozen=True)
class FormatRow:
    """What was measured of one format: megabytes, seconds an image, mAP50 and mAP50-95 in 0..1."""

    name: str
    megabytes: float
    seconds: float
    map50: float
    map: float


@dataclass(frozen=True)
class FormatsResult:
    """What a run found: the folder of files and ``formats.md``, a row a format, and the text of the table."""

    folder: Path
    rows: list[FormatRow]
    text: str


def run_formats(options: FormatsBenchmarkOptions) -> FormatsResult:
    """Export a checkpoint into each format, then measure all of them.

    Raises:
        ProjectError: when weights, data or a package is missing, or a file does not give what PyTorch gives.
    """
    page = Path(check_file(options.docs)) if options.docs else None
    if page is not None:
        section_bounds(page, _SECTION)  # a page without a place for it is an error now, not after minutes
    weights, data = find_weights(options.weights), check_dataset(options.data)
    if not data.get("val"):
        raise ConfigError(f"{options.data}: has no `val` entry to measure on")
    folder = increment_path(Path(options.project) / options.name, options.exist_ok, mkdir=True)
    copy = folder / f"{weights.stem}.pt"
    shutil.copyfile(weights, copy)
    with threads_of_torch(options.threads):
        files = _export(copy, options)
        backends = {name: DetectMultiBackend(file, dnn=FORMS[name].dnn) for name, file in files.items()}
        rows = _measure(backends, files, options, data)
        machine = describe_machine(_CPU, torch.get_num_threads())
    text = _report(rows, options, weights, machine)
    with replacing(folder / "formats.md") as stream:
        stream.write(text)
    LOGGER.info(f"{text}\nfiles and table in {folder}")
    if page is not None:
        replace_section(page, _SECTION, text)
        LOGGER.info(f"{page}: section {_SECTION} replaced")
    return FormatsResult(folder, rows, text)


def _export(weights: Path, options: FormatsBenchmarkOptions) -> dict[str, Path]:
    """The file of each format; those of 8 bits in a second go."""
    for int8 in (False, True):
        wanted = {FORMS[name].include for name in options.formats if FORMS[name].int8 == int8} - {""}
        if wanted:
            settings = {"weights": weights, "imgsz": options.imgsz, "data": options.data, "int8": int8}
            run_export(ExportOptions.from_kwargs(include=sorted(wanted), **settings))
    return {name: weights.with_name(f"{weights.stem}{FORMS[name].ending}") for name in options.formats}


def _measure(
    backends: Mapping[str, DetectMultiBackend],
    files: Mapping[str, Path],
    options: FormatsBenchmarkOptions,
    data: Mapping,
) -> list[FormatRow]:
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
        FormatRow(name, _megabytes(files[name]), seconds[name], float(found.map50), float(found.map))
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


def _report(rows: Sequence[FormatRow], options: FormatsBenchmarkOptions, weights: Path, machine: str) -> str:
    reference = next((row for row in rows if row.name == "pytorch"), rows[0])
    lines = [
        [
            row.name,
            f"{row.megabytes:.1f}",
            f"{1e3 * row.seconds:.1f}",
            f"{reference.seconds / row.seconds:.2f}",
            f"{row.map50:.4f}",
            f"{row.map:.4f}",
            f"{100 * (row.map - reference.map):+.2f}",
        ]
        for row in rows
    ]
    titles = ["format", "MB", "ms an image", f"x {reference.name}", "mAP50", "mAP50-95", "points"]
    about = (
        f"`{weights.name}` at {options.imgsz} px on the validation images of `{Path(options.data).name}`, one at a "
        f"time, square. Measured on {machine}, {_versions(rows)}; times are medians of rounds in which all take turns. "
        f"*points* are those of mAP50-95 more than {reference.name} has."
    )
    return f"{paragraph(about)}\n```bash\n{options.command()}\n```\n\n{table(titles, lines, left=1)}"


def _versions(rows: Iterable[FormatRow]) -> str:
    packages = dict.fromkeys(FORMS[row.name].package for row in rows)
    known = {name: cv2.__version__ if name == "opencv" else importlib.metadata.version(name) for name in packages}
    return ", ".join(f"{name} {version.split('+')[0]}" for name, version in known.items() if name != "torch") or "torch"
