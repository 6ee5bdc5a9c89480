"""The folder of a run: where each file goes, and writing checkpoints into it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from utils.paths import make_folder
from utils.yaml_io import yaml_save


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

    def best_is_unchecked(self) -> bool:
        """Whether ``best.pt`` still holds training state: stripping and checking it ends a run."""
        return self.best.exists() and read_checkpoint(self.best).optimizer is not None

    def write_settings(self, options: Mapping[str, Any], hyp: Mapping[str, float]) -> None:
        """Write ``hyp.yaml`` (before any scaling) and ``opt.yaml`` (all options, with ``hyp`` and ``save_dir``)."""
        yaml_save(self.hyp, dict(hyp))
        yaml_save(self.options, {**options, "hyp": dict(hyp), "save_dir": str(self.root)})

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
        write_checkpoint(self.last, checkpoint)


def timestamp() -> str:
    """Now, as a checkpoint records it."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
