"""Evolution: the search on a hill of known shape, its files, interruptions, and a tiny one for real."""

from __future__ import annotations

import csv
import dataclasses
import math
import multiprocessing
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from training_process import tiny_settings

import train
from engine.evolution import Evolution, evolve, training_options
from engine.evolution_files import RESULTS, EvolutionFolder, Search, read_search
from engine.options.train import TrainOptions
from engine.population import Population
from engine.setup import HYPERPARAMETERS, load_hyperparameters
from utils.errors import ConfigError, OptionError, TrainingError
from utils.genetics import LIMITS, misfits
from utils.yaml_io import yaml_load, yaml_save

START = load_hyperparameters("data/hyps/hyp.scratch-low.yaml")
SUMMIT = {key: low + 0.3 * (high - low) for key, (low, high) in LIMITS.items()}


def hill(hyp):
    """A fitness of 1 at the summit, less the farther away; the other figures only have to be there."""
    steps = [(hyp[key] - SUMMIT[key]) / (high - low) for key, (low, high) in LIMITS.items()]
    fitness = math.exp(-float(np.square(steps).sum()))
    return (fitness / 3, fitness / 7, fitness, fitness / 2, 0.1, 0.2, 0.3)


def new_search(trainings: int, seed: int = 0) -> Search:
    options = TrainOptions.from_kwargs(evolve=trainings, seed=seed)
    known = [("--hyp", {key: float(START[key]) for key in LIMITS})]
    return Search(Population.found(trainings, seed, known), START, options.to_dict())


def texts(folder: EvolutionFolder) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder.csv, folder.population, folder.best)}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A search of 60 trainings on the hill, never interrupted."""
    folder = EvolutionFolder(tmp_path_factory.mktemp("straight"))
    search = new_search(60)
    Evolution(search, folder, hill, plots=False).run()
    return search.population, folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The files of a search of 20 trainings that was never interrupted."""
    folder = EvolutionFolder(tmp_path_factory.mktemp("expected"))
    Evolution(new_search(20), folder, hill, plots=False).run()
    return texts(folder)


# The search -----------------------------------------------------------------------------------------------------------


def test_the_search_climbs(straight):
    individuals = straight[0].individuals
    assert individuals[0].origin == "--hyp"
    assert individuals[0].genes == {key: START[key] for key in LIMITS}
    best = np.maximum.accumulate([one.fitness for one in individuals])
    chance = np.mean([one.fitness for one in individuals if one.origin == "random"])
    assert best[-1] > best[9] + 0.05 > chance + 0.1  # the first generation has 10 individuals
    last = [one.fitness for one in individuals if one.generation == individuals[-1].generation]
    assert min(last) > chance


def test_generations_have_the_size_they_should(straight):
    population = straight[0]
    assert [one.number for one in population.individuals] == list(range(1, 61))
    sizes = np.bincount([one.generation for one in population.individuals])[1:].tolist()
    assert sizes == [10, 8, 7, 7, 7, 7, 6, 6, 2]  # 10 less an elite of 2 to 4, the last one cut off at 60
    assert all(misfits(one.genes) == [] for one in population.individuals[1:])
    assert len({tuple(one.genes.values()) for one in population.individuals}) == 60


def test_children_come_from_the_present_population(straight):
    individuals = straight[0].individuals
    for child in individuals[10:18]:
        assert set(child.origin.split()[1::2]) <= {str(number) for number in range(1, 11)}
    elite = sorted(individuals[:10], key=lambda one: -one.fitness)[:2]
    allowed = {str(one.number) for one in (*elite, *individuals[10:18])}
    for child in individuals[18:25]:
        assert set(child.origin.split()[1::2]) <= allowed


def test_another_seed_searches_elsewhere():
    first, again, other = (new_search(60, seed).population.individuals for seed in (0, 0, 1))
    assert first == again
    assert first[0] == other[0]
    assert all(one.genes != different.genes for one, different in zip(first[1:], other[1:], strict=True))


def test_one_training_is_a_search_too(tmp_path):
    search = new_search(1)
    Evolution(search, EvolutionFolder(tmp_path), hill, plots=False).run()
    assert load_hyperparameters(tmp_path / "hyp_evolve.yaml") == START


# Files ----------------------------------------------------------------------------------------------------------------


def test_the_table_has_the_agreed_format(straight):
    population, folder = straight
    lines = folder.csv.read_text().splitlines()
    assert [len(cell) for line in lines for cell in line.split(",")] == [20] * 61 * (7 + 28)
    header, *rows = csv.reader(lines)
    assert [name.strip() for name in header] == [*RESULTS, *HYPERPARAMETERS]
    assert [float(row[2]) for row in rows] == pytest.approx([one.fitness for one in population.individuals], rel=1e-6)
    for row, one in zip(rows, population.individuals, strict=True):
        shown = dict(zip(HYPERPARAMETERS, map(float, row[7:]), strict=True))
        assert shown == {**START, **one.genes}  # a row is all that is needed to repeat a training


def test_the_best_is_a_hyperparameter_file(straight):
    population, folder = straight
    assert load_hyperparameters(folder.best) == {**START, **population.best.genes}
    assert population.best.fitness == max(one.fitness for one in population.individuals)
    head = folder.best.read_text().splitlines()
    assert "best of 60 trainings" in head[0]
    assert f"Training {population.best.number}, generation {population.best.generation}" in head[1]
    assert f"mAP_0.5 {population.best.fitness:.5g}" in head[2]


def test_a_failed_training_counts_as_zero_and_the_search_goes_on(tmp_path):
    def fragile(hyp):
        if hyp["mixup"] > 0.5:
            raise TrainingError("the losses of epoch 0 are [nan, nan, nan]")
        return hill(hyp)

    search, folder = new_search(30), EvolutionFolder(tmp_path)
    Evolution(search, folder, fragile, plots=False).run()
    failed = [one for one in search.population.individuals if one.failure]
    assert failed
    assert {one.fitness for one in failed} == {0.0}
    assert all(one.genes["mixup"] > 0.5 for one in failed)
    rows = list(csv.reader(folder.csv.read_text().splitlines()[1:]))
    assert [float(cell) for cell in rows[failed[0].number - 1][:4]] == [0, 0, 0, 0]
    assert rows[failed[0].number - 1][4].strip() == "nan"
    again = read_search(folder.population).population
    assert [one.failure for one in again.individuals] == [one.failure for one in search.population.individuals]


def test_an_evolution_that_only_fails_ends_early(tmp_path):
    done = []

    def broken(hyp):
        done.append(hyp)
        raise TrainingError("the losses of epoch 0 are no numbers")

    with pytest.raises(TrainingError, match=r"every training of the first generation failed.*no numbers"):
        Evolution(new_search(30), EvolutionFolder(tmp_path), broken, plots=False).run()
    assert len(done) == 5
    with pytest.raises(TrainingError):  # not one more training is spent on it
        Evolution(read_search(tmp_path / "evolve_population.yaml"), EvolutionFolder(tmp_path), hill, plots=False).run()
    assert len(read_search(tmp_path / "evolve_population.yaml").population.trained) == 5


def test_other_errors_are_not_swallowed(tmp_path):
    def mistaken(hyp):
        raise ConfigError("no such model")

    with pytest.raises(ConfigError, match="no such model"):
        Evolution(new_search(30), EvolutionFolder(tmp_path), mistaken, plots=False).run()
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_drawn_costs_a_warning(tmp_path, caplog):
    folder = EvolutionFolder(tmp_path)
    folder.picture.mkdir()
    Evolution(new_search(2), folder, hill).run()
    assert {text.partition("(")[0] for text in caplog.messages if "evolve.png" in text} == {
        f"{folder.picture}: not drawn "
    }


# Interruptions --------------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [1, 4, 9, 19])
def test_going_on_is_the_same_as_never_stopping(tmp_path, expected, after):
    folder, calls = EvolutionFolder(tmp_path), []

    def interrupted(hyp):
        if len(calls) == after:
            raise Interrupted
        calls.append(hyp)
        return hill(hyp)

    with pytest.raises(Interrupted):
        Evolution(new_search(20), folder, interrupted, plots=False).run()
    text = folder.csv.read_text()
    assert text.count("\n") == after + 1
    folder.csv.write_text(text[:-100])  # as a power cut may leave it
    (tmp_path / ".evolve_population.yaml.77.tmp").write_text("half a file")
    Evolution(read_search(folder.population), folder, hill, plots=False).run()
    assert texts(folder) == expected
    assert {path.name for path in tmp_path.iterdir()} == set(expected)


def test_a_kill_at_any_moment_loses_one_training_at_most(tmp_path, expected):
    folder, moments = EvolutionFolder(tmp_path), random.Random(5)

    def work() -> None:
        search = read_search(folder.population) if folder.population.exists() else new_search(20)
        Evolution(search, folder, slow_hill, plots=False).run()

    def slow_hill(hyp):
        time.sleep(0.003)
        return hill(hyp)

    def written() -> int:
        return folder.population.stat().st_mtime_ns if folder.population.exists() else 0

    kills = done = 0
    while done < 20:
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        for _ in range(moments.randint(1, 4)):  # some trainings later, and then at no moment in particular
            before = written()
            while written() == before and process.is_alive():
                time.sleep(0.0005)
        time.sleep(moments.uniform(0, 0.006))
        kills += process.is_alive()
        process.kill()
        process.join()
        done, before = len(read_search(folder.population).population.trained), done
        assert done > before
        text = folder.csv.read_text() if folder.csv.exists() else ""
        assert done - 1 <= max(text.count("\n") - 1, 0) <= done
        assert expected["evolve.csv"].startswith(text)
    assert kills >= 2
    work()
    assert texts(folder) == expected


def test_a_longer_search_goes_on_from_a_finished_one(tmp_path):
    folder = EvolutionFolder(tmp_path)
    Evolution(new_search(10), folder, hill, plots=False).run()
    before = folder.csv.read_text()
    search = read_search(folder.population)
    search.population.trainings = 25
    Evolution(search, folder, hill, plots=False).run()
    assert folder.csv.read_text().startswith(before)
    assert len(read_search(folder.population).population.trained) == 25


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format": 9}, "expected the evolve_population.yaml"),
        ({"individuals": None}, "damaged"),
        ({"individuals": [{"number": 1}]}, "damaged"),
        ({"options": {}}, "damaged"),
        ({"options": {"evolve": None, "seed": 0}}, "damaged"),
    ],
)
def test_a_wrong_population_file_is_named(tmp_path, straight, change, expected):
    file = tmp_path / "evolve_population.yaml"
    yaml_save(file, {**yaml_load(straight[1].population), **change})
    with pytest.raises(ConfigError, match=expected) as caught:
        read_search(file)
    assert str(file) in str(caught.value)


def test_individuals_in_disorder_are_refused(tmp_path, straight):
    content = yaml_load(straight[1].population)
    content["individuals"].reverse()
    yaml_save(tmp_path / "p.yaml", content)
    with pytest.raises(ConfigError, match="order"):
        read_search(tmp_path / "p.yaml")
    content["individuals"].reverse()
    content["individuals"][3]["results"] = None
    yaml_save(tmp_path / "p.yaml", content)
    with pytest.raises(ConfigError, match="order"):
        read_search(tmp_path / "p.yaml")


# For real -------------------------------------------------------------------------------------------------------------

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Options of a tiny training, with a folder of one file that fits, and others that do not."""
    root = tmp_path_factory.mktemp("evolution")
    (root / "hyps").mkdir()
    yaml_save(root / "hyps" / "a_same.yaml", dict(START))
    yaml_save(root / "hyps" / "b_flat.yaml", dict.fromkeys(LIMITS, 0))  # the rest is not asked for
    yaml_save(root / "hyps" / "c_wild.yaml", {**START, "degrees": 60})
    (root / "hyps" / "d_broken.yaml").write_text("lr0: [")
    return {**tiny_settings(root), "nbs": 8, "evolve_population": str(root / "hyps")}


@pytest.fixture(scope="module")
def evolved(settings):
    """Three trainings, then a fourth after the process has come back."""
    torch.set_num_threads(2)
    folder = EvolutionFolder(evolve(TrainOptions.from_kwargs(**settings, evolve=3), CPU))
    before = folder.csv.read_text()
    assert not folder.picture.exists()
    again = TrainOptions.from_kwargs(resume_evolve=str(folder.population), evolve=4, epochs=7, noplots=False)
    assert evolve(again, CPU) == folder.root
    return folder, before


def test_a_real_evolution_leaves_its_files_and_nothing_else(evolved, settings):
    folder, _ = evolved
    assert str(folder.root) == f"{settings['project']}/exp"
    names = {"evolve.csv", "hyp_evolve.yaml", "evolve.png", "evolve_population.yaml"}
    assert {path.name for path in folder.root.iterdir()} == names
    assert load_hyperparameters(folder.best).keys() == START.keys()


def test_a_real_evolution_goes_on(evolved):
    folder, before = evolved
    assert folder.csv.read_text().startswith(before)
    search = read_search(folder.population)
    assert [one.origin for one in search.population.individuals[:3]] == [
        "--hyp data/hyps/hyp.scratch-low.yaml",
        "b_flat.yaml",
        "random",
    ]
    assert search.population.individuals[1].genes == dict.fromkeys(LIMITS, 0.0)
    assert [one.generation for one in search.population.individuals] == [1, 1, 1, 2]
    assert all(len(one.results) == 7 and not one.failure for one in search.population.individuals)
    assert all(loss > 0 for one in search.population.individuals for loss in one.results[4:])
    assert search.options["epochs"] == 1  # of the evolution, not of the command that goes on
    assert search.options["evolve"] == 4


def test_files_that_do_not_fit_are_named(settings, caplog, tmp_path):
    options = TrainOptions.from_kwargs(**{**settings, "project": str(tmp_path)}, evolve=2)
    with pytest.raises(TrainingError, match="first generation"):
        evolve(dataclasses.replace(options, hyp={**START, "box": 1e39}), CPU)
    assert "c_wild.yaml left out: missing or beyond the limits: degrees: 60" in caplog.text
    assert "d_broken.yaml" in caplog.text
    assert "a_same" not in caplog.text
    population = read_search(tmp_path / "exp" / "evolve_population.yaml").population
    assert [bool(one.failure) for one in population.individuals] == [True, True]
    assert not list((tmp_path / "exp").glob(".training-*"))


def test_one_training_inside_keeps_and_draws_nothing():
    inside = training_options(TrainOptions.from_kwargs(evolve=5, save_period=2, epochs=7, seed=3))
    assert (inside.noval, inside.nosave, inside.noplots, inside.evolve) == (True, True, True, None)
    assert (inside.save_period, inside.epochs, inside.seed) == (-1, 7, 3)


def test_the_default_project_is_the_folder_of_evolutions(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = dataclasses.replace(TrainOptions.from_kwargs(**settings, evolve=1), project="runs/train", data="no.yaml")
    with pytest.raises(ConfigError, match=r"no\.yaml"):
        evolve(options, CPU)
    assert not (tmp_path / "runs").exists()  # a mistake leaves no empty folder behind
    (tmp_path / "runs" / "evolve" / "exp").mkdir(parents=True)
    (tmp_path / "runs" / "evolve" / "exp" / "evolve_population.yaml").touch()
    with pytest.raises(OptionError, match="--resume_evolve runs/evolve/exp/evolve_population"):
        evolve(dataclasses.replace(options, exist_ok=True), CPU)


def test_a_population_folder_must_be_there(settings):
    options = TrainOptions.from_kwargs(**{**settings, "evolve_population": "no/such"}, evolve=1)
    with pytest.raises(ConfigError, match="--evolve_population no/such"):
        evolve(options, CPU)


def test_a_finished_evolution_says_so(evolved, caplog):
    folder, _ = evolved
    before = texts(folder)
    evolve(TrainOptions.from_kwargs(resume_evolve=str(folder.root), imgsz=96), CPU)
    assert "--imgsz 96: left out, the evolution goes on with its own" in caplog.text
    assert "all 4 trainings are over" in caplog.text
    assert texts(folder) == before


def test_a_recipe_with_an_optimizer_of_its_own_evolves(settings, tmp_path):
    """From the command's own entry on."""
    recipe = "data/hyps/hyp.small-data.yaml"
    options = train.run(**{**settings, "evolve": 1, "hyp": recipe, "project": str(tmp_path), "name": "small"})
    folder = Path(options.save_dir)
    assert yaml_load(folder / "hyp_evolve.yaml")["optimizer"] == "AdamW"
    header, row = ([cell.strip() for cell in line.split(",")] for line in (folder / "evolve.csv").open())
    assert row[header.index("optimizer")] == "AdamW"


def test_a_users_own_folder_stays(settings, tmp_path):
    own = tmp_path / "mine" / "training" / "notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("precious")
    train.run(**{**settings, "evolve": 1, "project": str(tmp_path), "name": "mine", "exist_ok": True})
    assert own.read_text() == "precious"


@pytest.mark.parametrize(
    "change",
    [{"individuals": []}, {"options": {"evolve": 2, "seed": 0}}, {"options": None}],
    ids=["none", "few", "null"],
)
def test_a_damaged_population_file_is_refused(evolved, tmp_path, change):
    folder, _ = evolved
    file = tmp_path / "evolve_population.yaml"
    yaml_save(file, {**yaml_load(folder.population), **change})
    with pytest.raises(ConfigError, match="damaged, or changed by hand"):
        read_search(file)
