"""The flags of ``benchmark.py growth``: one field is one flag and one keyword of ``benchmark.run("growth", ...)``."""

from __future__ import annotations

from dataclasses import dataclass

from engine.options.base import flag
from engine.options.benchmark_base import TorchBenchmarkOptions, run_name

LABELS_PER_IMAGE = 10  # of the sets that are made
_STRIDE = 32
_LEAST_SIDE = 64  # px: of a single cell no norm layer can take a variance in training
_QUICK = {
    "sizes": [64, 128],
    "batches": [1, 2],
    "labels": [100, 1000],
    "workers": [0, 1],
    "imgsz": 64,
    "images": 16,
    "repeats": 1,
}


@dataclass
class GrowthBenchmarkOptions(TorchBenchmarkOptions):
    """Options of ``benchmark.py growth``."""

    quick_values = _QUICK
    cfg: list[str] = flag(["yolov5n.yaml", "yolov5n-biformer.yaml"], "networks, model YAMLs")
    sizes: list[int] = flag([320, 480, 640, 960, 1280], "image sides, px, multiples of 32 from 64")
    batches: list[int] = flag([1, 2, 4, 8, 16, 32, 64], "images a batch")
    labels: list[int] = flag(
        [100, 1000, 10_000, 100_000, 1_000_000], "labels in a data set, multiples of 10: an image has 10"
    )
    workers: list[int] = flag([0, 1, 2], "worker processes of the loader")
    imgsz: int = flag(192, "image size, px, where batch or workers vary", names=("--imgsz", "--img", "--img-size"))
    batch_size: int = flag(1, "images a batch where the image size varies")
    images: int = flag(128, "images that the loader reads in an epoch")
    repeats: int = flag(3, "rounds")
    max_memory: float = flag(8.0, "leave out what would take more, GB")
    name: str = run_name("growth")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_from(1, "batch_size", "images", "repeats")
        self._require(self.max_memory > 0, "max_memory", "a number above 0")
        for name, sides in (("sizes", self.sizes), ("imgsz", [self.imgsz])):
            fits = all(side >= _LEAST_SIDE and side % _STRIDE == 0 for side in sides)
            self._require(fits, name, f"multiples of {_STRIDE} from {_LEAST_SIDE}")
        self._require(all(batch >= 1 for batch in self.batches), "batches", "numbers from 1")
        whole = all(count > 0 and count % LABELS_PER_IMAGE == 0 for count in self.labels)
        self._require(whole, "labels", f"multiples of {LABELS_PER_IMAGE}")
        self._require(all(count >= 0 for count in self.workers), "workers", "numbers from 0")
        for name in ("cfg", "sizes", "batches", "labels", "workers"):
            self._require(bool(getattr(self, name)), name, "at least one")
