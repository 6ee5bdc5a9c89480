"""The table of flags in docs/training.md: every flag has a row, and the test it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from engine.options.train import TrainOptions
from engine.options.val import ValOptions

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
SAME_AS = {"--img", "--img-size", "--no-amp", "--no-deterministic"}  # other names of flags in the table


def rows(heading: str) -> dict[str, str]:
    """First flag of each row of a table to the row's last cell."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `--")]
    return {re.findall(r"--[\w-]+", row[0])[0]: row[-1] for row in cells}


@pytest.mark.parametrize(("heading", "options"), [("Flags of train.py", TrainOptions), ("Flags of val.py", ValOptions)])
def test_every_flag_has_a_row_and_a_test(heading, options):
    table = rows(heading)
    flags = {name for action in options.parser()._actions for name in action.option_strings}
    assert set(table) == flags - SAME_AS - {"-h", "--help"}
    for flag, cell in table.items():
        named = re.search(r"`(tests/\S+\.py)::(\w+)`", cell)
        assert named, f"{flag}: no test named"
        tree = ast.parse((ROOT / named[1]).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert named[2] in names, f"{flag}: {named[1]} has no {named[2]}"
