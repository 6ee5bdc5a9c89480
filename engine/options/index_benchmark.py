"""The flags of ``benchmark.py index``: one field is one flag and one keyword of ``benchmark.run("index", ...)``."""

from __future__ import annotations

from dataclasses import dataclass

from engine.options.base import flag
from engine.options.benchmark_base import QuickBenchmarkOptions, run_name

_QUICK = {"records": 3000, "files": 40, "processes": 1}


@dataclass
class IndexBenchmarkOptions(QuickBenchmarkOptions):
    """Options of ``benchmark.py index``."""

    quick_values = _QUICK
    records: int = flag(1_000_000, "label records that are made")
    boxes: list[int] = flag([10, 1], "of each image; one index of all records for each number")
    files: int = flag(100_000, "real images, each with a label file, in a temporary folder")
    processes: int = flag(2, "further processes at the same time")
    name: str = run_name("index")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_from(1, "records", "files", "processes")
        self._require(bool(self.boxes) and min(self.boxes) > 0, "boxes", "numbers from 1")
