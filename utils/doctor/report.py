"""A diagnosis in words, most harmful faults first, and as plain data for programs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from utils.doctor.diagnosis import Diagnosis
from utils.doctor.kinds import ERROR, KINDS, WARNING, Kind
from utils.doctor.paths import Split
from utils.doctor.sizes import BOUNDS
from utils.wording import counted

_CLASSES_SHOWN = 40  # more would push the faults out of sight


def report_lines(found: Diagnosis, examples: int = 5) -> Iterator[str]:
    """The report for people.

    Args:
        found: what to report.
        examples: findings shown of each kind.
    """
    yield from map(_printable, _lines(found, examples))


def _printable(line: str) -> str:
    """A line whose file names and texts can neither steer a terminal nor fail to be written."""
    if line.isprintable():
        return line
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)


def _lines(found: Diagnosis, examples: int) -> Iterator[str]:
    yield from _paths(found)
    if any(split.usable for split in found.splits.values()):
        yield ""
        yield from _classes(found)
        yield ""
        yield from _sizes(found)
    for level, title in ((ERROR, "harms training or its figures"), (WARNING, "worth a look")):
        if found.findings.total(level):
            yield ""
            yield f"{title}: {counted(found.findings.total(level), 'finding')}"
            for name, count in found.findings.counts.items():
                if KINDS[name].level == level:
                    yield from _kind(found, KINDS[name], count, examples)
    yield ""
    yield verdict(found)


def verdict(found: Diagnosis) -> str:
    """The last line of the report."""
    errors, warnings = found.findings.total(ERROR), found.findings.total(WARNING)
    if not errors and not warnings:
        return "no findings: this data set is ready for training"
    if not errors:
        return f"nothing would harm training; {counted(warnings, 'finding')} worth a look"
    others = f"; {counted(warnings, 'other')} worth a look" if warnings else ""
    return f"{counted(errors, 'finding')} would harm training or its figures{others}"


def _paths(found: Diagnosis) -> Iterator[str]:
    """Where the YAML leads, in the order of looking."""
    yield f"data set  {found.location.yaml.resolve()}"
    root = found.location.data["path"] if found.location.data else None
    taken = False
    for place in dict.fromkeys(place for place, _ in found.location.tried):
        titles = ", ".join(title for other, title in found.location.tried if other == place)
        state = "not looked at" if taken else "found here" if place == root else "images not found"
        taken = taken or place == root
        yield f"path      {place} ({titles}): {state}"
    for split in found.splits.values():
        for number, entry in enumerate(split.entries):
            yield f"{split.name if not number else '':<10}{entry}{'' if number else _split_words(split)}"


def _split_words(split: Split) -> str:
    if split.same_as:
        return f": the images of {split.same_as}"
    left_out = f", {len(split.files) - split.usable} left out" if split.usable < len(split.files) else ""
    return f": {counted(len(split.files), 'image')}{left_out}, {counted(split.objects, 'object')}"


def _classes(found: Diagnosis) -> Iterator[str]:
    """Objects by class and split."""
    balance = found.balance
    splits = list(balance.counts)
    yield f"{'objects by class':<28}" + "".join(f"{split:>10}" for split in splits)
    for number, name in list(balance.names.items())[:_CLASSES_SHOWN]:
        title = f"{number:>3} {name}"
        yield f"{title[:28]:<28}" + "".join(f"{balance.counts[split][number]:>10}" for split in splits)
    if len(balance.names) > _CLASSES_SHOWN:
        yield f"... and {len(balance.names) - _CLASSES_SHOWN} more classes; --json lists all"


def _sizes(found: Diagnosis) -> Iterator[str]:
    """Objects by size and split."""
    counts = found.sizes.counts
    yield f"{f'longer side at --img {found.imgsz}':<28}" + "".join(f"{split:>10}" for split in counts)
    for place, title in enumerate(_size_titles()):
        yield f"{title:<28}" + "".join(f"{counts[split][place]:>10}" for split in counts)


def _size_titles() -> list[str]:
    between = [f"{low} to {high} px" for low, high in pairwise(BOUNDS)]
    return [f"below {BOUNDS[0]} px", *between, f"{BOUNDS[-1]} px and more"]


def _kind(found: Diagnosis, kind: Kind, count: int, examples: int) -> Iterator[str]:
    """A kind of fault with some of its findings."""
    yield f"  {kind.name} ({count}): {kind.title}"
    shown = found.findings.of(kind.name)[:examples]
    for finding in shown:
        where = f"{finding.split}: " if finding.split and not finding.file else ""
        yield f"    {where}{finding}"
    if count > len(shown):
        yield f"    ... and {count - len(shown)} more"
    yield f"    -> {kind.advice}"


def report_data(found: Diagnosis) -> dict[str, Any]:
    """The report for programs, as JSON can hold it; of each kind up to 10,000 findings are listed, all are counted."""
    data = found.location.data
    findings = [
        {
            "kind": finding.kind,
            "level": KINDS[finding.kind].level,
            "split": finding.split,
            "file": finding.file,
            "line": finding.line,
            "text": finding.text,
        }
        for name in found.findings.counts
        for finding in found.findings.of(name)
    ]
    return {
        "data": str(found.location.yaml.resolve()),
        "path": str(data["path"]) if data else None,
        "image_size": found.imgsz,
        "harmful": found.findings.harmful,
        "errors": found.findings.total(ERROR),
        "warnings": found.findings.total(WARNING),
        "splits": {
            split.name: {
                "entries": [str(Path(entry)) for entry in split.entries],
                "same_as": split.same_as or None,
                "images": len(split.files),
                "usable": split.usable,
                "objects": split.objects,
            }
            for split in found.splits.values()
        },
        "classes": [
            {
                "number": number,
                "name": name,
                "objects": {split: int(counts[number]) for split, counts in found.balance.counts.items()},
            }
            for number, name in found.balance.names.items()
        ],
        "sizes": {
            split: dict(zip(_size_titles(), counts.tolist(), strict=True))
            for split, counts in found.sizes.counts.items()
        },
        "counts": found.findings.counts,
        "findings": findings,
    }
