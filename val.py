"""Measure a detector: ``python val.py --data data.yaml --weights best.pt --img 640``; see ``--help``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import run_command
from engine.options.val import ValOptions
from utils.log import setup_logging

if TYPE_CHECKING:
    from torch import nn

    from engine.evaluator import EvalResult

Triple = tuple[tuple[float, ...], Any, tuple[float, float, float]]


def parse_opt() -> ValOptions:
    """Read the command line."""
    return ValOptions.parse(description=__doc__.split(":")[0])


def main(opt: ValOptions) -> EvalResult | None:
    """Do what ``--task`` says."""
    from engine.validator import run_task  # noqa: PLC0415 - --help must not wait for torch

    return run_task(opt)


def run(
    data: Any,
    weights: Any = None,
    *,
    model: nn.Module | None = None,
    dataloader: Any = None,
    save_dir: str | Path = "",
    plots: bool = True,
    callbacks: Any = None,
    compute_loss: Any = None,
    **kwargs: Any,
) -> Triple:
    """Measure from Python; keywords are the flags with ``_`` for ``-``, and ``half`` is on where there is CUDA.

    Args:
        data: data set YAML, or what ``check_dataset`` made of it.
        weights: one or several checkpoints.
        model: a model to measure instead; then no folder is made.
        dataloader: batches to measure on instead of the data's.
        save_dir: where pictures go when a model is given; none are drawn without it.
        plots: draw pictures.
        callbacks: called as ``callbacks.run(event, **facts)``; None calls nobody.
        compute_loss: also report losses; called with raw levels and targets.
        **kwargs: more options.

    Returns:
        (P, R, mAP50, mAP50-95, box, obj, cls), mAP50-95 of each class, and ms per image of pre-processing, inference
        and NMS.

    Raises:
        OptionError: when a keyword is no flag of this command.
    """
    import torch  # noqa: PLC0415 - --help must not wait for torch

    from engine.validator import Given, validate  # noqa: PLC0415 - as above

    if weights is not None:
        kwargs["weights"] = [weights] if isinstance(weights, (str, Path)) else list(weights)
    elif model is not None:
        kwargs["weights"] = []  # else files about the given model would bear the name of the default weights
    cuda = torch.cuda.is_available() and str(kwargs.get("device")) != "cpu"
    setup_logging()
    options = ValOptions.from_kwargs(**{"data": data, "half": cuda, **kwargs})
    result = validate(options, Given(model, dataloader, Path(save_dir), plots, compute_loss, callbacks))
    return result.summary, result.metrics.maps, result.speed_ms


def __getattr__(name: str) -> Any:
    """``val.process_batch``, its place in v7; found on demand, as ``--help`` must not wait for torch."""
    if name == "process_batch":
        from utils.metrics import process_batch  # noqa: PLC0415 - --help must not wait for torch

        return process_batch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(parse_opt())))
