"""An ablation with outcomes that were never trained, for what is made of them afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.ablation_files import Ablation, Candidate, Outcome
from engine.options.ablate import AblateOptions
from utils.slices import SliceResult

CONTENT = {"nc": 2, "backbone": [[-1, 1, "Conv", [8]]], "head": [[[-1], 1, "Detect", ["nc", "anchors"]]]}
NOT_A_NUMBER = "the losses of epoch 3 are [nan, nan, nan]: lower lr0,\nor look for odd labels | really"


def made_up(scores: Mapping[str, Sequence[float | None]], missing: Sequence[tuple[str, int]] = ()) -> Ablation:
    """An ablation with these mAP50-95.

    Args:
        scores: by model, the baseline first, one a seed from 0 on; None for a training that failed.
        missing: (model, seed) of trainings that are not over.
    """
    names = list(scores)
    seeds = list(range(len(scores[names[0]])))
    options = AblateOptions.from_kwargs(
        baseline=f"{names[0]}=yolov5n.yaml",
        variants=[f"{name}=yolov5n.yaml" for name in names[1:]],
        seeds=seeds,
        data="data/shapes.yaml",
        imgsz=320,
    )
    candidates = [
        Candidate(name, "yolov5n.yaml", CONTENT, 1_765_270 + place, 4_100_000_000, (9.0, 10.0 + place, 30.0))
        for place, name in enumerate(names)
    ]
    outcomes = [
        _outcome(name, seed, scores[name][seed]) for seed in seeds for name in names if (name, seed) not in missing
    ]
    return Ablation(options, {"lr0": 0.01, "optimizer": "SGD"}, "Abacus 9, 1 thread", candidates, outcomes)


def _outcome(name: str, seed: int, score: float | None) -> Outcome:
    if score is None:
        return Outcome(name, seed, failure=NOT_A_NUMBER)
    slices = (
        SliceResult("size", "small", "area up to 32 x 32 px", 4, 7, 0.5 * score + 0.1, 0.5 * score),
        SliceResult("size", "large", "area from 96 x 96 px", 0, 0, None, None),
    )
    return Outcome(name, seed, {"P": 0.5, "R": 0.25, "mAP50": score + 0.2, "mAP50-95": score}, slices)
