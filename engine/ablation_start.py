"""Where an ablation begins: anew, after looking at all that later trainings need, or from its folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from engine.ablation_files import Ablation, AblationFolder, Candidate, read_ablation
from engine.ablation_models import Contents, model_content, with_costs
from engine.benchmarks.machine import describe_machine
from engine.options.ablate import AblateOptions
from engine.setup import Names, load_data, load_hyperparameters, load_start
from utils.devices import select_device
from utils.errors import DatasetError, OptionError
from utils.log import LOGGER

_CHANGEABLE = frozenset({"workers", "cache"})  # no figure depends on them
_ADDED_TO = frozenset({"seeds", "variants"})
_COMPARED_BY_CONTENT = frozenset({"baseline", "hyp"})
_ABOUT_THE_FOLDER = frozenset({"resume", "project", "name", "exist_ok"})


def begin_ablation(options: AblateOptions) -> Ablation:
    """A new ablation. Data, recipe, start weights and every model are looked at before hours are spent.

    Raises:
        ProjectError: whatever of these cannot be used.
    """
    hyp = load_hyperparameters(options.hyp)
    load_start(options.weights)
    contents = {choice.name: (choice.file, model_content(choice)) for choice in options.choices()}
    candidates, machine = _measured(options, hyp, contents)
    return Ablation(options, hyp, machine, candidates, [])


def resume_ablation(asked: AblateOptions) -> tuple[Ablation, Path]:
    """The ablation to go on with, with the seeds and variants that the command adds, and its folder.

    Trainings that failed are tried once more.

    Args:
        asked: the command's options; ``resume`` is its folder, or True for the newest below the current folder.

    Raises:
        OptionError: when there is none, or another option differs from what it was begun with.
        ConfigError: when its state cannot be read.
    """
    file = _locate(asked.resume)
    root = file.parent
    ablation = read_ablation(file)
    _refuse_other_options(asked, ablation, root)
    added = _added_models(asked, ablation, root)
    stored = ablation.options
    changes: dict[str, Any] = {name: getattr(asked, name) for name in asked.given & _CHANGEABLE}
    new_seeds = [seed for seed in asked.seeds if "seeds" in asked.given and seed not in stored.seeds]
    new_models = [str(choice) for choice in asked.choices() if choice.name in added]
    ablation.options = dataclasses.replace(
        stored, **changes, seeds=[*stored.seeds, *new_seeds], variants=[*stored.variants, *new_models]
    )
    _tell_of_another_machine(ablation)
    if added:  # latency compares only what was measured by turns
        contents = {one.name: (one.file, one.content) for one in ablation.candidates} | added
        ablation.candidates, ablation.machine = _measured(ablation.options, ablation.hyp, contents)
    ablation.outcomes = [outcome for outcome in ablation.outcomes if not outcome.failure]
    return ablation, root


def _locate(wanted: Any) -> Path:
    """The state file that is meant."""
    if wanted is True:
        found = list(Path().rglob("ablation.yaml"))
        if not found:
            raise OptionError(f"--resume: no ablation.yaml anywhere below {Path.cwd()}; give the folder of an ablation")
        return max(found, key=lambda path: path.stat().st_mtime)
    path = Path(str(wanted))
    file = AblationFolder(path).state if path.is_dir() else path
    if not file.is_file():
        raise OptionError(f"--resume {wanted}: no ablation there; give the folder that holds its ablation.yaml")
    return file


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


def _added_models(asked: AblateOptions, ablation: Ablation, root: Path) -> Contents:
    """Models of the command that the ablation does not have yet; those that it has must be what they were."""
    known = {one.name: one.content for one in ablation.candidates}
    added: Contents = {}
    for choice in asked.choices():
        content = model_content(choice)
        if choice.name not in known:
            added[choice.name] = (choice.file, content)
        elif content != known[choice.name]:
            raise OptionError(
                f"--resume {root}: {choice.file} is not what {choice.name} was when this ablation began; give it "
                f"another name: NAME={choice.file}"
            )
    return added


def _measured(options: AblateOptions, hyp: dict[str, Any], contents: Contents) -> tuple[list[Candidate], str]:
    """All models with their costs, and where these were measured."""
    training = options.training(options.baseline, hyp, options.seeds[0], Path(options.project))
    data = load_data(training)
    if not data.get(options.split):
        raise DatasetError(f"--split {options.split}: {options.data} has no `{options.split}` entry")
    device = select_device(options.device)
    LOGGER.info(f"building and timing {', '.join(contents)}")
    nc = Names.of(data, options.single_cls).nc
    candidates = with_costs(contents, nc=nc, anchors=hyp.get("anchors"), imgsz=options.imgsz, device=device)
    return candidates, describe_machine(device, torch.get_num_threads())


def _tell_of_another_machine(ablation: Ablation) -> None:
    """Warn when what follows is trained elsewhere: floats are then added in another order."""
    device = select_device(ablation.options.device)
    here = describe_machine(device, torch.get_num_threads())
    if here != ablation.machine:
        LOGGER.warning(
            f"the ablation was begun on {ablation.machine}; this is {here}: pairs may differ by that as well"
        )
