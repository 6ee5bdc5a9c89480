"""What the flags of all benchmarks have in common: what a run is called, where its result goes, and how to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from engine.options.base import Options, flag

_PAGE = "docs/benchmarks.md"
_MOST_THREADS = 1024  # torch ends with an error of its own where there are many more than processors


def run_name(benchmark: str) -> Any:
    """The flag ``--name`` of a benchmark, whose runs are called as it is."""
    return flag(benchmark, "name of this run, counted up when it exists")


@dataclass
class BenchmarkOptions(Options):
    """Options of every benchmark; subclasses add their own, and a ``name``, whose default is the benchmark's."""

    docs: str = flag("", f"page to put the result on; bare: {_PAGE}", nargs="?", const=_PAGE)
    project: str = flag("runs/benchmark", "folder of the runs")
    name: str = run_name("")
    exist_ok: bool = flag(False, "write into the run folder even when it exists")

    @classmethod
    def benchmark(cls) -> str:
        """The word behind ``benchmark.py``."""
        return cls.name

    def settled(self) -> Self:
        """These options as a run takes them, and its page shows them: paths below the current folder seen from it."""
        return replace(self, **{field.name: _from_here(getattr(self, field.name)) for field in fields(self)})

    def command(self) -> str:
        """The command line that has these options, without a page that is not this project's own."""
        own = Path(self.docs).parts[-2:] == Path(_PAGE).parts
        shown = replace(BenchmarkOptions.settled(self), docs=_PAGE if own else "")
        return shown.command_line("python", "benchmark.py", self.benchmark())

    def _require_threads(self) -> None:
        self._require_from(1, "threads")
        self._require(self.threads <= _MOST_THREADS, "threads", f"{_MOST_THREADS} at most")


@dataclass
class QuickBenchmarkOptions(BenchmarkOptions):
    """Options of benchmarks that can be tried out in seconds.

    Attributes:
        quick_values: what ``--quick`` makes of the options by name.
    """

    quick_values: ClassVar[Mapping[str, Any]] = {}
    quick: bool = flag(False, "few, small things and one round, to see that it works")

    def settled(self) -> Self:
        """As :meth:`BenchmarkOptions.settled`, with what ``--quick`` changes of those that were not given."""
        chosen = {name: value for name, value in self.quick_values.items() if name not in self.given}
        return replace(super().settled(), **(chosen if self.quick else {}))


@dataclass
class TorchBenchmarkOptions(QuickBenchmarkOptions):
    """Options of benchmarks of a network on a device."""

    device: str = flag("", "cpu or a GPU's number; '' takes the first GPU, else the CPU")
    threads: int = flag(2, "torch's threads on the CPU")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_threads()


def _from_here(value: Any) -> Any:
    """A path below the current folder, or each of a list, without that folder; any other value as it is."""
    if isinstance(value, list):
        return [_from_here(one) for one in value]
    if isinstance(value, str) and Path(value).is_absolute() and Path(value).is_relative_to(Path.cwd()):
        return str(Path(value).relative_to(Path.cwd()))
    return value
