"""What a conversion left out or changed: a count of each kind, and the first entries by name."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

_SHOWN = 5  # entries of each kind


@dataclass
class Report:
    """Collected while reading and writing; several threads may add to it.

    Attributes:
        counts: how often each kind of thing happened.
        examples: of each kind the first few texts ``file: entry`` in the order of the alphabet.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, kind: str, where: str, count: int = 1) -> None:
        """Count one.

        Args:
            kind: what happened, such as ``images without a file: left out``.
            where: file and entry.
            count: of things of this kind that the entry stands for.
        """
        with self._lock:
            self.counts[kind] += count
            shown = self.examples.setdefault(kind, [])
            shown.append(where)
            shown.sort()  # the same ones whichever thread was first
            del shown[_SHOWN + 1 :]

    def lines(self) -> list[str]:
        """One line for each kind, and below it the first entries; always in the same order."""
        found = []
        for kind in sorted(self.counts):
            found.append(f"{self.counts[kind]} {kind}")
            found += [f"  {_plain(text)}" for text in self.examples[kind][:_SHOWN]]
            if len(self.examples[kind]) > _SHOWN:
                found.append("  ...")
        return found


def _plain(text: str) -> str:
    """On one line, whatever characters a file put into a name."""
    return "".join(character if character.isprintable() else "?" for character in text)
