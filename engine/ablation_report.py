"""What an ablation found as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from engine.ablation_files import FIGURES, Ablation, Outcome
from engine.ablation_summary import ALPHA, MEASURE, ModelSummary, Spread
from utils.markdown import paragraph, table
from utils.paired_test import PairedTest, critical_t
from utils.wording import counted

_LONGEST_REASON = 200
_ABOUT = """{done} of {trainings}: {models} with the seeds {seeds}, {epochs} each, `{data}`, {imgsz} px, measured on its
{split} images. {machine}."""
_COST_NOTE = """Mean ± standard deviation over seeds. GFLOPs: of one image, twice the multiply-adds. *ms an image*: the
network's time for one image in float32, median (and quartiles) of rounds in which all models take turns; *x baseline*
compares the medians."""
_TEST_NOTE = """Paired t test over seeds on {measure}: a difference is called better or worse when p, corrected by Holm
for the number of variants, is below {alpha:g}; the interval is that of one comparison by itself. Seeds are all that
varies, so this speaks of this data, this recipe and this number of epochs. {reach}"""
_SLICE_NOTE = """{measure} of parts of the images, mean ± standard deviation, and in brackets the mean difference to
`{baseline}`. A star marks p < {alpha:g} by the same test, uncorrected: among so many parts a few stars come by chance,
so it is a hint and no result."""


def report(ablation: Ablation, models: Sequence[ModelSummary]) -> str:
    """All tables.

    Args:
        ablation: what was run.
        models: its summary.

    Returns:
        Markdown.
    """
    options = ablation.options
    baseline = ablation.baseline.name
    about = _ABOUT.format(
        done=len(ablation.outcomes),
        trainings=counted(ablation.trainings, "training"),
        models=counted(len(models), "model"),
        seeds=" ".join(map(str, options.seeds)),
        epochs=counted(options.epochs, "epoch"),
        data=options.data,
        imgsz=options.imgsz,
        split=options.split,
        machine=ablation.machine,
    )
    command = options.command_line("python", "ablate.py")
    parts = [
        f"# {baseline} and what is compared with it\n",
        paragraph(about),
        f"```bash\n{command}\n```\n",
        _cost_table(models, options.imgsz),
    ]
    parts += [paragraph(_COST_NOTE), _failures(ablation), f"## Against `{baseline}`\n"]
    parts += [_verdicts(models), _test_table(models), paragraph(_test_note(models)), "## By slice\n"]
    parts += [_slice_table(ablation, models), "## Every training\n", _training_table(ablation)]
    return "\n".join(part for part in parts if part)


def csv_text(models: Sequence[ModelSummary]) -> str:
    """A row a model: means and deviations, costs, the test; unrounded, empty where there is nothing."""
    names = list(dict.fromkeys(name for model in models for name in model.slices))
    spreads = [*FIGURES, *names]
    columns = ["model", "file", "seeds", *(f"{name}_{kind}" for name in spreads for kind in ("mean", "sd"))]
    columns += ["parameters", "flops", "latency_ms", "latency_low_ms", "latency_high_ms", "pairs", "difference",
                "difference_sd", "low", "high", "t", "p", "p_holm", "verdict"]  # fmt: skip
    columns += [f"{name}_{kind}" for name in names for kind in ("difference", "p")]
    rows = []
    for model in models:
        one, test = model.candidate, model.test or PairedTest(0)
        cells: list[object] = [one.name, one.file, len(model.scores)]
        for name in spreads:
            found = model.figures.get(name) or model.slices.get(name)
            cells += [found and found.mean, found and found.deviation]
        low, middle, high = one.latency_ms
        cells += [one.parameters, one.flops, middle, low, high, test.pairs if model.test else None, test.mean]
        cells += [test.deviation, test.low, test.high, test.t, test.p, model.adjusted, model.verdict]
        for name in names:
            part = model.slice_tests.get(name, PairedTest(0))
            cells += [part.mean, part.p]
        rows.append(cells)
    return _csv(columns, rows)


def trainings_csv_text(ablation: Ablation) -> str:
    """A row a training: its figures and those of its slices, unrounded; a failed one says why."""
    names = list(dict.fromkeys(part.name for outcome in ablation.outcomes for part in outcome.slices))
    rows = []
    for outcome in ablation.outcomes:
        parts = {part.name: asdict(part) for part in outcome.slices}
        slices = [parts.get(name, {}).get(kind) for name in names for kind in ("map50", "map")]
        figures = [outcome.figures.get(name) for name in FIGURES]
        rows.append([outcome.model, outcome.seed, *figures, *slices, outcome.failure])
    slice_columns = [f"{name}_{kind}" for name in names for kind in ("mAP50", "mAP50-95")]
    return _csv(["model", "seed", *FIGURES, *slice_columns, "failure"], rows)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()


def _cost_table(models: Sequence[ModelSummary], imgsz: int) -> str:
    titles = ["model", "mAP50-95", "mAP50", "seeds", "parameters", f"GFLOPs at {imgsz} px", "ms an image", "x baseline"]
    base = models[0].candidate.latency_ms[1]
    lines = []
    for model in models:
        one = model.candidate
        low, middle, high = one.latency_ms
        lines.append([
            f"`{one.name}`", *(_spread(model.figures.get(name)) for name in ("mAP50-95", "mAP50")), len(model.scores),
            f"{one.parameters:,}", f"{one.flops / 1e9:.3g}", f"{_ms(middle)} ({_ms(low)} to {_ms(high)})",
            f"{middle / base:.2f}",
        ])  # fmt: skip
    return table(titles, lines, left=1)


def _test_table(models: Sequence[ModelSummary]) -> str:
    titles = ["model", "verdict", "difference", "95 % interval", "pairs", "t", "p", "p, Holm"]
    lines = []
    for model in models[1:]:
        test = model.test
        interval = "-" if test.low is None else f"{test.low:+.4f} to {test.high:+.4f}"
        figures = [_shown(test.mean, "+.4f"), interval, test.pairs, _shown(test.t, ".2f")]
        lines.append([f"`{model.name}`", model.verdict, *figures, _p(test.p), _p(model.adjusted)])
    return table(titles, lines, left=2)


def _verdicts(models: Sequence[ModelSummary]) -> str:
    lines = []
    for model in models[1:]:
        mean = "" if model.test.mean is None or model.test.identical else f" ({model.test.mean:+.4f} on average)"
        lines.append(paragraph(f"- `{model.name}`: **{model.verdict}**{mean}: {model.reason}."))
    return "".join(lines)


def _test_note(models: Sequence[ModelSummary]) -> str:
    pairs = max((model.test.pairs for model in models[1:]), default=0)
    reach = ""
    if pairs > 1:
        share = critical_t(1 - ALPHA, pairs - 1) / math.sqrt(pairs)
        reach = (
            f"With {pairs} pairs a mean difference counts, even without that correction, from {share:.1f} times the "
            "standard deviation of the differences."
        )
    return _TEST_NOTE.format(measure=MEASURE, alpha=ALPHA, reach=reach)


def _slice_table(ablation: Ablation, models: Sequence[ModelSummary]) -> str:
    known = {part.name: part for outcome in ablation.outcomes for part in outcome.slices}
    if not known:
        return "Nothing measured yet.\n"
    lines = []
    for name, part in known.items():
        cells = [_slice_cell(model.slices.get(name), model.slice_tests.get(name)) for model in models]
        lines.append([f"{name}: {part.rule}", part.instances, *cells])
    titles = ["part", "labels", *(f"`{model.name}`" for model in models)]
    said = paragraph(_SLICE_NOTE.format(measure=MEASURE, baseline=models[0].name, alpha=ALPHA))
    return f"{table(titles, lines, left=1)}\n{said}"


def _slice_cell(spread: Spread | None, test: PairedTest | None) -> str:
    if test is None or test.mean is None:
        return _spread(spread)
    star = "*" if test.p is not None and test.p < ALPHA else ""
    return f"{_spread(spread)} ({test.mean:+.3f}{star})"


def _training_table(ablation: Ablation) -> str:
    seeds = ablation.options.seeds
    lines = []
    for candidate in ablation.candidates:
        outcomes = [ablation.outcome(candidate.name, seed) for seed in seeds]
        lines.append([f"`{candidate.name}`", *(_score(outcome) for outcome in outcomes)])
    return f"{MEASURE} by seed:\n\n{table(['model', *map(str, seeds)], lines, left=1)}"


def _score(outcome: Outcome | None) -> str:
    if outcome is None:
        return "-"
    return f"{outcome.figures[MEASURE]:.4f}" if outcome.figures else "failed"


def _failures(ablation: Ablation) -> str:
    failed = [outcome for outcome in ablation.outcomes if outcome.failure]
    lines = [f"- `{one.model}`, seed {one.seed}, failed: {_shortened(one.failure)}" for one in failed]
    return "".join(map(paragraph, lines))


def _shortened(text: str) -> str:
    return textwrap.shorten(text, _LONGEST_REASON, placeholder=" ...")


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.3f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.3f}")


def _ms(milliseconds: float) -> str:
    """With three digits or more."""
    return f"{milliseconds:.{sum(milliseconds < limit for limit in (10, 100))}f}"


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _p(value: float | None) -> str:
    """A probability with as many digits as anybody uses."""
    if value is None:
        return "-"
    return "< 0.0001" if value < 1e-4 else f"{value:.{4 if value < 0.01 else 3}f}"
