"""Files that came from anywhere: a sample of the fuzzer's cases, and that the fuzzer would notice what is forbidden."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.fuzz.__main__ import NAMES, main, parse_arguments
from tools.fuzz.guard import Watch
from tools.fuzz.loop import fuzz, run_case
from tools.fuzz.targets import Target, make_targets
from utils.errors import ConfigError
from utils.paths import PROJECT_ROOT

SAMPLE = {"labels": 200, "data": 40, "model": 10, "images": 80, "index": 30, "checkpoints": 8}


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.mark.parametrize("name", NAMES)
def test_a_sample(name: str, watch: Watch, tmp_path: Path) -> None:
    report = fuzz(name, make_targets()[name], cases=SAMPLE[name], seed="suite", folder=tmp_path, watch=watch)
    assert not report.failures
    assert report.cases == SAMPLE[name]
    assert report.corpus > 1 and report.lines > 50  # changes reached code that the files to begin with did not


def test_equal_seeds_make_equal_cases(watch: Watch, tmp_path: Path) -> None:
    last = []
    for folder in ("a", "b"):
        fuzz("labels", make_targets()["labels"], cases=50, seed="1", folder=tmp_path / folder, watch=watch)
        last.append((tmp_path / folder / "labels" / "case.txt").read_bytes())
    assert last[0] == last[1]


def _escapes(path: Path) -> None:
    Path("../escaped.txt").write_text("x")


def _hides(path: Path) -> None:
    try:
        _runs_for_ever(path)
    except Exception:  # noqa: BLE001 - as a careless reader would
        raise ConfigError("nothing happened") from None


def _runs_for_ever(path: Path) -> None:
    begun = time.process_time()
    while time.process_time() - begun < 3:
        pass


def _says_much(path: Path) -> None:
    error = ConfigError("x")
    error.args = ("two\nlines",)
    raise error


FORBIDDEN = {
    "did open": _escapes,
    "did os.remove": lambda path: Path("../never_there.txt").unlink(missing_ok=True),
    "did subprocess.Popen": lambda path: subprocess.run([sys.executable, "-c", ""], check=False),
    "did os.system": lambda path: os.system("true"),
    "did socket.": lambda path: socket.socket().connect_ex(("127.0.0.1", 9)),
    "did exec": lambda path: exec("1"),
    "did pickle.find_class": lambda path: pickle.loads(b"cbuiltins\nlen\n."),
    "KeyError": lambda path: {}["x"],
    "no line": _says_much,
    "TooSlow": _hides,
}


@pytest.mark.parametrize("fault", FORBIDDEN)
def test_the_fuzzer_sees_what_is_forbidden(
    fault: str, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    monkeypatch.setattr("tools.fuzz.loop.LONGEST", 0.1)
    target = Target(1, "case", lambda: [], lambda data, random: data, FORBIDDEN[fault])
    outcome = run_case(target, b"x", watch)
    assert fault in outcome.fault
    assert not run_case(Target(1, "case", list, bytes, lambda path: path.read_bytes()), b"x", watch).fault


START_A_WORKER = """
import sys, time, multiprocessing, pathlib
from tools.fuzz.worker import work

processes = multiprocessing.get_context("spawn")
_, sender = processes.Pipe(duplex=False)
for_hours = ("labels", 10**9, "0", float("inf"), pathlib.Path(sys.argv[1]), sender)
processes.Process(target=work, args=for_hours).start()
print("started", flush=True)
time.sleep(60)
"""


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", START_A_WORKER, str(tmp_path)],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert parent.stdout.readline() == b"started\n"
        parent.kill()
        parent.communicate(timeout=20)  # ends when nobody has the other end any more, the worker least of all
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_dies_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "labels").write_text("in the way of the folder that it wants to make")
    assert main(parse_arguments(["--cases", "20", "--targets", "labels", "--folder", str(tmp_path)])) == 1
    assert "labels: the process ended with 1" in capsys.readouterr().out


@pytest.mark.slow
def test_ten_thousand_cases(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """What docs/reliability.md reports is this with 100,000."""
    found = main(parse_arguments(["--cases", "10000", "--seed", "slow", "--folder", str(tmp_path)]))
    assert found == 0, capsys.readouterr().out
