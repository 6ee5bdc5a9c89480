"""``export.py``: a checkpoint into files for other runtimes, each compared with PyTorch before it takes its place."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.exporting.comparing import compare
from engine.exporting.halve import halve
from engine.exporting.network import Detector, load_detector
from engine.exporting.onnx_file import write_onnx
from engine.exporting.openvino_file import write_openvino
from engine.exporting.quantise import calibration_images, quantise
from engine.exporting.torchscript_file import write_torchscript
from engine.options.export import ExportOptions
from models.backends.choice import OPENVINO_FOLDER
from utils.devices import select_device
from utils.environment import import_optional
from utils.log import LOGGER
from utils.paths import find_weights

TITLES = {"torchscript": "TorchScript", "onnx": "ONNX", "openvino": "OpenVINO"}
PACKAGES = {"torchscript": (), "onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}


@dataclass(frozen=True)
class Job:
    """One checkpoint on its way.

    Attributes:
        detector: the loaded network.
        options: the command's options.
        stem: name of the files, without suffix.
        work: folder for what is not finished.
    """

    detector: Detector
    options: ExportOptions
    stem: str
    work: Path

    def torchscript(self) -> Path:
        """Write TorchScript."""
        path = self.work / f"{self.stem}.torchscript"
        write_torchscript(self.detector, path, half=self.options.half, frozen=self.options.optimize)
        return path

    def onnx(self) -> Path:
        """Write ONNX."""
        if self.options.int8:
            return self._int8_onnx()
        single = self._single_onnx()
        if not self.options.half:
            return single
        path = self.work / single.name
        halve(single, path)
        return path

    def openvino(self) -> Path:
        """Write OpenVINO."""
        source = self._int8_onnx() if self.options.int8 else self._single_onnx()
        folder = self.work / f"{source.stem}{OPENVINO_FOLDER}"
        write_openvino(self.detector, source, folder, half=self.options.half)
        return folder

    def _single_onnx(self) -> Path:
        """The ONNX file in float32, written once: the others are made from it."""
        path = self.work / "single" / f"{self.stem}.onnx"
        if not path.exists():
            path.parent.mkdir()
            options = self.options
            opset = options.settled_opset()
            write_onnx(self.detector, path, opset=opset, dynamic=options.dynamic, simplify=options.simplify)
        return path

    def _int8_onnx(self) -> Path:
        path = self.work / f"{self.stem}_int8.onnx"
        if not path.exists():
            images = calibration_images(self.options.data, self.detector.shape, self.detector.stride)
            quantise(self._single_onnx(), path, images)
        return path


def run_export(options: ExportOptions) -> list[Path]:
    """Export each of the weights into each of the formats, beside the weights.

    Returns:
        What was written, in this order.

    Raises:
        ProjectError: when an option cannot be met, a package is missing, or a file does not give what PyTorch gives.
            Files finished before that stay; nothing unfinished does.
    """
    for name in options.include:
        for package in PACKAGES[name]:  # before the work, not in the middle of it
            import_optional(package, f"--include {name}")
    device = select_device(options.device)
    written = []
    for weights in options.weights:
        path = find_weights(weights)
        detector = load_detector(path, options, device)
        LOGGER.info(f"{path}: input {detector.shape}, {len(detector.names)} classes, stride {detector.stride}")
        with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as work:
            job = Job(detector, options, path.stem, Path(work))
            written += [_export(name, job, path.parent) for name in dict.fromkeys(options.include)]
        size = " ".join(map(str, dict.fromkeys(detector.shape[2:])))
    LOGGER.info(f"to use it: python detect.py --weights {written[-1]} --img {size}")
    return written


def _export(name: str, job: Job, folder: Path) -> Path:
    """Write one format, compare it, put it in place."""
    options = job.options
    write: Callable[[], Path] = getattr(job, name)
    begun = time.perf_counter()
    made = write()
    taken = time.perf_counter() - begun
    exact = name == "torchscript"
    int8, dynamic = options.int8 and not exact, options.dynamic and not exact
    if exact and (options.int8 or options.dynamic):
        LOGGER.warning("TorchScript: --int8 and --dynamic change nothing about this format")
    difference = compare(made, job.detector, half=options.half, int8=int8, dynamic=dynamic)
    target = folder / made.name
    _put(made, target)
    what = "mean" if int8 else "largest"
    LOGGER.info(
        f"{TITLES[name]}: {target}, {_megabytes(target):.1f} MB in {taken:.1f} s, "
        f"{what} difference from PyTorch {difference:.1e}"
    )
    return target


def _put(made: Path, target: Path) -> None:
    """Move a file or folder to its place, over what was there."""
    if target.is_dir():
        shutil.rmtree(target)
    if made.is_dir():
        made.rename(target)
    else:
        shutil.copyfile(made, made.with_name(f"{made.name}.whole"))  # an OpenVINO folder may still be made from it
        made.with_name(f"{made.name}.whole").replace(target)


def _megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
