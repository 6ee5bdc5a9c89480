"""The flags of ``benchmark.py pipeline``: one field is one flag, and one keyword of ``benchmark.run``."""

from __future__ import annotations

from dataclasses import dataclass

from engine.options.base import flag
from engine.options.benchmark_base import TorchBenchmarkOptions, run_name

_QUICK = {"imgsz": 64, "batch_size": 4, "repeats": 1, "epochs": 1, "images": 4}


@dataclass
class PipelineBenchmarkOptions(TorchBenchmarkOptions):
    """Options of ``benchmark.py pipeline``."""

    quick_values = _QUICK
    data: str = flag("data/shapes.yaml", "data set YAML")
    cfg: str = flag("yolov5n.yaml", "network to train")
    weights: str = flag("", "detector to validate and detect with; '' takes what the measured epochs have trained")
    imgsz: int = flag(320, "image size, px", names=("--imgsz", "--img", "--img-size"))
    batch_size: int = flag(16, "images a batch")
    workers: int = flag(2, "processes that load images while training")
    repeats: int = flag(7, "rounds of everything but training")
    epochs: int = flag(3, "rounds of training, an epoch each; one before them warms up")
    images: int = flag(48, "most images of a round of the data pipeline and of detecting")
    name: str = run_name("pipeline")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_from(1, "imgsz", "batch_size", "repeats", "epochs", "images")
        self._require_from(0, "workers")
