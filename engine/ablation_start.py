"""Where an ablation begins: anew, after looking at all that later trainings need, or from its folder."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.ablation_files import Ablation, AblationFolder, Candidate, read_ablation
from engine.benchmarks.interleaved import Rounds, interleaved_rounds
from engine.benchmarks.machine import describe_machine
from engine.options.ablate import AblateOptions, ModelChoice
from engine.setup import Names, load_data, load_hyperparameters, load_start, training_size
from models.config import load_model_yaml
from models.insertion import insert_rows
from models.yolo import DetectionModel
from utils.datasets.images import list_images
from utils.devices import select_device
from utils.errors import DatasetError, OptionError
from utils.log import LOGGER
from utils.model_info import count_flops

_CHANGEABLE = frozenset({"workers", "cache"})  # no figure depends on them
_ADDED_TO = frozenset({"seeds", "variants"})
_COMPARED_BY_CONTENT = frozenset({"baseline", "hyp"})
_ABOUT_THE_FOLDER = frozenset({"resume", "project", "name", "exist_ok"})
_ROUNDS = Rounds(least=10, most=30, seconds=10.0)


def begin_ablation(options: AblateOptions) -> Ablation:
    """A new ablation. Data, recipe, start weights and every model are looked at before hours are spent.

    Raises:
        ProjectError: whatever of these cannot be used.
    """
    hyp = load_hyperparameters(options.hyp)
    load_start(options.weights)
    baseline, *variants = options.choices()
    first = described(baseline, {})
    candidates = [first, *(described(choice, first.content) for choice in variants)]
    return _measured(Ablation(options, hyp, "", candidates, []))


def resume_ablation(asked: AblateOptions, folder: AblationFolder) -> Ablation:
    """The ablation to go on with, with the seeds and variants that the command adds.

    Trainings that failed are tried once more.

    Args:
        asked: the command's options.
        folder: of the ablation.

    Raises:
        OptionError: when an option differs from what it was begun with.
        ConfigError: when its state cannot be read.
    """
    root = folder.root
    ablation = read_ablation(folder.state)
    _refuse_other_options(asked, ablation, root)
    added = _added_models(asked, ablation, root)
    stored = ablation.options
    changes: dict[str, Any] = {name: getattr(asked, name) for name in asked.given & _CHANGEABLE}
    new_seeds = [seed for seed in asked.seeds if "seeds" in asked.given and seed not in stored.seeds]
    new_models = [f"{one.name}={one.file}" for one in added]
    ablation.options = dataclasses.replace(
        stored, **changes, seeds=[*stored.seeds, *new_seeds], variants=[*stored.variants, *new_models]
    )
    ablation.options.choices()  # refuses a name that is there already, but for the case
    _tell_of_another_machine(ablation)
    if added:  # latency compares only what was measured by turns
        ablation.candidates += added
        ablation = _measured(ablation)
    ablation.outcomes = [outcome for outcome in ablation.outcomes if not outcome.failure]
    return ablation


def find_ablation(wanted: str | bool) -> AblationFolder:
    """The folder of an ablation to go on with.

    Args:
        wanted: the folder or the state in it; True for the newest below the current folder.

    Raises:
        OptionError: when there is none.
    """
    if wanted is True:
        found = list(Path().rglob("ablation.yaml"))
        if not found:
            raise OptionError(f"--resume: no ablation.yaml anywhere below {Path.cwd()}; give the folder of an ablation")
        return AblationFolder(max(found, key=lambda path: path.stat().st_mtime).parent)
    path = Path(str(wanted))
    folder = AblationFolder(path if path.is_dir() else path.parent)
    if not folder.state.is_file() or path not in (folder.root, folder.state):
        raise OptionError(f"--resume {wanted}: no ablation there; give the folder that holds its ablation.yaml")
    return folder


def _refuse_other_options(asked: AblateOptions, ablation: Ablation, root: Path) -> None:
    """Keep trainings apart that could not be compared."""
    stored = ablation.options
    compared = asked.given - _CHANGEABLE - _ADDED_TO - _COMPARED_BY_CONTENT - _ABOUT_THE_FOLDER
    other = [name for name in sorted(compared) if getattr(asked, name) != getattr(stored, name)]
    if "hyp" in asked.given and load_hyperparameters(asked.hyp) != ablation.hyp:
        other.append("hyp")
    if "baseline" in asked.given and asked.choices()[0].name != ablation.baseline.name:
        other.append("baseline")
    if other:
        begun = ", ".join(f"{asked.flag_of(name)} {getattr(stored, name)!r}" for name in other)
        raise OptionError(
            f"--resume {root}: this ablation was begun with {begun}; leave that out to go on with it, or begin another "
            "one"
        )


def _added_models(asked: AblateOptions, ablation: Ablation, root: Path) -> list[Candidate]:
    """Models of the command that the ablation does not have yet; those that it has must be what they were."""
    known = {one.name: one for one in ablation.candidates}
    asked_for = [described(choice, ablation.baseline.content) for choice in asked.choices()]
    for one in asked_for:
        if one.name in known and one.content != known[one.name].content:
            raise OptionError(
                f"--resume {root}: {one.file} is not what {one.name} was when this ablation began; give it another "
                f"name: NAME={one.file}"
            )
    return [one for one in asked_for if one.name not in known]


def _measured(ablation: Ablation) -> Ablation:
    """The ablation with what its models cost, and where that was measured."""
    options, hyp = ablation.options, ablation.hyp
    training = options.training(options.baseline, hyp, options.seeds[0], Path(options.project))
    data = load_data(training)
    if not data.get(options.split):
        raise DatasetError(f"--split {options.split}: {options.data} has no `{options.split}` entry")
    list_images(data[options.split])  # refuses images that are not there, before hours are spent
    device = select_device(options.device)
    LOGGER.info(f"building and timing {', '.join(one.name for one in ablation.candidates)}")
    nc = Names.of(data, options.single_cls).nc
    candidates = _with_costs(ablation.candidates, nc, hyp.get("anchors"), options.imgsz, device)
    machine = describe_machine(device, torch.get_num_threads())
    return dataclasses.replace(ablation, candidates=candidates, machine=machine)


def described(choice: ModelChoice, baseline: Mapping[str, Any]) -> Candidate:
    """A model before anything is known about its costs.

    Args:
        choice: as the command names it.
        baseline: description of the network that rows without a file are put into.

    Raises:
        ConfigError: when there is no such file, or its rows are wrong.
        OptionError: naming the row to put in, when it has another form or its place is not there.
    """
    content, title = load_model_yaml(choice.file) if choice.file else (dict(baseline), "the baseline")
    if choice.rows:
        content = insert_rows(content, choice.rows, title)
        del content["yaml_file"]
    return Candidate(choice.name, choice.source, content)


def _with_costs(
    models: Sequence[Candidate], nc: int, anchors: float | None, imgsz: int, device: torch.device
) -> list[Candidate]:
    """Build every model once for so many classes; count and measure what it costs as detection runs it."""
    counted, passes = [], {}
    for model in models:
        network = _built(model, nc, anchors)
        size = training_size(network, imgsz)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        counted.append(dataclasses.replace(model, parameters=parameters, flops=count_flops(network, size, size)))
        passes[model.name] = partial(
            network.fuse().to(device).eval(), torch.full((1, 3, size, size), 0.5, device=device)
        )
    latencies = measure_latency(passes, device)
    return [dataclasses.replace(one, latency_ms=latencies[one.name]) for one in counted]


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


def _built(model: Candidate, nc: int, anchors: float | None) -> DetectionModel:
    """The network; the process's random generators stay as they are."""
    with torch.random.fork_rng(devices=[]):
        named = {**model.content, "yaml_file": model.file}  # for messages
        return DetectionModel(named, ch=3, nc=nc, anchors=round(anchors) if anchors else None)


def _quartiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return 1e3 * low, 1e3 * middle, 1e3 * high


def _tell_of_another_machine(ablation: Ablation) -> None:
    """Warn when what follows is trained elsewhere: floats are then added in another order."""
    device = select_device(ablation.options.device)
    here = describe_machine(device, torch.get_num_threads())
    if here != ablation.machine:
        LOGGER.warning(
            f"the ablation was begun on {ablation.machine}; this is {here}: pairs may differ by that as well"
        )
