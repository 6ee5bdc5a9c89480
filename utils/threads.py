"""Several files read at the same time, by threads: what they wait for is the disk and decoders, not each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from multiprocessing.pool import ThreadPool
from typing import TypeVar

from tqdm import tqdm

READERS = 8  # threads
_CHUNK = 8  # items that a thread takes at a time

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_threads(
    function: Callable[[Given], Made], items: Sequence[Given], text: str, *, quiet: bool = False
) -> Iterable[Made]:
    """Results in the order of the items, with a progress bar on a terminal.

    Args:
        function: may wait for the disk; called from several threads.
        items: what to call it with.
        text: beside the bar.
        quiet: without a bar.
    """
    with ThreadPool(READERS) as pool:
        results = pool.imap(function, items, chunksize=_CHUNK)
        yield from tqdm(results, text, len(items), leave=False, disable=quiet or None)
