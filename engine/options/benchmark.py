"""The flags of ``benchmark.py``, a dataclass a benchmark: one field is one flag and one keyword of ``run()``."""

from __future__ import annotations

from dataclasses import dataclass

from engine.options.base import flag
from engine.options.benchmark_base import BenchmarkOptions, TorchBenchmarkOptions, run_name

LEVELS = ("P3", "P4", "P5")
FORMATS = (
    *("pytorch", "torchscript", "torchscript-half", "onnx", "onnx-half", "onnx-int8", "opencv"),
    *("openvino", "openvino-half", "openvino-int8"),
)
PRECISIONS = ("float32", "bfloat16", "float16")
_LARGEST_STRIDE = 32
_QUICK_DETECT = {"frames": 8, "imgsz": 64, "repeats": 1}
_QUICK = {"sizes": [160, 320], "repeats": 1, "seconds": 0.0}


@dataclass
class AttentionBenchmarkOptions(TorchBenchmarkOptions):
    """Options of ``benchmark.py attention``."""

    quick_values = _QUICK
    sizes: list[int] = flag([320, 640, 960, 1280], "image sides, px, multiples of 32", names=("--sizes", "--imgsz"))
    levels: list[str] = flag(list(LEVELS), "levels of yolov5s whose maps are attended over", choices=LEVELS)
    batch_size: int = flag(1, "images a batch, in the tables of image sizes")
    repeats: int = flag(20, "rounds of a map at most; 3 are run in any case, or these if fewer")
    seconds: float = flag(6.0, "begin no further round of a map after this time, in seconds, once 3 are run")
    max_gflops: float = flag(400.0, "leave out what takes more for one image, by formula")
    precision: str = flag("", "numbers; '' takes bfloat16 on a GPU and float32 on the CPU", choices=("", *PRECISIONS))
    name: str = run_name("attention")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_from(1, "batch_size", "repeats")
        self._require_from(0, "seconds", "max_gflops")
        whole = bool(self.sizes) and all(size > 0 and size % _LARGEST_STRIDE == 0 for size in self.sizes)
        self._require(whole, "sizes", f"multiples of {_LARGEST_STRIDE}")
        self._require(bool(self.levels) and set(self.levels) <= set(LEVELS), "levels", f"some of {', '.join(LEVELS)}")
        self._require(self.precision in ("", *PRECISIONS), "precision", f"one of {', '.join(PRECISIONS)}")


@dataclass
class DetectBenchmarkOptions(TorchBenchmarkOptions):
    """Options of ``benchmark.py detect``."""

    quick_values = _QUICK_DETECT
    weights: str = flag("", "detector; '' takes an untrained yolov5n, which finds nothing but takes as long")
    source: str = flag("", "video; '' makes one of 1280x720 px")
    frames: int = flag(120, "frames of the video that is made")
    imgsz: int = flag(640, "image size, px", names=("--imgsz", "--img", "--img-size"))
    conf_thres: float = flag(0.25, "confidence that a detection must have, 0 to 1")
    batch_size: int = flag(1, "frames that go through the network together")
    repeats: int = flag(5, "rounds")
    name: str = run_name("detect")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_from(1, "frames", "imgsz", "batch_size", "repeats")
        self._require_share("conf_thres")


@dataclass
class FormatsBenchmarkOptions(BenchmarkOptions):
    """Options of ``benchmark.py formats``."""

    weights: list[str] = flag(["yolov5s.pt"], "one or more checkpoints to export and measure")
    data: str = flag("data/shapes.yaml", "data set YAML: val to measure on, train for the scales of 8 bits")
    imgsz: int = flag(640, "image size, px", names=("--imgsz", "--img", "--img-size"))
    formats: list[str] = flag(list(FORMATS), "formats to compare", choices=FORMATS)
    repeats: int = flag(50, "rounds at most; 3 are run in any case, or these if fewer")
    seconds: float = flag(30.0, "begin no further round after this time, in seconds, once 3 are run")
    threads: int = flag(2, "threads of each runtime")
    workers: int = flag(0, "processes that load images")
    name: str = run_name("formats")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_from(1, "imgsz", "repeats")
        self._require_threads()
        self._require_from(0, "seconds", "workers")
        self._require(bool(self.weights) and all(self.weights), "weights", "at least one checkpoint")
        self._require(
            bool(self.formats) and set(self.formats) <= set(FORMATS), "formats", f"some of {', '.join(FORMATS)}"
        )
