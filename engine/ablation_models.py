"""From the models that an ablation names to networks: their descriptions, and what they cost."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from engine.ablation_files import Candidate
from engine.benchmarks.interleaved import Rounds, interleaved_rounds
from engine.options.ablate import ModelChoice
from engine.setup import training_size
from models.yolo import DetectionModel
from utils.model_info import count_flops
from utils.paths import check_yaml
from utils.yaml_io import yaml_load

Contents = dict[str, tuple[str, dict[str, Any]]]  # by name: the file, and the description that came of it
_ROUNDS = Rounds(least=10, most=30, seconds=10.0)


def model_content(choice: ModelChoice) -> dict[str, Any]:
    """The description of a network, as the trainings will read it.

    Whatever else than a file comes to name a model, such as a file and rows to insert into it, belongs here and into
    :class:`engine.options.ablate.ModelChoice`: all that follows sees the description alone.

    Raises:
        ConfigError: when there is no such file.
    """
    return yaml_load(check_yaml(choice.file))


def with_costs(
    contents: Contents,
    *,
    nc: int,
    anchors: float | None,
    imgsz: int,
    device: torch.device,
) -> list[Candidate]:
    """Build every model once, and count and measure what it costs.

    Args:
        contents: the models, the baseline first.
        nc: classes of the data.
        anchors: number of a level, where the hyperparameters name one.
        imgsz: image side, px.
        device: where latency is measured: a pass of one image in float32 through the network as detection runs it,
            with batch norms folded, all models taking turns.

    Raises:
        ConfigError: when a description is wrong.
    """
    candidates, passes = [], {}
    for name, (file, content) in contents.items():
        network = _built(file, content, nc, anchors)
        size = training_size(network, imgsz)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        candidates.append(Candidate(name, file, content, parameters, count_flops(network, size, size), (0.0, 0.0, 0.0)))
        passes[name] = partial(network.fuse().to(device).eval(), torch.full((1, 3, size, size), 0.5, device=device))
    latencies = measure_latency(passes, device)
    return [dataclasses.replace(one, latency_ms=latencies[one.name]) for one in candidates]


def measure_latency(
    passes: Mapping[str, Callable[[], object]], device: torch.device, rounds: Rounds = _ROUNDS
) -> dict[str, tuple[float, float, float]]:
    """Milliseconds of each network's pass, all taking turns: lower quartile, median, upper quartile.

    Args:
        passes: by name, what runs a network once.
        device: where it runs.
        rounds: how often.
    """
    with torch.no_grad():
        for run in (*passes.values(), *passes.values()):  # the first calls are slow
            run()
        timings = interleaved_rounds(passes, device, rounds)
    return {name: _quartiles(seconds) for name, seconds in timings.items()}


def _built(file: str, content: Mapping[str, Any], nc: int, anchors: float | None) -> DetectionModel:
    """The network; the process's random generators stay as they are."""
    with torch.random.fork_rng(devices=[]):
        named = {**content, "yaml_file": file}  # for messages
        return DetectionModel(named, ch=3, nc=nc, anchors=round(anchors) if anchors else None)


def _quartiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return 1e3 * low, 1e3 * middle, 1e3 * high
