"""ablate.py: options, tiny ablations for real, interruptions."""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_dataset import make_dataset
from training_process import kill_when, start_function, tiny_model

import ablate
import val
from engine.ablation import train_to_the_end
from engine.ablation_files import AblationFolder, read_ablation
from engine.ablation_start import measure_latency, resume_ablation
from engine.benchmarks.interleaved import Rounds
from engine.benchmarks.machine import threads_of_torch
from engine.options.ablate import TRAINING_FLAGS, AblateOptions, ModelChoice
from engine.options.train import TrainOptions
from engine.run_files import locked
from engine.setup import load_hyperparameters
from models.checkpoint import read_checkpoint
from utils.errors import ConfigError, DatasetError, OptionError, TrainingError
from utils.image_io import read_image
from utils.yaml_io import yaml_load, yaml_save

HYP = "data/hyps/hyp.scratch-low.yaml"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """An ablation of networks that train in no time: a tiny one, one without its dropout, one with another width."""
    folder = tmp_path_factory.mktemp("ablation")
    tiny = tiny_model(folder)
    text = tiny.read_text()
    (folder / "dry.yaml").write_text(text.replace("nn.Dropout, [0.1]", "nn.Identity, []"))
    (folder / "wide.yaml").write_text(text.replace("[16, 3, 2]", "[24, 3, 2]"))
    return {
        "baseline": str(tiny),
        "variants": [str(folder / "dry.yaml")],
        "seeds": [0],
        "data": str(make_dataset(folder / "set")),
        "imgsz": 64,
        "batch_size": 4,
        "nbs": 4,
        "epochs": 2,
        "device": "cpu",
        "workers": 0,
        "project": str(folder / "runs"),
    }


def run_ablation(settings: dict) -> None:
    """For a process of its own."""
    torch.set_num_threads(1)
    with Path(os.devnull).open("w") as nowhere:
        sys.stderr = nowhere
        ablate.run(**settings)


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "file"),
    [
        ("yolov5n.yaml", "yolov5n", "yolov5n.yaml"),
        ("some/where/my-model.yaml", "my-model", "some/where/my-model.yaml"),
        ("neck=my.yaml", "neck", "my.yaml"),
        ("a=b=c.yaml", "a", "b=c.yaml"),
        ("颈部=my.yaml", "颈部", "my.yaml"),
        ("my models/my model.yaml", "my-model", "my models/my model.yaml"),
        ("a+b=my+own.yaml", "a+b", "my+own.yaml"),
    ],
)
def test_models_have_names(text, name, file):
    assert ModelChoice.parse(text) == ModelChoice(name, file)


@pytest.mark.parametrize(
    ("text", "name", "file", "rows"),
    [
        ("+BRA@after:sppf", "BRA-after-sppf", "", ["BRA@after:sppf"]),
        ("a/m.yaml+BRA@after:sppf", "m+BRA-after-sppf", "a/m.yaml", ["BRA@after:sppf"]),
        ("sppf=m.yml+BRA@after:sppf", "sppf", "m.yml", ["BRA@after:sppf"]),
        ("two=+BRA@after:9 + C3@replace:c3#2", "two", "", ["BRA@after:9", "C3@replace:c3#2"]),
        ("+BRA[0, 5]@before:p3_out", "BRA-0-5-before-p3_out", "", ["BRA[0, 5]@before:p3_out"]),
        (
            "n.yaml+nn.Dropout[1e+1]@after:c3#2",
            "n+nn.Dropout-1e+1-after-c3-2",
            "n.yaml",
            ["nn.Dropout[1e+1]@after:c3#2"],
        ),
        ("my+own.yaml+BRA@after:颈", "my+own+BRA-after-颈", "my+own.yaml", ["BRA@after:颈"]),
        ("+" + 9 * "Module@after:" + "end", ("Module-after-" * 5)[:60], "", [9 * "Module@after:" + "end"]),
    ],
)
def test_models_may_be_files_with_rows_put_in(text, name, file, rows):
    choice = ModelChoice.parse(text)
    assert choice == ModelChoice(name, file, tuple(rows))
    assert ModelChoice.parse(str(choice)) == choice


@pytest.mark.parametrize("text", ["", "=a.yaml", "a=", "../x=a.yaml", ".x=a.yaml", "a b=c.yaml", "x" * 61 + "=a.yaml"])
def test_a_name_that_is_no_folders_is_refused(text):
    with pytest.raises(OptionError, match=r"expected a YAML, YAML\+ROW or \+ROW"):
        AblateOptions.from_kwargs(variants=[text])


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({}, "--variants"),
        ({"variants": ["yolov5n.yaml"]}, "two models are called yolov5n"),
        ({"variants": ["a=x.yaml", "A=y.yaml"]}, "two models are called A"),
        ({"variants": 2 * ["+BRA@after:9"]}, r"two models .* NAME=\+BRA@after:9"),
        ({"variants": ["a.yaml"], "baseline": "+BRA@after:9"}, "--baseline"),
        ({"seeds": []}, "--seeds"),
        ({"seeds": [1, 1]}, "--seeds"),
        ({"seeds": [-1]}, "--seed -1"),
        ({"split": "train"}, "--split"),
        ({"batch_size": -1}, "--batch-size"),
        ({"epochs": 0}, "--epochs"),
        ({"bf16": True, "amp": False}, "--bf16"),
        ({"data": ""}, "--data"),
        ({"name": ""}, "--name"),
        ({"resume": ""}, "--resume"),
        ({"patience": 3}, "unknown option"),
    ],
)
def test_wrong_options_are_refused(wrong, expected):
    with pytest.raises(OptionError, match=expected):
        AblateOptions.from_kwargs(**{"variants": ["my.yaml"] if wrong else [], **wrong})


def test_flags_of_train_reach_every_training():
    changed = {
        "data": "d.yaml", "weights": "w.pt", "hyp": "h.yaml", "epochs": 7, "batch_size": 4, "imgsz": 96,
        "optimizer": "AdamW", "nbs": 8, "cos_lr": True, "label_smoothing": 0.1, "rect": True, "quad": True,
        "multi_scale": True, "image_weights": True, "single_cls": True, "noautoanchor": True, "noval": True,
        "amp": False, "bf16": False, "cache": "ram", "device": "cpu", "workers": 0,
    }  # fmt: skip
    assert set(changed) == set(TRAINING_FLAGS)
    training = AblateOptions.from_kwargs(variants=["a.yaml"], **changed).training("m.yaml", "h.yaml", 5, Path("r/t/x"))
    assert {name: getattr(training, name) for name in changed} == changed
    assert (training.cfg, training.seed, training.project, training.name) == ("m.yaml", 5, "r/t", "x")
    assert (training.patience, training.nosave, training.noplots, training.exist_ok) == (0, False, True, True)
    for name in TRAINING_FLAGS:  # the same flags, but for a start from scratch
        own, theirs = (kind.__dataclass_fields__[name] for kind in (AblateOptions, TrainOptions))
        assert own.default == ("" if name == "weights" else theirs.default)


def test_the_command_shown_gives_the_same_options():
    words = ["--variants", "a=b.yaml", "c.yaml", "--seeds", "3", "--no-amp", "--weights", "my weights.pt", "--cos-lr"]
    given = AblateOptions.parse(words)
    line = given.command_line("python", "ablate.py")
    assert line == ("python ablate.py --variants a=b.yaml c.yaml --seeds 3 --weights 'my weights.pt' --cos-lr --no-amp")


# For real -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(settings):
    """yolov5n against a copy of its own file."""
    copy = Path(settings["project"]).parent / "renamed.yaml"
    shutil.copy("models/yolov5n.yaml", copy)
    chosen = {**settings, "baseline": "yolov5n.yaml", "variants": [str(copy)], "epochs": 1, "seeds": [0, 1]}
    with threads_of_torch(1):
        return ablate.run(**chosen, name="real")


def test_a_variant_that_is_none_makes_no_difference(done):
    base, same = done.models
    assert (same.verdict, same.differences) == ("no difference", {0: 0.0, 1: 0.0})
    assert all(test.identical for test in same.slice_tests.values())
    assert "- `renamed`: **no difference**: to the last digit the same with each of 2 seeds." in done.text
    assert (base.candidate.parameters, base.candidate.flops) == (same.candidate.parameters, same.candidate.flops)
    assert base.candidate.parameters == 1_872_157 - 3 * 78 * (64 + 128 + 256 + 3)  # two classes, not 80
    for model in done.models:
        low, middle, high = model.candidate.latency_ms
        assert 0 < low <= middle <= high


def test_latency_is_that_of_each_model():
    rounds = Rounds(least=5, most=5, seconds=0.0)
    passes = {"slow": lambda: time.sleep(0.02), "fast": lambda: None}
    found = measure_latency(passes, torch.device("cpu"), rounds)
    assert found["slow"] == tuple(sorted(found["slow"])) and found["fast"] == tuple(sorted(found["fast"]))
    assert found["slow"][0] >= 20 > found["fast"][1]  # milliseconds


def test_files_of_an_ablation(done):
    names = {path.name for path in done.folder.iterdir()}
    reports = {"ablation.md", "ablation.csv", "trainings.csv", "ablation.png", "ablation.yaml", "hyp.yaml"}
    assert names == {*reports, "models", "trainings"}
    assert (done.folder / "ablation.md").read_text(encoding="utf-8") == done.text
    assert load_hyperparameters(done.folder / "hyp.yaml") == load_hyperparameters(HYP)
    assert {path.name for path in (done.folder / "models").iterdir()} == {"yolov5n.yaml", "renamed.yaml"}
    assert yaml_load(done.folder / "models" / "renamed.yaml") == yaml_load("models/yolov5n.yaml")
    folders = {path.name for path in (done.folder / "trainings").iterdir()}
    assert folders == {f"{name}-seed{seed}" for name in ("yolov5n", "renamed") for seed in (0, 1)}
    weights = {path.name for path in (done.folder / "trainings" / "renamed-seed1" / "weights").iterdir()}
    assert weights == {"best.pt"}  # all that is needed afterwards
    assert read_image(done.folder / "ablation.png").shape[2] == 3


def test_figures_are_those_of_val(done, settings):
    place = done.folder / "trainings" / "renamed-seed1"
    options = yaml_load(place / "opt.yaml")
    assert (options["seed"], options["patience"], options["epochs"]) == (1, 0, 1)
    checked = val.run(settings["data"], place / "weights" / "best.pt", imgsz=64, device="cpu", workers=0,
                      project=str(place), slices=True)  # fmt: skip
    with (done.folder / "trainings.csv").open(newline="", encoding="utf-8") as stream:
        row = next(row for row in csv.DictReader(stream) if (row["model"], row["seed"]) == ("renamed", "1"))
    assert [float(row[name]) for name in ("P", "R", "mAP50", "mAP50-95")] == pytest.approx(list(checked[0][:4]))
    assert row["small_mAP50-95"] and not row["large_mAP50-95"]


def test_a_finished_ablation_only_reports_again(done):
    before = read_ablation(done.folder / "ablation.yaml")
    stamps = {path: path.stat().st_mtime_ns for path in done.folder.rglob("best.pt")}
    assert len(stamps) == 4
    again = ablate.run(resume=done.folder)
    assert again.text == done.text
    assert read_ablation(done.folder / "ablation.yaml") == before
    assert {path: path.stat().st_mtime_ns for path in done.folder.rglob("best.pt")} == stamps


def test_the_test_split_can_be_measured(settings, tmp_path):
    data = {**yaml_load(settings["data"]), "test": "images/train"}
    yaml_save(tmp_path / "data.yaml", data)
    chosen = {**settings, "data": str(tmp_path / "data.yaml"), "project": str(tmp_path), "epochs": 1}
    result = ablate.run(**chosen, split="test")
    best = AblationFolder(result.folder).training("tiny", 0).best
    checked = val.run(chosen["data"], best, imgsz=64, device="cpu", workers=0, task="test", project=str(tmp_path))
    assert result.models[0].scores[0] == pytest.approx(checked[0][3], abs=1e-9)
    with (best.parents[1] / "slices.csv").open(newline="", encoding="utf-8") as stream:
        sizes = sum(int(row["instances"]) for row in csv.DictReader(stream) if row["group"] == "size")
    assert sizes == sum(len(file.read_text().splitlines()) for file in Path(data["path"], "labels/train").glob("*.txt"))
    assert "measured on its test" in " ".join(result.text.split())


def test_rows_are_put_into_a_file_or_the_baseline(settings, tmp_path):
    tiny = settings["baseline"]
    chosen = {**settings, "baseline": f"base={tiny}+SPPF[64]@after:c3", "project": str(tmp_path / "runs"), "epochs": 1}
    variants = ["+nn.Identity@after:sppf", f"own={tiny}+nn.Identity@after:c3"]
    result = ablate.run(**{**chosen, "variants": variants})
    base, same, own = result.models
    assert (same.name, same.verdict, own.verdict) == ("nn.Identity-after-sppf", "no difference", "not tested")
    folder = AblationFolder(result.folder)
    modules = {
        model.name: [row[2] for part in ("backbone", "head") for row in yaml_load(folder.model(model.name))[part]]
        for model in result.models
    }
    plain = [row[2] for part in ("backbone", "head") for row in yaml_load(tiny)[part]]
    behind = plain.index("C3") + 1
    assert modules["base"] == [*plain[:behind], "SPPF", *plain[behind:]]
    assert modules[same.name] == [*plain[:behind], "SPPF", "nn.Identity", *plain[behind:]]
    assert modules["own"] == [*plain[:behind], "nn.Identity", *plain[behind:]]
    assert base.candidate.file == f"{tiny}+SPPF[64]@after:c3"
    # the baseline is what it was at the beginning, also for what is added later
    asked = AblateOptions.from_kwargs(resume=str(result.folder), variants=[*variants, "more=+C3[16]@before:sppf"])
    grown = resume_ablation(asked, folder)
    added = [row[2] for part in ("backbone", "head") for row in grown.candidates[-1].content[part]]
    assert added == [*plain[:behind], "C3", "SPPF", *plain[behind:]]
    assert grown.options.variants[-1] == "more=+C3[16]@before:sppf"


# Interruptions --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def straight(settings):
    """An ablation that nothing interrupted."""
    with threads_of_torch(1):
        return ablate.run(**{**settings, "epochs": 6}, name="straight")


def test_a_killed_ablation_goes_on_where_it_was(settings, straight, caplog):
    folder = AblationFolder(Path(settings["project"]) / "killed")
    child = start_function(run_ablation, {**settings, "epochs": 6, "name": "killed"})
    second = folder.training("dry", 0)
    epochs: set[int] = set()

    def two_epochs_are_over() -> bool:
        if second.last.exists():
            epochs.add(second.last.stat().st_mtime_ns)
        return len(epochs) > 1

    assert kill_when(child, two_epochs_are_over)
    state = read_ablation(folder.state)
    assert [(outcome.model, outcome.seed) for outcome in state.outcomes] == [("tiny", 0)]
    reached = read_checkpoint(second.last).epoch
    assert 0 < reached < 5
    first = folder.training("tiny", 0).best
    stamp = first.stat().st_mtime_ns
    (folder.root / ".ablation.yaml.77.tmp").write_text("half a file")
    with threads_of_torch(1), caplog.at_level("INFO"):
        result = ablate.run(resume=folder.root)
    assert f"going on after epoch {reached} of {second.root}" in caplog.text
    assert first.stat().st_mtime_ns == stamp  # what was over is not trained again
    assert read_ablation(folder.state).outcomes == read_ablation(straight.folder / "ablation.yaml").outcomes
    assert [model.differences for model in result.models] == [model.differences for model in straight.models]
    assert not list(folder.root.glob(".*"))


def test_a_training_that_is_over_is_not_run_again(settings, tmp_path):
    """Killed between the end of a training and its place in the state."""
    options = AblateOptions.from_kwargs(**settings)
    place = AblationFolder(tmp_path).training("tiny", 0)
    training = options.training(settings["baseline"], HYP, 0, place.root)
    train_to_the_end(training, place)
    assert read_checkpoint(place.last).epoch == 1 and not place.best_is_unchecked()
    stamps = [file.stat().st_mtime_ns for file in (place.last, place.best)]
    train_to_the_end(training, place)
    assert [file.stat().st_mtime_ns for file in (place.last, place.best)] == stamps


def test_a_training_with_a_damaged_state_begins_anew(settings, tmp_path, caplog):
    options = dataclasses.replace(AblateOptions.from_kwargs(**settings), epochs=1)
    place = AblationFolder(tmp_path).training("tiny", 0)
    place.create()
    place.last.write_bytes(b"half a file")
    train_to_the_end(options.training(settings["baseline"], HYP, 0, place.root), place)
    assert "begins anew" in caplog.text and str(place.last) in caplog.text
    assert read_checkpoint(place.last).epoch == 0


def test_seeds_and_variants_may_be_added(straight, settings):
    wide = str(Path(settings["baseline"]).with_name("wide.yaml"))
    asked = AblateOptions.from_kwargs(
        resume=str(straight.folder), seeds=[4, 0], variants=[wide, *settings["variants"]], workers=1
    )
    root = straight.folder
    ablation = resume_ablation(asked, AblationFolder(root))
    before = read_ablation(straight.folder / "ablation.yaml")
    assert ablation.outcomes == before.outcomes
    assert (ablation.options.seeds, ablation.options.workers, ablation.options.epochs) == ([0, 4], 1, 6)
    tiny, dry, added = ablation.candidates
    assert [(tiny.name, tiny.content), (dry.name, dry.content)] == [(c.name, c.content) for c in before.candidates]
    assert added.content == yaml_load(wide) and added.parameters > tiny.parameters and added.flops > tiny.flops
    assert [(candidate.name, seed) for candidate, seed in ablation.left()] == [
        ("wide", 0), ("tiny", 4), ("dry", 4), ("wide", 4),
    ]  # fmt: skip
    folder = AblationFolder(root.with_name("grown"))
    folder.begin(ablation)
    assert read_ablation(folder.state) == ablation


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"epochs": 3}, "begun with --epochs 6;"),
        ({"imgsz": 96, "cos_lr": True}, "begun with --cos-lr False, --imgsz 64;"),
        ({"split": "test"}, "begun with --split 'val'"),
        ({"baseline": "yolov5n.yaml"}, "begun with --baseline"),
        ({"hyp": "data/hyps/hyp.VOC.yaml"}, "begun with --hyp"),
        ({"variants": ["dry=yolov5n.yaml"]}, "yolov5n.yaml is not what dry was"),
        ({"baseline": "tiny=yolov5n.yaml"}, "yolov5n.yaml is not what tiny was"),
        ({"variants": ["Dry=yolov5n.yaml"]}, "two models are called Dry"),
    ],
)
def test_other_options_are_not_mixed_in(straight, other, expected):
    before = (straight.folder / "ablation.yaml").read_bytes()
    with pytest.raises(OptionError, match=expected):
        ablate.run(resume=straight.folder, **other)
    assert (straight.folder / "ablation.yaml").read_bytes() == before


def test_the_same_options_again_are_none_other(straight, settings):
    again = ablate.run(resume=straight.folder, **{**settings, "epochs": 6, "hyp": HYP, "name": "any"})
    assert again.text == straight.text


def test_the_newest_ablation_is_found(straight, settings, monkeypatch, tmp_path):
    monkeypatch.chdir(settings["project"])
    (Path("straight") / "ablation.yaml").touch()
    assert ablate.run(resume=True).folder == Path("straight")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=r"no ablation\.yaml anywhere"):
        ablate.run(resume=True)
    with pytest.raises(OptionError, match="no ablation there"):
        ablate.run(resume=tmp_path)


def test_an_ablation_in_a_folder_is_not_begun_anew(straight, settings, tmp_path):
    with pytest.raises(OptionError, match=f"holds an ablation; go on with it by --resume {straight.folder}"):
        ablate.run(**settings, name="straight", exist_ok=True)
    (tmp_path / "exp" / "trainings").mkdir(parents=True)
    with pytest.raises(OptionError, match="holds trainings of another ablation"):
        ablate.run(**{**settings, "project": str(tmp_path)}, exist_ok=True)


def test_two_processes_do_not_work_on_the_same(straight):
    with locked(straight.folder), pytest.raises(OptionError, match="another process"):
        ablate.run(resume=straight.folder, epochs=99)  # the state, which that process may change, is not looked at


# What goes wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error", "expected"),
    [
        ({"variants": ["no-such.yaml"]}, ConfigError, "no-such.yaml"),
        ({"hyp": "no-such.yaml"}, ConfigError, "no-such.yaml"),
        ({"weights": "no-such.pt"}, ConfigError, "no-such.pt"),
        ({"data": "no-such.yaml"}, ConfigError, "no-such.yaml"),
        ({"split": "test"}, DatasetError, "no `test` entry"),
        ({"data": "empty"}, DatasetError, "empty"),
        ({"data": "lost", "split": "test"}, DatasetError, "nowhere: expected a folder of images"),
    ],
)
def test_mistakes_show_before_the_first_training(settings, tmp_path, wrong, error, expected):
    if wrong.get("data") == "lost":
        wrong = {**wrong, "data": str(tmp_path / "lost.yaml")}
        yaml_save(wrong["data"], {**yaml_load(settings["data"]), "test": "nowhere"})
    with pytest.raises((error, ConfigError, DatasetError), match=expected):
        ablate.run(**{**settings, **wrong, "project": str(tmp_path / "runs")})
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+C3", "'C3': expected MODULE@after:PLACE"),
        ("x=+C3@after:spf", "'C3@after:spf': the baseline has no row 'spf'"),
        ("+C3@after:c3+", "'': expected MODULE@after:PLACE"),
        ("no-such.yaml+C3@after:c3", "no-such.yaml"),
        ("+C4@after:c3", r"\+C4@after:c3.*C4"),
        ("yolov5n.yaml+nn.MaxPool2d[2]@replace:sppf", r"\+nn.MaxPool2d\[2\]@replace:sppf"),
    ],
)
def test_a_wrong_row_to_put_in_is_named(settings, tmp_path, text, expected):
    with pytest.raises((OptionError, ConfigError), match=expected):
        ablate.run(**{**settings, "variants": [text], "project": str(tmp_path / "runs")})
    assert not (tmp_path / "runs").exists()


def test_a_wrong_row_is_named_with_its_file(settings, tmp_path):
    text = Path(settings["baseline"]).read_text().replace("[-1, 1, C3, [16]]", "[-1, 1, C33, [16]]")
    (tmp_path / "typo.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"typo\.yaml.*C33"):
        ablate.run(**{**settings, "variants": [str(tmp_path / "typo.yaml")], "project": str(tmp_path / "runs")})


def test_failed_trainings_are_kept_and_tried_again(settings, tmp_path):
    broken = {**load_hyperparameters(HYP), "box": 1e39}
    yaml_save(tmp_path / "broken.yaml", broken)
    chosen = {**settings, "hyp": str(tmp_path / "broken.yaml"), "project": str(tmp_path), "name": "nan"}
    chosen |= {"epochs": 1}
    with pytest.raises(TrainingError, match="every training with seed 0 failed"):
        ablate.run(**chosen)
    folder = AblationFolder(tmp_path / "nan")
    state = read_ablation(folder.state)
    assert [bool(outcome.failure) for outcome in state.outcomes] == [True, True]
    assert "- `tiny`, seed 0, failed: epoch 0, batch 1: the loss is no finite number" in folder.report.read_text(
        encoding="utf-8"
    )
    again = resume_ablation(AblateOptions.from_kwargs(resume=str(folder.root)), folder)
    assert again.outcomes == []


def test_several_processes_are_refused(settings, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match="single process"):
        ablate.run(**settings)
