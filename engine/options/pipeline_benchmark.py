"""The flags of ``benchmark.py pipeline``: one field is one flag, and one keyword of ``benchmark.run``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.options.base import Options, flag

_QUICK = {"imgsz": 64, "batch_size": 4, "repeats": 1, "epochs": 1, "images": 4}
_MOST_THREADS = 1024  # torch ends with an error of its own where there are many more than processors


@dataclass
class PipelineBenchmarkOptions(Options):
    """Options of ``benchmark.py pipeline``."""

    data: str = flag("data/shapes.yaml", "data set YAML")
    cfg: str = flag("yolov5n.yaml", "network to train")
    weights: str = flag("", "detector to validate and detect with; '' takes what the measured epochs have trained")
    imgsz: int = flag(320, "image size, px", names=("--imgsz", "--img", "--img-size"))
    batch_size: int = flag(16, "images a batch")
    workers: int = flag(2, "processes that load images while training")
    repeats: int = flag(7, "rounds of everything but training")
    epochs: int = flag(3, "rounds of training, an epoch each; one before them warms up")
    images: int = flag(48, "most images of a round of the data pipeline and of detecting")
    device: str = flag("", "cpu or a GPU's number; '' takes the first GPU, else the CPU")
    threads: int = flag(2, "torch's threads on the CPU")
    quick: bool = flag(False, "small images and one round, to see that it works")
    docs: str = flag("", "page to put the result on; bare: docs/benchmarks.md", nargs="?", const="docs/benchmarks.md")
    project: str = flag("runs/benchmark", "folder of the runs")
    name: str = flag("pipeline", "name of this run, counted up when it exists")
    exist_ok: bool = flag(False, "write into the run folder even when it exists")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_from(1, "imgsz", "batch_size", "repeats", "epochs", "images", "threads")
        self._require_from(0, "workers")
        self._require(self.threads <= _MOST_THREADS, "threads", f"{_MOST_THREADS} at most")

    def settled(self) -> PipelineBenchmarkOptions:
        """These options, with what ``--quick`` changes of those that were not given."""
        if not self.quick:
            return self
        return replace(self, **{name: value for name, value in _QUICK.items() if name not in self.given})

    def command(self) -> str:
        """The command line that has these options."""
        return self.command_line("python", "benchmark.py", "pipeline")
