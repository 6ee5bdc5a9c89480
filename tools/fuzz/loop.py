"""The loop: change a file, have it read, look what happened; files that reach new lines are changed further."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tools.fuzz.coverage import LineCoverage
from tools.fuzz.guard import LONGEST, TooSlow, Watch, time_limit
from tools.fuzz.targets import Target, one_line
from utils.errors import ProjectError
from utils.paths import PROJECT_ROOT

_NEWEST = 16  # files of the corpus that every fourth case is made from


@dataclass
class Report:
    """What a run found out.

    Attributes:
        refused: cases that ended with one of the project's own errors.
        lines: of the project that were reached.
        corpus: files that reached new ones, the first ones included.
        slowest: seconds of the processor.
        failures: by place and kind of the fault, a line about the first case with it.
        failed: number of cases with a fault.
    """

    target: str
    cases: int = 0
    refused: int = 0
    lines: int = 0
    corpus: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    failed: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a case ended: ``fault`` is "" where it ended well, else where and what."""

    refused: bool = False
    fault: str = ""
    text: str = ""


def run_case(target: Target, data: bytes, watch: Watch, deadly: bool = False) -> Outcome:
    """Write a case into the current folder, have it read, and say how that ended."""
    path = Path(target.place)
    path.write_bytes(data)
    refused, fault, text = False, "", ""
    try:
        with watch.watching(Path.cwd()), time_limit(LONGEST, deadly):
            target.read(path)
    except ProjectError as error:
        refused = True
        if not one_line(str(error)):
            fault, text = f"{_place_of(error)} no line", f"{str(error)!r:.200}"
    except (Exception, TooSlow) as error:  # noqa: BLE001 - all others are what is looked for
        fault, text = f"{_place_of(error)} {type(error).__name__}", f"{error!r:.200}"
    if watch.seen:
        fault, text = f"did {watch.seen[0].split()[0]}", watch.seen[0]
    return Outcome(refused, fault, text)


def _place_of(error: BaseException) -> str:
    """File and line of the project's innermost function that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    here, root = str(Path(__file__).parent), str(PROJECT_ROOT)
    ours = [frame for frame in frames if frame.filename.startswith(root) and not frame.filename.startswith(here)]
    where = ours[-1] if ours else frames[-1]
    return f"{Path(where.filename).name}:{where.lineno}"


def fuzz(
    name: str,
    target: Target,
    *,
    cases: int,
    seed: str,
    folder: Path,
    watch: Watch,
    seconds: float = float("inf"),
    deadly: bool = False,
) -> Report:
    """Fuzz one kind of file.

    Args:
        name: of the target.
        target: what is fuzzed.
        cases: how many.
        seed: equal seeds give equal cases.
        folder: new; everything happens there, and files with faults stay in ``failures``.
        watch: of this process.
        seconds: stop after so many.
        deadly: see :func:`tools.fuzz.guard.time_limit`.
    """
    (folder / target.place).parent.mkdir(parents=True, exist_ok=True)
    report, random, coverage = Report(name), Random(f"{seed} {name}"), LineCoverage()
    begun = time.perf_counter()
    with contextlib.chdir(folder):
        corpus = files_to_begin_with(target)
        sound = list(corpus)
        for data in _cases(corpus, sound, target, random, cases):
            if time.perf_counter() - begun > seconds:
                break
            lines, started = coverage.lines, time.process_time()
            with coverage.watching():
                outcome = run_case(target, data, watch, deadly)
            report.slowest = max(report.slowest, time.process_time() - started)
            report.cases += 1
            report.refused += outcome.refused
            if coverage.lines > lines and data not in corpus:
                corpus.append(data)
                sound += [] if outcome.refused else [data]
            if outcome.fault:
                _keep(report, outcome, data, target)
    report.lines, report.corpus, report.seconds = coverage.lines, len(corpus), time.perf_counter() - begun
    return report


def files_to_begin_with(target: Target) -> list[bytes]:
    """Prepare the current folder; each file is read once, so that what libraries load then is no case's doing."""
    corpus = target.prepare()
    for data in corpus:
        Path(target.place).write_bytes(data)
        target.read(Path(target.place))
    return corpus


def _cases(corpus: list[bytes], sound: list[bytes], target: Target, random: Random, count: int) -> Iterator[bytes]:
    """The files to begin with, then changed ones; the corpus and the sound files in it grow while they are used."""
    yield from corpus[:count]
    for _ in range(count - len(corpus)):
        parents = random.choice((sound, sound, corpus, corpus[-_NEWEST:]))
        yield target.change(random.choice(parents), random)


def _keep(report: Report, outcome: Outcome, data: bytes, target: Target) -> None:
    """Note a fault, and keep the file of the first case with it."""
    report.failed += 1
    if outcome.fault not in report.failures:
        file = Path("failures", f"{report.target}-{report.cases}{Path(target.place).suffix}")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
        report.failures[outcome.fault] = f"{file.resolve()}: {outcome.text}"
