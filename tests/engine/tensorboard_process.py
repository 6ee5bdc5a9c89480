"""Events where tensorboard is absent or the disk full: a process of its own, for what must not touch the tests'."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import engine.training  # noqa: F401 - all that a training loads
from engine.callbacks import Callback, Callbacks
from engine.tensorboard import CurveLog


class Count(Callback):
    """Counts the epochs and the ends that it hears of."""

    epochs = ended = 0

    def on_fit_epoch_end(self, epoch, values, fitness):
        self.epochs += 1

    def on_train_end(self, results, save_dir):
        self.ended += 1


class Keep(logging.Handler):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record):
        self.said.append(record.getMessage())


def train(folder: Path) -> dict:
    """The events of five epochs; what was said, heard and written."""
    folder.mkdir()
    keep, count = Keep(), Count()
    logger = logging.getLogger("yolov5")
    logger.addHandler(keep)
    callbacks = Callbacks(CurveLog(folder), count)
    callbacks.run("on_train_start", options=None, save_dir=folder)
    for epoch in range(5):
        callbacks.run("on_fit_epoch_end", epoch=epoch, values=[0.5] * 13, fitness=0.5)
    callbacks.run("on_train_end", results=(), save_dir=folder)
    logger.removeHandler(keep)
    sizes = [file.stat().st_size for file in folder.iterdir()]
    return {"said": keep.said, "epochs": count.epochs, "ended": count.ended, "sizes": sizes}


def main(root: Path) -> None:
    """Write what is found to ``found.json``, and what is printed meanwhile to ``printed.txt``."""
    printed = os.open(root / "printed.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(printed, 2)
    logging.getLogger("yolov5").setLevel("INFO")
    CurveLog(root).close()
    found = {"imported": [name for name in sys.modules if name.split(".")[0] == "tensorboard"]}
    sys.modules["tensorboard"] = None
    found["absent"] = train(root / "absent")
    del sys.modules["tensorboard"]
    if sys.platform != "win32":
        import resource

        before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        for limit in (0, 100, 1500):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
            found[str(limit)] = train(root / str(limit))
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    (root / "found.json").write_text(json.dumps(found))
