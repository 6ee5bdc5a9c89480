"""Who may import whom: scripts -> engine -> models -> utils, and nobody imports a façade or a script."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {"utils": {"utils"}, "models": {"models", "utils"}, "engine": {"engine", "models", "utils"}}
SCRIPTS = {"train", "val", "detect", "benchmark", "ablate", "export", "hubconf", "yolov5_biformer"}
FACADES = {
    "utils.general",
    "utils.dataloaders",
    "utils.torch_utils",
    "utils.plots",
    "models.common",
    "models.experimental",
}
BASE = {"boxes", "log", "dist", "paths", "seeding"}  # of utils: these import nothing of ours but errors and the like
BASE_MAY_USE = {"utils.errors", "utils.log"}
LOCAL_IMPORT_MARK = "PLC0415"

FILES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]


def imports_of(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of imported modules with their lines; ``from a import b`` counts as both ``a`` and ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def ours(name: str) -> bool:
    return name.split(".")[0] in {*ALLOWED, *SCRIPTS}


def violations(path: Path, source: str, package: str) -> list[str]:
    where = path.relative_to(ROOT)
    found = []
    for name, line in imports_of(ast.parse(source)):
        top = name.split(".")[0]
        if top in SCRIPTS:
            found.append(f"{where}:{line}: imports the script {name}")
        elif top in ALLOWED and top not in ALLOWED[package]:
            found.append(f"{where}:{line}: {package} may not import {name}")
        elif name in FACADES:
            found.append(f"{where}:{line}: imports the façade {name}; import the file that holds the name")
    return found


def test_files_are_found():
    assert len(FILES) > 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards(path):
    found = violations(path, path.read_text(encoding="utf-8"), path.relative_to(ROOT).parts[0])
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("utils", "from models.yolo import Detect"),
        ("utils", "import engine.trainer"),
        ("models", "from engine import trainer"),
        ("engine", "import train"),
        ("engine", "from utils.general import colorstr"),
        ("engine", "from utils import general"),
        ("models", "def f():\n    from models.common import Conv"),
    ],
)
def test_the_guard_sees_a_violation(package, source):
    assert violations(ROOT / package / "x.py", source, package)


@pytest.mark.parametrize("name", sorted(BASE))
def test_base_modules_stand_alone(name):
    tree = ast.parse((ROOT / "utils" / f"{name}.py").read_text(encoding="utf-8"))
    own = {
        module for module, _ in imports_of(tree) if ours(module) and (ROOT / f"{module.replace('.', '/')}.py").exists()
    }
    assert own <= BASE_MAY_USE


@pytest.mark.parametrize("facade", sorted(FACADES))
def test_facades_hold_imports_and_all_only(facade):
    path = ROOT / f"{facade.replace('.', '/')}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for number, node in enumerate(tree.body):
        is_docstring = number == 0 and isinstance(node, ast.Expr)
        is_all = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        is_import = isinstance(node, (ast.Import, ast.ImportFrom))
        assert is_docstring or is_all or is_import, f"{path.name}:{node.lineno}: more than imports and __all__"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_inside_functions_give_a_reason(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for inner in ast.walk(node):
            if isinstance(inner, (ast.Import, ast.ImportFrom)):
                line = lines[inner.lineno - 1]
                reason = line.partition(LOCAL_IMPORT_MARK)[2].strip(" -")
                assert reason, f"{path.relative_to(ROOT)}:{inner.lineno}: import inside a function without a reason"


def test_no_file_is_over_500_lines():
    files = [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    long = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {name: count for name, count in long.items() if count > 500}
