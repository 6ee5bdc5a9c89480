"""How many objects each class has in each split, and which classes have too few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from utils.doctor.findings import Finding
from utils.wording import counted

FEW = 10  # objects of a class, below which nothing is learnt of it


class Balance:
    """Counts objects by split and class.

    Args:
        names: of the classes, by number.

    Attributes:
        counts: (nc,) objects of each class, by split.
        unknown: classes met that the data set does not have.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names = dict(names)
        self.unknown: set[int] = set()
        self.counts: dict[str, np.ndarray] = {}

    def add(self, split: str, classes: np.ndarray) -> None:
        """Count objects of a split.

        Args:
            split: train, val or test.
            classes: (n,) class numbers below the class count.
        """
        empty = np.zeros(len(self.names), np.int64)
        counted = np.bincount(classes.astype(np.int64), minlength=len(empty))
        self.counts[split] = self.counts.get(split, empty) + counted

    def findings(self) -> Iterator[Finding]:
        """Classes that cannot be told apart, and those with hardly anything to train on where anything has labels."""
        first_of: dict[str, int] = {}
        for number, name in self.names.items():
            if first_of.setdefault(name, number) != number:
                yield Finding("names-twice", f"classes {first_of[name]} and {number} are both called {name}")
        if self.unknown == {len(self.names)} and not any(counts[0] for counts in self.counts.values()):
            yield Finding("classes-from-one", f"class {len(self.names)} is used and class 0 is not")
        train = self.counts.get("train")
        if train is None or not train.any():
            return
        for number, count in enumerate(train.tolist()):
            if count >= FEW:
                continue
            measured = {split: int(counts[number]) for split, counts in self.counts.items() if split != "train"}
            others = "".join(f", {split} has {found}" for split, found in measured.items() if found)
            text = f"class {number} ({self.names[number]}) has {counted(count, 'object')} in train{others}"
            yield Finding("class-rare" if count else "class-empty", text, split="train")
