"""Measure what things cost here: ``python benchmark.py attention``, ``... formats``, ``... pipeline`` and so on.

    python benchmark.py attention            # every attention: operations, time and memory by image size
    python benchmark.py attention --quick    # the same on small images, to see that it works
    python benchmark.py attention --help     # its flags
    python benchmark.py detect               # a video through detect.py, its steps in turns and at the same time
    python benchmark.py formats --weights best.pt --data mydata/data.yaml --img 320     # latency and mAP of each format
    python benchmark.py index                # the label index of a million records: time and memory
    python benchmark.py growth               # time and memory by image size, batch, labels, workers
    python benchmark.py pipeline             # what stands around the network: start-up, data, training, validation

Tables and a picture go to ``runs/benchmark/``, and with ``--docs`` into the documentation. Exit codes: 0 done; 2 a
wrong option.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from engine.cli import run_command
from engine.options.base import Options
from engine.options.benchmark import AttentionBenchmarkOptions, DetectBenchmarkOptions, FormatsBenchmarkOptions
from engine.options.growth_benchmark import GrowthBenchmarkOptions
from engine.options.index_benchmark import IndexBenchmarkOptions
from engine.options.pipeline_benchmark import PipelineBenchmarkOptions
from engine.options.tiling_benchmark import TilingBenchmarkOptions
from utils.errors import OptionError
from utils.log import setup_logging


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its flags, and the function that measures, found on demand as ``--help`` must not wait for torch."""

    title: str
    options: type[Options]
    module: str
    function: str


BENCHMARKS = {
    "attention": Benchmark(
        "every attention of the family: operations, time and memory by image size",
        AttentionBenchmarkOptions,
        "engine.benchmarks.attention",
        "run_attention",
    ),
    "formats": Benchmark(
        "a detector in each format of export.py: latency and mAP",
        FormatsBenchmarkOptions,
        "engine.benchmarks.formats",
        "run_formats",
    ),
    "tiling": Benchmark(
        "small objects in large images: average precision with detect.py --tile and without",
        TilingBenchmarkOptions,
        "engine.benchmarks.tiling",
        "run_tiling",
    ),
    "detect": Benchmark(
        "a video through detect.py, its steps in turns and at the same time",
        DetectBenchmarkOptions,
        "engine.benchmarks.detection",
        "run_detect",
    ),
    "index": Benchmark(
        "the label index of a million records: building it, loading it, sharing it",
        IndexBenchmarkOptions,
        "engine.benchmarks.label_index",
        "run_index",
    ),
    "growth": Benchmark(
        "time and memory by image size, batch, labels of a data set and workers of the loader",
        GrowthBenchmarkOptions,
        "engine.benchmarks.growth",
        "run_growth",
    ),
    "pipeline": Benchmark(
        "what everything around the network costs, from start-up to the last epoch",
        PipelineBenchmarkOptions,
        "engine.benchmarks.pipeline",
        "run_pipeline",
    ),
}


def parse_opt(argv: Sequence[str] | None = None) -> tuple[str, Options]:
    """Read the command line.

    Args:
        argv: the benchmark's name and its flags; those of this process when None.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    listed = "\n".join(f"  {name:<12}{benchmark.title}" for name, benchmark in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        usage="%(prog)s BENCHMARK [flags]; BENCHMARK --help lists the flags",
        description=f"Measure what things cost here.\n\nbenchmarks:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("benchmark", choices=list(BENCHMARKS), metavar="BENCHMARK", help="what to measure")
    name = parser.parse_args(words[:1]).benchmark
    benchmark = BENCHMARKS[name]
    title = f"{benchmark.title[0].upper()}{benchmark.title[1:]}."
    return name, benchmark.options.parse(words[1:], description=title, prog=f"{parser.prog} {name}")


def main(name: str, opt: Options) -> Any:
    """Measure; returns what the benchmark found."""
    # The profiler, which counts memory, would log each of its steps; of use before torch is loaded
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    benchmark = BENCHMARKS[name]
    return getattr(import_module(benchmark.module), benchmark.function)(opt)


def run(benchmark: str = "attention", **kwargs: Any) -> Any:
    """Measure from Python; keywords are the flags with ``_`` for ``-``.

    Args:
        benchmark: its name.
        **kwargs: its flags.

    Returns:
        What the benchmark found, such as :class:`engine.benchmarks.attention.AttentionResult`.

    Raises:
        OptionError: when there is no such benchmark, or a keyword is no flag of it.
    """
    if benchmark not in BENCHMARKS:
        raise OptionError(f"unknown benchmark {benchmark!r}; expected one of {', '.join(BENCHMARKS)}")
    setup_logging()
    return main(benchmark, BENCHMARKS[benchmark].options.from_kwargs(**kwargs))


def _script() -> None:
    main(*parse_opt())


if __name__ == "__main__":
    # Layers alone are measured with threads that wait as torch has them wait, as in anybody's own program
    sys.exit(run_command(_script, quietly=sys.argv[1:2] != ["attention"]))
