"""The folder of a run: where each file goes, and writing checkpoints into it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from models.yaml_text import model_yaml_text
from utils.atomic import replacing
from utils.dist import from_main, is_main
from utils.errors import ConfigError, OptionError
from utils.log import LOGGER
from utils.paths import increment_path, make_folder
from utils.yaml_io import yaml_save

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@dataclass(frozen=True)
class RunFolder:
    """Paths inside ``runs/train/exp``."""

    root: Path

    def create(self) -> None:
        """Make the folder and the one for weights; a ConfigError says where that is not possible."""
        make_folder(self.weights)

    @property
    def weights(self) -> Path:
        """Folder of the checkpoints."""
        return self.root / "weights"

    @property
    def last(self) -> Path:
        """Checkpoint of the last epoch, with all that training needs to go on."""
        return self.weights / "last.pt"

    @property
    def best(self) -> Path:
        """Checkpoint of the best epoch."""
        return self.weights / "best.pt"

    @property
    def csv(self) -> Path:
        """Figures of every epoch."""
        return self.root / "results.csv"

    @property
    def options(self) -> Path:
        """All options of the run."""
        return self.root / "opt.yaml"

    @property
    def hyp(self) -> Path:
        """Hyperparameters of the run."""
        return self.root / "hyp.yaml"

    @property
    def network(self) -> Path:
        """The network's YAML, where the run made one of its own."""
        return self.root / "model.yaml"

    @property
    def is_whole(self) -> bool:
        """Whether the folders are still where they were made."""
        return self.weights.is_dir()

    def forget_other_run(self) -> None:
        """Remove weights and figures that another run left here: what this one finds later should be its own."""
        for file in (self.last, self.best, self.csv, self.network):
            file.unlink(missing_ok=True)

    def best_is_unchecked(self) -> bool:
        """Whether ``best.pt`` still holds training state: stripping and checking it ends a run."""
        return self.best.exists() and read_checkpoint(self.best).optimizer is not None

    def write_settings(self, options: Mapping[str, Any], hyp: Mapping[str, float]) -> None:
        """Write ``hyp.yaml`` (before any scaling) and ``opt.yaml`` (all options, with ``hyp`` and ``save_dir``)."""
        yaml_save(self.hyp, dict(hyp))
        yaml_save(self.options, {**options, "hyp": dict(hyp), "save_dir": str(self.root)})

    def write_network(self, content: Mapping[str, Any], insertions: Iterable[str]) -> None:
        """Write ``model.yaml``, from which ``--cfg`` builds the same network again."""
        put_in = " ".join(json.dumps(text, ensure_ascii=False) for text in insertions)
        title = f"{content['yaml_file']}; put in for this run: {put_in}"
        with replacing(self.network) as stream:
            stream.write(model_yaml_text(content, title))

    def write_epoch(self, checkpoint: Checkpoint, *, best: bool, period: int) -> None:
        """Write ``last.pt``, and before it, where asked for, ``best.pt`` and ``epoch<n>.pt``.

        ``last.pt`` comes last because it is what a run goes on from: should the process die before it is in place, the
        epoch is run again and writes the same files once more.

        Args:
            checkpoint: of the epoch that has just ended.
            best: also write it as the best one.
            period: also keep it when this divides its epoch; below 1 keeps none.
        """
        if best:
            write_checkpoint(self.best, checkpoint)
        if period > 0 and checkpoint.epoch % period == 0:
            write_checkpoint(self.weights / f"epoch{checkpoint.epoch}.pt", checkpoint)
        self.write_last(checkpoint)

    def write_last(self, checkpoint: Checkpoint) -> None:
        """Write ``last.pt``."""
        write_checkpoint(self.last, checkpoint)


@contextmanager
def claimed_folder(wanted: Path, exist_ok: bool) -> Iterator[Path]:
    """A run folder that no other process has; an error that leaves it empty takes it away again.

    Args:
        wanted: its path, counted up when something is there already; the same in every process of a launch.
        exist_ok: take it even so.
    """
    made = _claim(wanted, exist_ok) if is_main() else []
    folder = from_main(made[-1] if made else wanted)
    try:
        yield folder
    finally:
        for path in reversed(made):  # a folder with something in it stays
            with contextlib.suppress(OSError):
                path.rmdir()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a run folder to this process; the system lets go of it when the process ends, however it ends.

    Args:
        folder: must be there. Where the system has no such locks, nothing is kept from anybody.

    Raises:
        OptionError: when another process is training in it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OptionError(
                f"{folder}: another process is training in this folder; wait, or choose another"
            ) from error
        except OSError:  # a file system without locks
            LOGGER.debug(f"{folder}: cannot be locked")
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough while a loader process has a copy
        os.close(descriptor)


def _claim(wanted: Path, exist_ok: bool) -> list[Path]:
    """Make a folder, and those above it that are missing; returns what was made, or that folder alone."""
    missing = [path for path in reversed(wanted.parents) if not path.exists()]
    make_folder(wanted.parent)
    while True:
        path = increment_path(wanted, exist_ok)
        if exist_ok and path.exists():
            return [path]
        try:
            path.mkdir()
        except FileExistsError:  # another process was faster: take the next number
            continue
        except OSError as error:
            raise ConfigError(
                f"{path}: this folder cannot be made ({error.strerror or error}); choose another --project or --name"
            ) from error
        return [*missing, path]


def timestamp() -> str:
    """Now, as a checkpoint records it."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
