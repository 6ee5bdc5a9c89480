"""What goes wrong around a training: what the user reads, the exit code, and what is kept."""

from __future__ import annotations

import ast
import csv
import itertools
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_resume import same, same_runs
from training_process import finish, start_function, tiny_settings

import train
from engine.autobatch import batch_that_fits
from engine.callbacks import Callback
from engine.cli import run_command
from engine.failures import is_out_of_memory
from engine.precision import Precision
from engine.results import ResultsCsv
from engine.stopping import StopRequest
from models.checkpoint import read_checkpoint
from models.yolo import DetectionModel
from utils.datasets.worker_faults import loading_fault
from utils.errors import BackendError, CheckpointError, DatasetError, TrainingError
from utils.paths import get_latest_run
from utils.yaml_io import yaml_load

ROOT = Path(__file__).resolve().parents[2]
HYP = ROOT / "data" / "hyps" / "hyp.scratch-low.yaml"
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX systems")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Gradients wait at every moment, and images are read when they are needed, so that they can go missing."""
    return {**tiny_settings(tmp_path_factory.mktemp("faults"), epochs=2), "nbs": 4000, "cache": "none"}


@pytest.fixture(scope="module")
def straight(settings):
    """A run in which nothing goes wrong."""
    return Path(train.run(**{**settings, "name": "straight"}).save_dir)


def folder_of(settings: dict, name: str) -> Path:
    return Path(settings["project"]) / name


@contextmanager
def at_pass(number: int, action: Callable[[DetectionModel], None], training: bool = True) -> Iterator[None]:
    """Do something with a network once it has been through so many batches of training, or of validation."""
    count = itertools.count(1)

    def passed(module, inputs, _):  # batches of one are those that a model finds its strides with
        ours = isinstance(module, DetectionModel) and module.training == training and len(inputs[0]) > 1
        if ours and next(count) == number:
            action(module)

    with torch.nn.modules.module.register_module_forward_hook(passed):
        yield


class AfterEpoch(Callback):
    """Does something once an epoch is on disk."""

    def __init__(self, epoch: int, action: Callable[[], None]) -> None:
        self.epoch, self.action = epoch, action

    def on_fit_epoch_end(self, epoch, values, fitness):
        if epoch == self.epoch:
            self.action()


def listened(settings: dict, name: str, epoch: int, action: Callable[[], None]) -> Path:
    """A whole training in whose course something happens; returns its folder."""
    options = train.TrainOptions.from_kwargs(**settings, name=name)
    options.save_dir = str(folder_of(settings, name))
    train.train(HYP, options, torch.device("cpu"), AfterEpoch(epoch, action))
    return folder_of(settings, name)


@pytest.fixture
def sheltered():
    """A signal that the training does not take fails the test, rather than end the suite."""

    def missed(number, _):
        raise AssertionError(f"signal {number} was not taken")

    before = {number: signal.signal(number, missed) for number in (signal.SIGTERM, signal.SIGINT)}
    yield missed
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is missed
    for number, handler in before.items():
        signal.signal(number, handler)


# Signals -------------------------------------------------------------------------------------------------------------


def told(number: int) -> Callable[[DetectionModel], None]:
    return lambda _: os.kill(os.getpid(), number)


@posix
@pytest.mark.parametrize(
    ("number", "batch", "training", "done"),
    [
        pytest.param(signal.SIGTERM, 1, True, (-1, 1), marks=pytest.mark.slow),  # in the first batch of all
        (signal.SIGINT, 3, True, (0, 1)),
        (signal.SIGTERM, 1, False, (-1, 2)),  # while it validates
    ],
)
def test_told_to_stop_a_training_saves_and_goes_on_exactly(
    settings, straight, sheltered, number, batch, training, done
):
    name = f"told-{number}-{training}"
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended, at_pass(batch, told(number), training):
        train.run(**{**settings, "name": name})
    assert (ended.type is KeyboardInterrupt) if number == signal.SIGINT else (ended.value.code == 143)
    folder = folder_of(settings, name)
    saved = read_checkpoint(folder / "weights" / "last.pt")
    assert (saved.epoch, saved.extra["unfinished"]["batches"]) == done
    train.run(resume=str(folder))
    same_runs(straight, folder)


@posix
def test_a_second_signal_ends_at_once_and_a_doubled_one_is_one(sheltered):
    with StopRequest() as doubled:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert isinstance(doubled.error(), KeyboardInterrupt)
    with pytest.raises(SystemExit) as ended, StopRequest(same_wish=0) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143
    assert stop.signal == signal.SIGINT


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_in_quick_succession_end_any_command_without_a_traceback(number):
    code = (
        "import sys, time; from engine.cli import run_command\n"
        "sys.exit(run_command(lambda: (print('on', flush=True), time.sleep(60))))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        for _ in range(2):
            child.send_signal(number)
            time.sleep(0.03)
        said = child.communicate(timeout=60)[1]
    assert "Traceback" not in said
    assert child.returncode in (128 + number, -number)


def run_as_command(folder: Path, settings: dict, limit: str = "", size: int = 0, epoch: int = -1) -> None:
    """What train.py does, in a process of its own whose files or memory may be limited after an epoch."""
    import resource

    kind = getattr(resource, limit, None)

    def tighten() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(kind, (size + (used if limit == "RLIMIT_AS" else 0), resource.RLIM_INFINITY))

    os.setpgid(0, 0)
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as in a program of its own on Linux
    torch.set_num_threads(1)
    with (folder / "said.log").open("w", buffering=1) as log:
        sys.stderr = log
        os.dup2(log.fileno(), 2)
        if kind is not None and epoch < 0:
            tighten()
        os._exit(run_command(lambda: listened(settings, "run", epoch, tighten)))


def commanded(folder: Path, settings: dict, *arguments) -> multiprocessing.Process:
    """Start that process; its run is in the same folder."""
    folder.mkdir(exist_ok=True)
    return start_function(run_as_command, folder, {**settings, "project": str(folder)}, *arguments)


def ended(child: multiprocessing.Process, folder: Path) -> tuple[int, str]:
    """Exit code and last line of such a process."""
    child.join(120)
    said = (folder / "said.log").read_text()
    assert "Traceback" not in said, said
    return child.exitcode, said.strip().splitlines()[-1]


@posix
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_leaves_the_workers_to_the_training(settings, tmp_path, number):
    child = commanded(tmp_path, {**settings, "epochs": 4000, "workers": 2, "noval": True})
    last = tmp_path / "run" / "weights" / "last.pt"
    while not last.exists():
        time.sleep(0.01)
    os.killpg(child.pid, number)
    code, _ = ended(child, tmp_path)
    assert code == 128 + number
    said = (tmp_path / "said.log").read_text()
    assert "loader process ended" not in said
    assert f"to go on from what is saved: python train.py --resume {tmp_path / 'run'}" in said


# Images and those who load them --------------------------------------------------------------------------------------


@contextmanager
def images_away(settings: dict, split: str = "train") -> Iterator[Callable[[DetectionModel], None]]:
    """Something that takes the images of a split away; they are back afterwards."""
    place = Path(settings["data"]).parent / "images" / split
    try:
        yield lambda _: place.rename(place.with_name("away"))
    finally:
        place.with_name("away").rename(place)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])  # whose end takes torch 20 s
def test_an_image_lost_in_an_epoch_ends_the_run_with_its_state_saved(settings, straight, workers):
    name = f"lost-{workers}"
    taken = 3 - workers  # workers have mostly read the whole first epoch when its first batch is through
    with images_away(settings) as take_away, at_pass(taken, take_away), pytest.raises(DatasetError) as lost:
        train.run(**{**settings, "workers": workers, "name": name})
    assert re.match(r"/\S+/images/train/\d+\.png: cannot be read \(No such file or directory\)$", str(lost.value))
    folder = folder_of(settings, name)
    assert lost.value.__notes__ == [f"to go on from what is saved: python train.py --resume {folder}"]
    saved = read_checkpoint(folder / "weights" / "last.pt")
    # how far ahead worker processes have read is theirs to say: into the second epoch, or still in the first
    possible = [(0, 0), (-1, 1)] if workers else [(0, 1)]
    assert (saved.epoch, saved.extra["unfinished"]["batches"]) in possible
    if not workers:
        train.run(resume=str(folder))
        same_runs(straight, folder)


@pytest.mark.slow
def test_an_image_lost_before_an_evaluation_ends_the_run_with_its_state_saved(settings, straight):
    with images_away(settings, "val") as take_away, at_pass(2, take_away), pytest.raises(DatasetError, match="read"):
        train.run(**{**settings, "name": "lost-val"})
    folder = folder_of(settings, "lost-val")
    saved = read_checkpoint(folder / "weights" / "last.pt")
    assert (saved.epoch, saved.extra["unfinished"]["batches"]) == (-1, 2)
    train.run(resume=str(folder))
    same_runs(straight, folder)


def lie_down(_: object) -> None:
    """Wait to be killed."""
    time.sleep(600)


@posix
@pytest.mark.parametrize(
    ("number", "expected"),
    [("SIGKILL", r"was killed \(SIGKILL\), .* fewer --workers"), ("SIGBUS", "shared memory"), ("SIGSEGV", "SIGSEGV")],
)
def test_what_killed_a_loader_process_is_said(number, expected):
    child = start_function(lie_down, None)
    os.kill(child.pid, getattr(signal, number))
    child.join()
    noticed = RuntimeError(f"DataLoader worker (pid(s) {child.pid}) exited unexpectedly")
    for error in (noticed, ConnectionResetError(104, "Connection reset by peer"), EOFError()):  # or in a hand-over
        fault = loading_fault(error, [child])
        assert isinstance(fault, BackendError)
        assert re.search(expected, str(fault))


@posix
@pytest.mark.slow
def test_a_killed_loader_process_ends_the_run_with_its_state_saved(settings, straight):
    def kill(_) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    with at_pass(1, kill), pytest.raises(BackendError, match=r"was killed \(SIGKILL\)"):
        train.run(**{**settings, "workers": 1, "name": "killed-worker"})
    train.run(resume=str(folder_of(settings, "killed-worker")))
    same_runs(straight, folder_of(settings, "killed-worker"))


@posix
def test_no_memory_to_share_with_loader_processes_is_said(settings, tmp_path):
    """A limit on the size of files holds for those of /dev/shm too: a batch has 48 kB."""
    code, said = ended(commanded(tmp_path, {**settings, "workers": 1}, "RLIMIT_FSIZE", 40_000), tmp_path)
    assert code == 2
    assert said.startswith("error: the loader processes have too little shared memory (/dev/shm); give it more")


# Numbers and memory --------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_names_the_images_and_keeps_the_last_checkpoint(settings):
    def spoil(model) -> None:
        model.model[0].conv.weight.data.fill_(float("nan"))

    with pytest.raises(TrainingError) as spoiled, at_pass(3, spoil):
        train.run(**{**settings, "name": "spoiled"})
    last = folder_of(settings, "spoiled") / "weights" / "last.pt"
    text = str(spoiled.value)
    assert text.startswith("epoch 1, batch 2: the loss is no finite number (box nan, obj nan, cls nan); lower lr0")
    images = re.findall(r"/\S+\.png", text)
    assert len(set(images)) == 4
    assert all(Path(image).is_file() for image in images)
    assert text.endswith(f". {last} is from before it")
    assert not hasattr(spoiled.value, "__notes__")  # going on would come to the same batch
    saved = read_checkpoint(last)
    assert (saved.epoch, saved.extra["unfinished"]["batches"]) == (0, 0)
    assert all(bool(tensor.isfinite().all()) for tensor in saved.model.values())


@contextmanager
def memory_for(images: int) -> Iterator[None]:
    """A machine that has no memory for larger batches: torch is asked for 40 TB, and refuses them."""

    def ask(module, inputs):
        if isinstance(module, DetectionModel) and len(inputs[0]) > images:
            torch.empty(10**13)

    with torch.nn.modules.module.register_module_forward_pre_hook(ask):
        yield


def test_out_of_memory_says_which_batch_goes_through(settings):
    with memory_for(2), pytest.raises(TrainingError) as ended:
        train.run(**{**settings, "batch_size": 8, "name": "memory"})
    assert re.match(
        r"--batch-size 8 at 64 px: out of memory \(.*allocate.*\); --batch-size 2 went through a trial here, or lower",
        str(ended.value),
    )
    cpu = torch.device("cpu")
    assert batch_that_fits(torch.nn.Identity(), 64, cpu, Precision(cpu), below=1) == 0


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, is_one):
    assert is_out_of_memory(error) == is_one


# Disks, folders, clocks ----------------------------------------------------------------------------------------------


@posix
def test_a_full_disk_ends_the_run_with_the_checkpoint_before(settings, tmp_path):
    """Files that cannot grow stand for a disk that is full after the first epoch."""
    code, said = ended(commanded(tmp_path, {**settings, "noval": True}, "RLIMIT_FSIZE", 20_000, 0), tmp_path)
    folder = tmp_path / "run"
    assert code == 2
    assert re.match(r"error: \S+/best\.pt: cannot be written \(File too large\); to go on from what is saved", said), (
        said
    )
    assert said.endswith(f": python train.py --resume {folder}")
    assert read_checkpoint(folder / "weights" / "last.pt").epoch == 0
    assert not list(folder.rglob("*.tmp"))
    finish({"resume": str(folder)})
    rows = list(csv.reader((folder / "results.csv").open()))
    assert [row[0].strip() for row in rows] == ["epoch", "0", "1"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_table_that_cannot_be_written_ends_the_run_with_the_checkpoint_before(settings):
    table = folder_of(settings, "full") / "results.csv"

    def fill() -> None:
        table.unlink()
        table.symlink_to("/dev/full")

    with pytest.raises(TrainingError, match=r"results\.csv: cannot be written \(No space left on device\)"):
        listened(settings, "full", 0, fill)
    assert read_checkpoint(table.with_name("weights") / "last.pt").epoch == 0


def test_a_run_folder_that_vanishes_is_made_again(settings, straight, caplog):
    folder = folder_of(settings, "vanished")
    assert listened(settings, "vanished", 0, lambda: shutil.rmtree(folder)) == folder
    assert "the run folder has vanished and is made again" in caplog.text
    assert (folder / "results.csv").read_text() == (straight / "results.csv").read_text()
    contents = [torch.load(run / "weights" / "last.pt", weights_only=True) for run in (straight, folder)]
    for part in ("model", "ema", "optimizer"):
        same(*(content[part] for content in contents), part)
    assert read_checkpoint(folder / "weights" / "best.pt").optimizer is None
    assert yaml_load(folder / "opt.yaml")["epochs"] == 2


def test_a_table_that_is_gone_is_written_again(tmp_path):
    table = ResultsCsv(tmp_path / "results.csv")
    table.restore()
    assert not table.path.exists()
    table.append(0, [0.5] * 13)
    before = table.path.read_text()
    table.path.unlink()
    table.restore()
    assert table.path.read_text() == before


def test_after_a_clock_was_set_back_no_run_is_taken_for_the_newest(tmp_path):
    files = [tmp_path / name / "weights" / "last.pt" for name in ("exp", "exp2")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.touch()
    os.utime(files[0], (time.time() - 50, time.time() - 50))
    assert get_latest_run(tmp_path) == str(files[1])
    os.utime(files[0], (time.time() + 3600, time.time() + 3600))
    with pytest.raises(CheckpointError, match=r"exp/weights/last\.pt: was written later than now, so the clock"):
        get_latest_run(tmp_path)
    files[1].unlink()
    assert get_latest_run(tmp_path) == str(files[0])


def test_figures_do_not_depend_on_the_clock():
    """Nothing asks for the time of day but what writes it down for people, or compares it with that of files."""
    named = {"time.time", "datetime.now", "datetime.datetime.now", "datetime.today", "time.localtime", "date.today"}
    asking = set()
    for file in itertools.chain.from_iterable((ROOT / part).rglob("*.py") for part in ("engine", "models", "utils")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in named:
                asking.add(str(file.relative_to(ROOT)))
    assert asking == {"engine/run_files.py", "engine/tensorboard.py", "utils/paths.py"}
