"""The order of the images in an epoch, its division into batches, and who gets which."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from utils.datasets.detection import LoadImagesAndLabels
from utils.datasets.items import ItemKey, QuadKey
from utils.datasets.quad_group import GROUP

_SEED_MASK = 0xFFFFFFFF  # NumPy takes no negative seeds
_QUAD_DRAWS = 0x9A4D  # keeps the choice between tiles and enlargement apart from the other draws


class EpochBatches(Sampler[list]):
    """The batches of an epoch, as lists of item keys.

    Each pass is the next epoch, unless :meth:`set_epoch` names it. Order and draws follow from seed and epoch alone;
    every rank makes the same ones and takes its share.

    Args:
        dataset: whose images are shared out; a rectangular one fixes the batches.
        batch_size: images per batch of one rank.
        shuffle: a new order each epoch.
        seed: of the order.
        rank: of this process among ``ranks``.
        ranks: number of processes.
        repeat: every rank gets equally many images, or batches of a rectangular set: where they do not divide evenly
            the first ones come again. False: every batch belongs to one rank, rank r gets the batches r, r + ranks,
            ... of a single process; some get one fewer, or none.
        quad: ask for groups of four, joined to one image; what makes no group is left out.
    """

    def __init__(
        self,
        dataset: LoadImagesAndLabels,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        repeat: bool = True,
        quad: bool = False,
    ):
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} is not one of {ranks}")
        self._count = len(dataset)
        self._fixed = dataset.rect
        self._shuffle, self._seed, self._quad = shuffle and not self._fixed, seed & _SEED_MASK, quad
        self._probabilities: np.ndarray | None = None
        self._next_epoch = self._first = 0
        fixed = dataset.batch if self._fixed else None
        self._batches = _own_batches(self._count, batch_size, fixed, rank=rank, ranks=ranks, repeat=repeat, quad=quad)

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Name the epoch of the next pass, and the batch that it begins with."""
        self._next_epoch, self._first = epoch, first

    def draw_by(self, weights: np.ndarray | None) -> None:
        """From the next pass on, draw as many images as there are, with replacement.

        Args:
            weights: (N,) from 0, how likely each image is against the others; where all are 0, all are equally likely.
                None goes back to every image once.

        Raises:
            ValueError: for another number of weights, for negative or infinite ones, or when batches are rectangular.
        """
        if weights is None:
            self._probabilities = None
            return
        if self._fixed:
            raise ValueError("rectangular batches are fixed: images cannot be drawn by weight")
        likely = np.array(weights, dtype=np.float64)
        if likely.shape != (self._count,) or not np.isfinite(likely).all() or (likely < 0).any():
            raise ValueError(f"expected {self._count} finite weights from 0, got an array of shape {likely.shape}")
        self._probabilities = likely / likely.sum() if likely.any() else None
        if self._probabilities is None:
            self._probabilities = np.full(self._count, 1 / self._count)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[ItemKey] | list[QuadKey]]:
        epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        first, self._first = self._first, 0
        order, draws = self._order(epoch)
        enlarged = np.random.default_rng((_QUAD_DRAWS, self._seed, epoch)).random(self._count) < 0.5
        for positions in self._batches[first:]:
            pairs = zip(order[positions].tolist(), draws[positions].tolist(), strict=True)
            keys = [ItemKey(index, epoch, draw) for index, draw in pairs]
            yield _in_groups(keys, enlarged) if self._quad else keys

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Images (N,) of an epoch, and how often each came before."""
        rng = np.random.default_rng((self._seed, epoch))
        if self._probabilities is not None:
            drawn = rng.choice(self._count, self._count, p=self._probabilities)
            return drawn, _earlier_occurrences(drawn)
        order = rng.permutation(self._count) if self._shuffle else np.arange(self._count)
        return order, np.zeros_like(order)


def _own_batches(
    count: int, batch_size: int, fixed: np.ndarray | None, *, rank: int, ranks: int, repeat: bool, quad: bool
) -> list[np.ndarray]:
    """Positions in an epoch's order that make up each batch of one rank.

    Args:
        count: images of an epoch.
        batch_size: images per batch.
        fixed: (count,) batch of each position, where the data set says so.
        rank: whose batches.
        ranks: number of processes.
        repeat: as in :class:`EpochBatches`.
        quad: leave out what makes no group of four.
    """
    positions = np.arange(count)
    if fixed is None and repeat:
        return _cut(_equal_share(positions, rank, ranks), batch_size, quad)
    if fixed is None:
        batches = _cut(positions, batch_size, quad)
    else:
        batches = _whole_groups(np.split(positions, np.flatnonzero(np.diff(fixed)) + 1), quad)
    numbers = np.arange(len(batches))
    own = _equal_share(numbers, rank, ranks) if repeat else numbers[rank::ranks]
    return [batches[number] for number in own]


def _equal_share(everything: np.ndarray, rank: int, ranks: int) -> np.ndarray:
    """Every ``ranks``-th entry, the first ones again where they do not divide evenly."""
    missing = -len(everything) % ranks
    return np.append(everything, np.resize(everything, missing))[rank::ranks]


def _cut(positions: np.ndarray, batch_size: int, quad: bool) -> list[np.ndarray]:
    pieces = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
    return _whole_groups(pieces, quad)


def _whole_groups(batches: list[np.ndarray], quad: bool) -> list[np.ndarray]:
    if not quad:
        return batches
    return [batch[: len(batch) // GROUP * GROUP] for batch in batches if len(batch) >= GROUP]


def _earlier_occurrences(drawn: np.ndarray) -> np.ndarray:
    """How many equal numbers stand before each."""
    order = np.argsort(drawn, kind="stable")
    ascending = drawn[order]
    earlier = np.empty_like(drawn)
    earlier[order] = np.arange(len(drawn)) - np.searchsorted(ascending, ascending)
    return earlier


def _in_groups(keys: list[ItemKey], enlarged: np.ndarray) -> list[QuadKey]:
    """Each four keys as one; where the first is to be enlarged, the other three need not be read."""
    groups = (tuple(keys[start : start + GROUP]) for start in range(0, len(keys), GROUP))
    return [QuadKey(group[:1] if enlarged[group[0].index] else group) for group in groups]
