"""The flags of ``benchmark.py index``: one field is one flag and one keyword of ``benchmark.run("index", ...)``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.options.base import Options, flag

_QUICK = {"records": 3000, "files": 40, "processes": 1}


@dataclass
class IndexBenchmarkOptions(Options):
    """Options of ``benchmark.py index``."""

    records: int = flag(1_000_000, "label records that are made")
    boxes: list[int] = flag([10, 1], "of each image; one index of all records for each number")
    files: int = flag(100_000, "real images, each with a label file, in a temporary folder")
    processes: int = flag(2, "further processes at the same time")
    quick: bool = flag(False, "few of everything, to see that it works")
    docs: str = flag("", "page to put the result on; bare: docs/benchmarks.md", nargs="?", const="docs/benchmarks.md")
    project: str = flag("runs/benchmark", "folder of the runs")
    name: str = flag("index", "name of this run, counted up when it exists")
    exist_ok: bool = flag(False, "write into the run folder even when it exists")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_from(1, "records", "files", "processes")
        self._require(bool(self.boxes) and min(self.boxes) > 0, "boxes", "numbers from 1")

    def settled(self) -> IndexBenchmarkOptions:
        """These options, with what ``--quick`` changes of those that were not given."""
        if not self.quick:
            return self
        return replace(self, **{name: value for name, value in _QUICK.items() if name not in self.given})

    def command(self) -> str:
        """The command line that has these options."""
        return self.command_line("python", "benchmark.py", "index")
