"""The same picture more than once: within a split it counts double, in two splits it makes figures worthless."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from utils.doctor.findings import Finding


class _Place(NamedTuple):
    """Where a picture is, and a number that is equal for equal labels."""

    split: str
    file: str
    labels: int


class Copies:
    """Finds pictures of equal pixels; keeps a digest and a path of each.

    Attributes:
        to_drop: split and path of images that a corrected set does without: those that another split measures with,
            and those that are there before, with the same labels.
    """

    def __init__(self) -> None:
        self._first: dict[bytes, _Place] = {}
        self._more: dict[bytes, list[_Place]] = defaultdict(list)
        self.to_drop: set[tuple[str, str]] = set()

    def add(self, split: str, file: str, digest: bytes, labels: int) -> Finding | None:
        """Take up a picture, the splits one after the other; a finding when it was there before.

        Args:
            split: train, val or test.
            file: its path.
            digest: of its pixels, or where these are not known anything that the same file has every time.
            labels: a number that is equal for equal labels.
        """
        place = _Place(split, file, labels)
        if digest not in self._first:
            self._first[digest] = place
            return None
        before = [self._first[digest], *self._more[digest]]
        self._more[digest].append(place)
        within = [other for other in before if other.split == split]
        if within:
            twin = next((other for other in within if other.labels == labels), None)
            if twin is not None:
                self.to_drop.add((split, file))
            text = f"is the picture of {(twin or within[0]).file}, with {'the same' if twin else 'other'} labels"
            return Finding("image-copy", text, file, 0, split)
        # training images can spare it: what is measured on stays as it is
        self.to_drop.update((other.split, other.file) for other in before if other.split == "train")
        first = before[0]
        same = "this very file" if first.file == file else f"the same picture as {first.file}"
        return Finding("split-overlap", f"{first.split} has it, too: {same}", file, 0, split)
