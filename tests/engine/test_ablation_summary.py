"""What is said about the outcomes of an ablation: means, spreads, verdicts, tables."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import pytest
from made_up_ablation import CONTENT, NOT_A_NUMBER, made_up

from engine.ablation_files import AblationFolder, read_ablation
from engine.ablation_report import csv_text, report, trainings_csv_text
from engine.ablation_summary import judge, summarise
from models import yolo
from utils.errors import ConfigError
from utils.paired_test import paired_t_test
from utils.yaml_io import yaml_load, yaml_save

BASE = [0.50, 0.52, 0.51]
SCORES = {
    "base": BASE,
    "same": BASE,
    "chance": [0.53, 0.50, 0.53],  # +0.03 -0.02 +0.02
    "better": [0.60, 0.6205, 0.61],
    "worse": [0.45, 0.4705, 0.46],
    "seldom": [0.52, 0.545, 0.53],  # +0.02 +0.025 +0.02: p 0.006 alone, 0.011 as the third of four
}

FIGURES = {"P": 0.5, "R": 0.25, "mAP50": 0.7, "mAP50-95": 0.5}
NO_NUMBERS = {**FIGURES, "mAP50-95": float("nan")}
NO_SLICE = {"group": "size", "name": "small", "rule": "", "images": 1, "instances": 1, "map50": 0.5, "map": "0.5x"}


def by_name(scores, **settings):
    return {model.name: model for model in summarise(made_up(scores, **settings))}


def test_means_and_spreads_are_those_over_seeds():
    model = by_name(SCORES)["base"]
    assert model.figures["mAP50-95"].mean == pytest.approx(0.51)
    assert model.figures["mAP50-95"].deviation == pytest.approx(0.01)
    assert model.figures["mAP50"].mean == pytest.approx(0.71)
    assert model.slices["small"].mean == pytest.approx(0.255)
    assert "large" not in model.slices  # no labels, no figure
    assert (model.test, model.verdict, model.differences) == (None, "", {})


def test_each_variant_gets_its_verdict():
    found = {name: model.verdict for name, model in by_name(SCORES).items()}
    assert found == {
        "base": "",
        "same": "no difference",
        "chance": "inside the spread",
        "better": "better",
        "worse": "worse",
        "seldom": "better",
    }
    chance = by_name(SCORES)["chance"]
    expected = paired_t_test([0.03, -0.02, 0.02])
    assert chance.test.p == pytest.approx(expected.p)
    assert (chance.test.low, chance.test.high) == pytest.approx((expected.low, expected.high))


def test_a_variant_that_changes_nothing_is_no_comparison():
    alone, beside = by_name({"base": BASE, "chance": SCORES["chance"]}), by_name(SCORES)
    with_noop = by_name({name: SCORES[name] for name in ("base", "same", "chance")})
    assert with_noop["chance"].adjusted == alone["chance"].adjusted == alone["chance"].test.p
    assert beside["better"].adjusted == pytest.approx(4 * beside["better"].test.p)  # of two that tie at the lowest p
    assert with_noop["same"].adjusted is None


def test_many_comparisons_make_a_lucky_one_doubtful():
    lucky = [0.50, 0.545, 0.53]  # less the baseline: 0, 0.025, 0.02
    scores = {"base": [0.5, 0.52, 0.51], "lucky": [0.52, 0.5475, 0.5305], **{f"v{i}": lucky for i in range(4)}}
    alone = by_name({name: scores[name] for name in ("base", "lucky")})["lucky"]
    among = by_name(scores)["lucky"]
    assert alone.verdict == "better" and 0.01 < alone.test.p < 0.05
    assert among.verdict == "doubtful" and among.adjusted == pytest.approx(5 * alone.test.p)
    assert "among 5 comparisons" in among.reason


@pytest.mark.parametrize(
    ("differences", "verdict", "reason"),
    [
        ([], "not tested", "no seed with results of both"),
        ([0.2], "not tested", "1 seed with results of both"),
        ([0.0], "no difference", "the same with 1 seed"),
        ([0.0, 0.0], "no difference", "the same with each of 2 seeds"),
        ([0.1, 0.1, 0.1], "not tested", "leaves no spread"),
        ([0.1, -0.1], "inside the spread", "likely between -1.2706 and +1.2706"),
        ([0.1, 0.1001], "better", "more than seeds explain"),
        ([-0.1, -0.1001], "worse", "more than seeds explain"),
    ],
)
def test_verdicts(differences, verdict, reason):
    test = paired_t_test(differences)
    found = judge(test, test.p, 1)
    assert found[0] == verdict
    assert reason in found[1]


def test_two_that_find_nothing_are_no_proof():
    other = by_name({"base": [0.0, 0.0], "other": [0.0, 0.0]})["other"]
    assert (other.verdict, other.reason) == (
        "no difference",
        "both find nothing at all, so there is nothing to compare",
    )


def test_failed_trainings_leave_their_pairs_out():
    models = by_name({"base": [0.50, None, 0.51, 0.52], "other": [0.53, 0.54, None, 0.56], "lost": [None] * 4})
    assert models["other"].differences == pytest.approx({0: 0.03, 3: 0.04})
    assert models["other"].test.pairs == 2
    assert models["lost"].figures == {} and models["lost"].verdict == "not tested"
    assert models["base"].figures["mAP50-95"].seeds == 3


def test_without_a_baseline_nothing_is_compared():
    models = by_name({"base": [None, None], "other": [0.5, 0.6]})
    assert models["other"].verdict == "not tested"
    assert models["other"].slice_tests["small"].pairs == 0


# Tables ---------------------------------------------------------------------------------------------------------------


def test_the_report_says_it_all():
    ablation = made_up(SCORES)
    text = report(ablation, summarise(ablation))
    assert text.startswith("# base and what is compared with it\n\n18 of 18 trainings: 6 models with the seeds 0 1 2,")
    assert "python ablate.py --baseline base=yolov5n.yaml --variants same=yolov5n.yaml" in text
    assert "| `base` | 0.510 ± 0.010 | 0.710 ± 0.010 | 3 | 1,765,270 | 4.1 | 10.0 (9.00 to 30.0) | 1.00 |" in text
    assert "| `same` | no difference | +0.0000 | - | 3 | - | - | - |" in text
    assert "- `same`: **no difference**: to the last digit the same with each of 3 seeds." in text
    assert "| `chance` | inside the spread | +0.0100 | -0.0557 to +0.0757 | 3 | 0.65 | 0.580 | 0.580 |" in text
    assert (
        "- `better`: **better** (+0.1002 on average): more than seeds explain; the true difference is likely between "
        "+0.0994 and +0.1009." in " ".join(text.split())
    )
    assert "With 3 pairs a mean difference counts, even without that correction, from 2.5 times" in " ".join(
        text.split()
    )
    assert "| small: area up to 32 x 32 px | 7 | 0.255 ± 0.005 | 0.255 ± 0.005 (+0.000) |" in text
    assert "0.305 ± 0.005 (+0.050*)" in text
    assert "| `chance` | 0.5300 | 0.5000 | 0.5300 |" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith(("|", "python"))) <= 120


def test_what_failed_or_is_not_over_is_in_the_report():
    ablation = made_up({"base": [0.5, 0.51], "other": [None, 0.52]}, missing=[("base", 1), ("other", 1)])
    text = report(ablation, summarise(ablation))
    assert "2 of 4 trainings" in text
    assert "- `other`, seed 0, failed: the losses of epoch 3 are [nan, nan, nan]: lower lr0, or look for odd" in text
    assert "| `base` | 0.5000 | - |" in text and "| `other` | failed | - |" in text
    assert "| `base` | 0.500 | 0.700 | 1 |" in text  # one seed has no deviation


def test_a_report_before_the_first_training():
    ablation = made_up({"base": [0.5], "other": [0.6]}, missing=[("base", 0), ("other", 0)])
    text = report(ablation, summarise(ablation))
    assert "0 of 2 trainings" in text and "Nothing measured yet." in text
    assert len(csv_text(summarise(ablation)).splitlines()) == 3
    assert len(trainings_csv_text(ablation).splitlines()) == 1


def test_small_probabilities_are_readable():
    ablation = made_up({"base": [0.5] * 8, "other": [0.6 + 0.0001 * number for number in range(8)]})
    assert "| < 0.0001 | < 0.0001 |" in report(ablation, summarise(ablation))


def test_csv_has_every_figure_unrounded():
    ablation = made_up({"base": [0.5, 0.52], "other": [1 / 3, None]})
    models = summarise(ablation)
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(csv_text(models)))}
    assert float(rows["base"]["mAP50-95_sd"]) == models[0].figures["mAP50-95"].deviation
    assert float(rows["other"]["mAP50-95_mean"]) == 1 / 3
    assert (rows["base"]["verdict"], rows["base"]["pairs"], rows["other"]["pairs"]) == ("", "", "1")
    assert (rows["other"]["mAP50-95_sd"], rows["other"]["p"], rows["other"]["seeds"]) == ("", "", "1")
    assert float(rows["other"]["small_difference"]) == pytest.approx(0.5 * (1 / 3 - 0.5))
    trainings = list(csv.DictReader(io.StringIO(trainings_csv_text(ablation))))
    assert [(row["model"], row["seed"]) for row in trainings] == [
        ("base", "0"), ("other", "0"), ("base", "1"), ("other", "1"),
    ]  # fmt: skip
    assert float(trainings[1]["small_mAP50-95"]) == 0.5 * (1 / 3)
    assert trainings[3]["failure"] == NOT_A_NUMBER and trainings[3]["mAP50"] == ""


# The state on disk ----------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path):
    ablation = made_up({"base": [1 / 3, 0.52], "other": [0.1 + 0.2, None]}, missing=[("base", 1)])
    folder = AblationFolder(tmp_path)
    folder.begin(ablation)
    assert read_ablation(folder.state) == ablation
    assert yaml_load(folder.model("other")) == CONTENT
    assert yaml_load(folder.hyp) == ablation.hyp
    assert [(one.name, seed) for one, seed in read_ablation(folder.state).left()] == [("base", 1)]


def test_every_model_survives_being_copied(tmp_path):
    contents = {file.stem: yaml_load(file) for file in Path(yolo.__file__).parent.rglob("*.yaml")}
    assert len(contents) > 30
    ablation = made_up({name: [0.5] for name in contents})
    ablation.candidates = [dataclasses.replace(one, content=contents[one.name]) for one in ablation.candidates]
    folder = AblationFolder(tmp_path)
    folder.begin(ablation)
    assert read_ablation(folder.state) == ablation
    for name, content in contents.items():
        assert yaml_load(folder.model(name)) == content
        lines = folder.model(name).read_text(encoding="utf-8").splitlines()
        assert len(lines) <= len(content["backbone"]) + len(content["head"]) + 15, name  # a line a row


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"options": None},
        {"options": {"variants": ["a.yaml"], "epochs": 0}},
        {"models": []},
        {"models": [{"name": "base"}]},
        {"models": [{"name": "base", "file": "a", "content": {"nc": 2}, "latency_ms": [1, 2, 3]}]},
        {"trainings": [{"model": "base", "seed": 0, "figures": {"P": 0.5}, "slices": [], "failure": ""}]},
        {"trainings": [{"model": "base", "seed": 0, "figures": NO_NUMBERS, "slices": [], "failure": ""}]},
        {"trainings": [{"model": "base", "seed": 0, "figures": FIGURES, "slices": [NO_SLICE], "failure": ""}]},
        {"trainings": [{"model": "base", "seed": 7, "figures": {}, "slices": [], "failure": "x"}]},
        {"trainings": [{"model": "base", "seed": 0, "figures": {"P": "x"}, "slices": [], "failure": ""}]},
        {"trainings": 2 * [{"model": "base", "seed": 0, "figures": {}, "slices": [], "failure": "x"}]},
        {"trainings": [{"model": "base", "seed": 0, "figures": [], "slices": 3, "failure": ""}]},
    ],
)
def test_a_damaged_state_is_named(tmp_path, change):
    folder = AblationFolder(tmp_path)
    folder.begin(made_up({"base": [0.5], "other": [0.6]}))
    yaml_save(folder.state, {**yaml_load(folder.state), **change})
    with pytest.raises(ConfigError, match=r"ablation\.yaml: (damaged|expected)"):
        read_ablation(folder.state)


def test_what_the_picture_gets():
    models = by_name(SCORES)
    drawn = {name: model.drawn() for name, model in models.items()}
    assert [drawn[name].clear for name in ("base", "same", "chance", "better", "worse")] == [0, 0, 0, 1, -1]
    assert drawn["same"].interval is None and drawn["base"].differences == []
    assert drawn["chance"].interval == (models["chance"].test.low, models["chance"].test.high)
