"""The tables of flags in the documentation: every flag has a row, and the test it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from engine.options.ablate import TRAINING_FLAGS, AblateOptions
from engine.options.benchmark import AttentionBenchmarkOptions, DetectBenchmarkOptions
from engine.options.detect import DetectOptions
from engine.options.pipeline_benchmark import PipelineBenchmarkOptions
from engine.options.tiling_benchmark import TilingBenchmarkOptions
from engine.options.train import TrainOptions
from engine.options.val import ValOptions

ROOT = Path(__file__).resolve().parent.parent
AS_IN_TRAIN = {AblateOptions.flag_of(name) for name in TRAINING_FLAGS} | {"--img", "--img-size", "--no-amp"}
TABLES = [
    ("training.md", "Flags of train.py", TrainOptions, {"--img", "--img-size", "--no-amp", "--no-deterministic"}),
    ("training.md", "Flags of val.py", ValOptions, {"--img", "--img-size"}),
    ("ablation.md", "Flags of ablate.py", AblateOptions, AS_IN_TRAIN),
    ("benchmarks.md", "Flags of benchmark.py attention", AttentionBenchmarkOptions, {"--imgsz"}),
    ("tiling.md", "Flags of benchmark.py tiling", TilingBenchmarkOptions, set()),
    ("benchmarks.md", "Flags of benchmark.py detect", DetectBenchmarkOptions, {"--img", "--img-size"}),
    ("benchmarks.md", "Flags of benchmark.py pipeline", PipelineBenchmarkOptions, {"--img", "--img-size"}),
    ("detect.md", "Flags of detect.py", DetectOptions, {"--img", "--img-size"}),
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
        named = re.search(r"`(tests/\S+\.py)::(\w+)`", cell)
        assert named, f"{flag}: no test named"
        tree = ast.parse((ROOT / named[1]).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert named[2] in names, f"{flag}: {named[1]} has no {named[2]}"
