"""The tables of flags in the documentation: every flag has a row, and the test it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from engine.options.ablate import TRAINING_FLAGS, AblateOptions
from engine.options.benchmark import AttentionBenchmarkOptions, DetectBenchmarkOptions, FormatsBenchmarkOptions
from engine.options.detect import DetectOptions
from engine.options.export import ExportOptions
from engine.options.growth_benchmark import GrowthBenchmarkOptions
from engine.options.index_benchmark import IndexBenchmarkOptions
from engine.options.pipeline_benchmark import PipelineBenchmarkOptions
from engine.options.tiling_benchmark import TilingBenchmarkOptions
from engine.options.train import TrainOptions
from engine.options.val import ValOptions

ROOT = Path(__file__).resolve().parent.parent
AS_IN_TRAIN = {AblateOptions.flag_of(name) for name in TRAINING_FLAGS} | {"--img", "--img-size", "--no-amp"}
TABLES = [
    ("training.md", "Flags of train.py", TrainOptions, {"--img", "--img-size", "--no-amp", "--no-deterministic"}),
    ("export.md", "Flags of export.py", ExportOptions, {"--img", "--img-size"}),
    ("training.md", "Flags of val.py", ValOptions, {"--img", "--img-size"}),
    ("ablation.md", "Flags of ablate.py", AblateOptions, AS_IN_TRAIN),
    ("benchmarks.md", "Flags of benchmark.py attention", AttentionBenchmarkOptions, {"--imgsz"}),
    ("benchmarks.md", "Flags of benchmark.py tiling", TilingBenchmarkOptions, set()),
    ("benchmarks.md", "Flags of benchmark.py detect", DetectBenchmarkOptions, {"--img", "--img-size"}),
    ("benchmarks.md", "Flags of benchmark.py index", IndexBenchmarkOptions, set()),
    ("benchmarks.md", "Flags of benchmark.py growth", GrowthBenchmarkOptions, {"--img", "--img-size"}),
    ("benchmarks.md", "Flags of benchmark.py pipeline", PipelineBenchmarkOptions, {"--img", "--img-size"}),
    ("detect.md", "Flags of detect.py", DetectOptions, {"--img", "--img-size"}),
    ("benchmarks.md", "Flags of benchmark.py formats", FormatsBenchmarkOptions, {"--img", "--img-size"}),
]


def rows(page: str, heading: str) -> dict[str, str]:
    """First flag of each row of a table to the row's last cell."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `--")]
    return {re.findall(r"--[\w-]+", row[0])[0]: row[-1] for row in cells}


@pytest.mark.parametrize(("page", "heading", "options", "other_names"), TABLES)
def test_every_flag_has_a_row_and_a_test(page, heading, options, other_names):
    table = rows(page, heading)
    flags = {name for action in options.parser()._actions for name in action.option_strings}
    assert set(table) == flags - other_names - {"-h", "--help"}
    for flag, cell in table.items():
        assert_tests_are_there(flag, cell)


def assert_tests_are_there(row: str, cell: str) -> None:
    """A cell of a table names one test or more, and each is in the file that it names."""
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", cell)
    assert named, f"{row}: no test named"
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in names, f"{row}: {file} has no {name}"


def test_every_promise_of_reliability_names_tests():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| promise \| test \| figure \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.M)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(rows) > 20
    for row in rows:
        promise, tests, _ = row.removeprefix("| ").split(" |", 2)
        assert_tests_are_there(promise, tests)
