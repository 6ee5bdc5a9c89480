"""Importing any module changes nothing: no network, no file written, no setting of the process touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Runs in a fresh interpreter. Third-party packages come first: what they do on import is theirs.
PROBE = r"""
import importlib, json, locale, os, random, signal, socket, sys, threading, warnings
import cv2, numpy, PIL.Image, PIL.ImageDraw, PIL.ImageFile, PIL.ImageFont, torch, torchvision, tqdm, yaml
import urllib.request, torch.utils.data, torch.utils.flop_counter, logging, multiprocessing.pool
roots = json.loads(sys.argv[1])
sys.path[:0] = roots
events, watching = [], False

def watch(event, arguments):
    if not watching:
        return
    if event.startswith(("socket.connect", "socket.getaddrinfo", "subprocess.", "os.system", "os.exec", "os.mkdir",
                         "os.remove", "os.rename", "shutil.", "os.chdir", "os.putenv", "urllib.")):
        events.append([event, repr(arguments)[:200]])
    elif event == "open":
        path, mode, flags = arguments
        writes = (mode and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ours = str(path).startswith(tuple(roots)) and ".venv" not in str(path)
        reads_ours = ours and not str(path).endswith((".py", ".pyc"))
        if (writes and "__pycache__" not in str(path)) or reads_ours:
            events.append([event, repr((path, mode))])

def state():
    return {
        "environment": dict(os.environ), "cwd": os.getcwd(), "path": list(sys.path),
        "torch print": str(vars(torch._tensor_str.PRINT_OPTS)), "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled),
        "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        "dtype": str(torch.get_default_dtype()), "grad": torch.is_grad_enabled(),
        "torch random": torch.get_rng_state().sum().item(), "numpy random": str(numpy.random.get_state()[1][:4]),
        "python random": hash(random.getstate()), "numpy print": str(numpy.get_printoptions()),
        "cv2 threads": cv2.getNumThreads(), "cv2": [cv2.imread.__name__, cv2.imwrite.__name__],
        "slow": [name for name in ("matplotlib", "pandas", "pycocotools", "tensorboard") if name in sys.modules],
        "warnings": len(warnings.filters), "handlers": [repr(h) for h in logging.root.handlers],
        "own handlers": [repr(h) for h in logging.getLogger("yolov5").handlers],
        "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "hooks": [repr(hook) for hook in (sys.excepthook, sys.displayhook, sys.gettrace(), threading.excepthook)],
        "limits": [sys.getrecursionlimit(), sys.get_int_max_str_digits(), PIL.Image.MAX_IMAGE_PIXELS,
                   PIL.ImageFile.LOAD_TRUNCATED_IMAGES, socket.getdefaulttimeout()],
        "running": sorted(thread.name for thread in threading.enumerate()), "locale": locale.setlocale(locale.LC_ALL),
        "opener": repr(urllib.request._opener), "device": str(torch.get_default_device()),
        "start method": multiprocessing.get_start_method(allow_none=True),
    }

sys.addaudithook(watch)
found = []
for modules in roots.values():
    changed = {}
    for name in modules:
        before, watching = state(), True
        importlib.import_module(name)
        watching = False
        after = state()
        difference = {key: [str(before[key])[:300], str(after[key])[:300]] for key in before
                      if before[key] != after[key]}
        if difference or events:
            changed[name] = {"state": difference, "events": list(events)}
            events.clear()
    found.append({"changed": changed, "files": os.listdir()})
print(json.dumps(found))
"""

PLANTED = {
    "sets_environment": "import os\nos.environ['PLANTED'] = '1'",
    "writes": "open('planted.txt', 'w').close()",
    "reads": "open(__file__.replace('.py', '.yaml')).close()",
    "sets_torch": "import torch\ntorch.set_num_threads(torch.get_num_threads() + 1)",
    "connects": "import socket\nsocket.socket().connect_ex(('127.0.0.1', 9))",
    "draws": "import random\nrandom.random()",
    "runs": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])",
    "imports_what_is_slow": "import pycocotools",
    "sets_signal": "import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)",
    "sets_limit": "import PIL.Image\nPIL.Image.MAX_IMAGE_PIXELS = None",
    "starts_thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
    "innocent": "VALUE = 1",
}


def all_modules() -> list[str]:
    packages = ("utils", "models", "engine", "tools", "yolov5_biformer")
    files = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    dotted = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    scripts = sorted({path.stem for path in ROOT.glob("*.py")} - {"setup"})
    return [name.removesuffix(".__init__") for name in dotted] + scripts


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What the project's modules change, and after them the planted ones; and the files in the working folder."""
    planted, cwd = tmp_path_factory.mktemp("planted"), tmp_path_factory.mktemp("cwd")
    for name, code in PLANTED.items():
        (planted / f"{name}.py").write_text(code)
    (planted / "reads.yaml").write_text("a: 1")
    done = subprocess.run(
        [sys.executable, "-B", "-c", PROBE, json.dumps({str(ROOT): all_modules(), str(planted): list(PLANTED)})],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_changes_nothing(found: list[dict]) -> None:
    assert len(all_modules()) > 50
    assert found[0] == {"changed": {}, "files": []}


def test_the_probe_sees_what_a_module_does(found: list[dict]) -> None:
    assert set(found[1]["changed"]) == set(PLANTED) - {"innocent"}
    assert found[1]["files"] == ["planted.txt"]
