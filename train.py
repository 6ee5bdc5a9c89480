"""Train a detector: ``python train.py --data data.yaml --weights yolov5s.pt --img 640``; see ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import run_command
from engine.options.train import TrainOptions
from utils.log import setup_logging

if TYPE_CHECKING:
    import torch


def parse_opt(known: bool = False) -> TrainOptions:
    """Read the command line.

    Args:
        known: ignore arguments that are no flags of this command, for programs that wrap it.
    """
    return TrainOptions.parse(description=__doc__.split(":")[0], ignore_unknown=known)


def main(opt: TrainOptions) -> TrainOptions:
    """Train, or search for hyperparameters, with given options.

    Returns:
        The options, with ``save_dir`` set to the run folder.
    """
    from engine.evolution import evolve  # noqa: PLC0415 - --help must not wait for torch
    from engine.training import train_from_options, training_device  # noqa: PLC0415 - as above

    setup_logging()
    searches = opt.evolve is not None or opt.resume_evolve is not None
    opt.save_dir = str(evolve(opt, training_device(opt)) if searches else train_from_options(opt))
    return opt


def train(
    hyp: str | Path | Mapping[str, Any], opt: Any, device: torch.device, callbacks: Any = None
) -> tuple[float, ...]:
    """Train with given hyperparameters on a given device.

    Args:
        hyp: hyperparameters or their YAML file.
        opt: options as of :func:`parse_opt`; their ``save_dir`` is the run folder, a new one when it is missing.
        device: where to train.
        callbacks: called as ``callbacks.run(event, **facts)``; None calls nobody.

    Returns:
        P, R, mAP50, mAP50-95, box, obj and cls loss of the best weights.
    """
    from engine.training import as_train_options, train_run  # noqa: PLC0415 - --help must not wait for torch
    from utils.paths import increment_path  # noqa: PLC0415 - loaded with the engine

    setup_logging()
    options = as_train_options(opt)
    folder = getattr(opt, "save_dir", "") or increment_path(Path(options.project) / options.name, options.exist_ok)
    return train_run(hyp, options, device, folder, callbacks)


def run(**kwargs: Any) -> TrainOptions:
    """Train from Python: ``train.run(data="data.yaml", imgsz=320)``; keywords are the flags with ``_`` for ``-``.

    Returns:
        The options, with ``save_dir`` set to the run folder.

    Raises:
        OptionError: when a keyword is no flag of this command.
    """
    return main(TrainOptions.from_kwargs(**kwargs))


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(parse_opt())))
