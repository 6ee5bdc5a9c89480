"""From the outcomes of an ablation to what they say: means, spreads, and a verdict on each difference.

The verdict is on mAP50-95 alone, by the paired t test over seeds of ``utils.paired_test``, with Holm's correction for
the number of variants: among many comparisons one or another looks good by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.ablation_files import Ablation, Candidate, Outcome
from utils.ablation_chart import AblationRow
from utils.paired_test import PairedTest, adjust_by_holm, mean_and_deviation, paired_t_test
from utils.wording import counted

MEASURE = "mAP50-95"
ALPHA = 0.05  # chance of calling any difference real where there is none
NO_DIFFERENCE, INSIDE, BETTER, WORSE = "no difference", "inside the spread", "better", "worse"
DOUBTFUL, UNTESTED = "doubtful", "not tested"


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds; the deviation is None for one seed."""

    mean: float
    deviation: float | None
    seeds: int


@dataclass(frozen=True)
class ModelSummary:
    """What is known of a model.

    Attributes:
        candidate: the model.
        scores: mAP50-95 of each seed whose training went well.
        figures: P, R, mAP50, mAP50-95; those of a model without a training that went well are missing.
        slices: mAP50-95 of parts of the images, by name; those without labels are missing.
        differences: mAP50-95 less the baseline's, of each seed that both have.
        test: of these differences; None for the baseline.
        adjusted: p value of the test after Holm's correction; None where there is none.
        verdict: one of the words above; "" for the baseline.
        reason: half a sentence for the verdict.
        slice_tests: the same test of each slice, uncorrected.
    """

    candidate: Candidate
    scores: dict[int, float]
    figures: dict[str, Spread]
    slices: dict[str, Spread]
    differences: dict[int, float] = field(default_factory=dict)
    test: PairedTest | None = None
    adjusted: float | None = None
    verdict: str = ""
    reason: str = ""
    slice_tests: dict[str, PairedTest] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.candidate.name

    def drawn(self) -> AblationRow:
        """What the picture shows."""
        test = self.test or PairedTest(0)
        interval = None if test.low is None or test.high is None else (test.low, test.high)
        clear = {BETTER: 1, WORSE: -1}.get(self.verdict, 0)
        scores, differences = list(self.scores.values()), list(self.differences.values())
        return AblationRow(self.name, scores, differences, interval, self.candidate.latency_ms, clear)


def summarise(ablation: Ablation) -> list[ModelSummary]:
    """All models, the baseline first."""
    outcomes = {
        one.name: {seed: found for seed in ablation.options.seeds if (found := _went_well(ablation, one.name, seed))}
        for one in ablation.candidates
    }
    base = outcomes[ablation.baseline.name]
    tests = {
        one.name: paired_t_test(list(_differences(_scores(outcomes[one.name]), _scores(base)).values()))
        for one in ablation.candidates[1:]
    }
    known = [name for name, test in tests.items() if test.p is not None]
    adjusted = dict(zip(known, adjust_by_holm([tests[name].p for name in known]), strict=True))
    return [
        _summary(candidate, outcomes[candidate.name], base, tests.get(candidate.name), adjusted)
        for candidate in ablation.candidates
    ]


def judge(test: PairedTest, adjusted: float | None, comparisons: int) -> tuple[str, str]:
    """A verdict, and half a sentence for it.

    Args:
        test: of the differences.
        adjusted: its p value after correction, None where it has none.
        comparisons: how many tests were corrected for.
    """
    seeds = counted(test.pairs, "seed")
    if test.identical:
        return NO_DIFFERENCE, f"to the last digit the same with {'each of ' * (test.pairs > 1)}{seeds}"
    if test.pairs < 2:
        return (
            UNTESTED,
            f"{seeds if test.pairs else 'no seed'} with results of both, and a spread takes two or more",
        )
    if test.p is None or adjusted is None:
        return UNTESTED, "the same difference with every seed leaves no spread to compare it with"
    likely = f"the true difference is likely between {test.low:+.4f} and {test.high:+.4f}"
    if test.p >= ALPHA:
        return INSIDE, f"seeds alone make such differences; {likely}"
    if adjusted >= ALPHA:
        return DOUBTFUL, f"seldom by chance alone, but among {comparisons} comparisons not seldom enough; {likely}"
    return BETTER if test.mean > 0 else WORSE, f"more than seeds explain; {likely}"


def _went_well(ablation: Ablation, name: str, seed: int) -> Outcome | None:
    outcome = ablation.outcome(name, seed)
    return outcome if outcome is not None and outcome.figures else None


def _summary(
    candidate: Candidate,
    own: Mapping[int, Outcome],
    base: Mapping[int, Outcome],
    test: PairedTest | None,
    adjusted: Mapping[str, float],
) -> ModelSummary:
    figures = {
        name: _spread([outcome.figures[name] for outcome in own.values()])
        for name in (next(iter(own.values())).figures if own else ())
    }
    parts, base_parts = _slice_scores(own), _slice_scores(base)
    slices = {name: _spread(list(scores.values())) for name, scores in parts.items()}
    if test is None:
        return ModelSummary(candidate, _scores(own), figures, slices)
    level = adjusted.get(candidate.name)
    verdict, reason = judge(test, level, len(adjusted))
    if verdict == NO_DIFFERENCE and not any(_scores(own).values()):
        reason = "both find nothing at all, so there is nothing to compare"
    return ModelSummary(
        candidate,
        _scores(own),
        figures,
        slices,
        _differences(_scores(own), _scores(base)),
        test,
        level,
        verdict,
        reason,
        {
            name: paired_t_test(list(_differences(scores, base_parts.get(name, {})).values()))
            for name, scores in parts.items()
        },
    )


def _scores(outcomes: Mapping[int, Outcome]) -> dict[int, float]:
    return {seed: outcome.figures[MEASURE] for seed, outcome in outcomes.items()}


def _slice_scores(outcomes: Mapping[int, Outcome]) -> dict[str, dict[int, float]]:
    """By slice: mAP50-95 of each seed."""
    scores: dict[str, dict[int, float]] = {}
    for seed, outcome in outcomes.items():
        for part in outcome.slices:
            if part.map is not None:
                scores.setdefault(part.name, {})[seed] = part.map
    return scores


def _differences(own: Mapping[int, float], base: Mapping[int, float]) -> dict[int, float]:
    """One less the other, of each seed that both have."""
    return {seed: own[seed] - base[seed] for seed in own if seed in base}


def _spread(values: list[float]) -> Spread:
    mean, deviation = mean_and_deviation(values)
    return Spread(mean, deviation, len(values))
