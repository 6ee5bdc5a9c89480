"""What an evaluation collects batch by batch, and how several processes put theirs together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from utils.dist import all_gather, connected, rank, world_size
from utils.matching import ImageRecord


@dataclass
class EvalRecords:
    """What was found batch by batch: plain arrays and numbers, nothing on a device.

    Attributes:
        images: records of each batch's images, by the number of the batch.
        losses: box, obj and cls loss of each batch that has them, by the number of the batch.
        seconds: time of pre-processing, inference and NMS.
        confusion: counts of a confusion matrix, when one was asked for.
    """

    images: dict[int, list[ImageRecord]] = field(default_factory=dict)
    losses: dict[int, list[float]] = field(default_factory=dict)
    seconds: tuple[float, float, float] = (0.0, 0.0, 0.0)
    confusion: np.ndarray | None = None

    def in_order(self) -> list[ImageRecord]:
        """All images by the number of their batch."""
        return [record for number in sorted(self.images) for record in self.images[number]]

    def mean_losses(self) -> tuple[float, float, float]:
        """Box, obj and cls loss, averaged over the batches; zeros without any."""
        rows = np.array([self.losses[number] for number in sorted(self.losses)]).reshape(-1, 3)
        box, obj, cls = (rows.sum(0) / max(len(rows), 1)).tolist()
        return box, obj, cls

    def speed_ms(self) -> tuple[float, float, float]:
        """Milliseconds per image of the three stages, on one device."""
        images = sum(map(len, self.images.values()))
        prepare, infer, suppress = (1e3 * spent / max(images, 1) for spent in self.seconds)
        return prepare, infer, suppress


def global_number(local: int) -> int:
    """Number that the whole launch gives to a process's batch: the processes take turns."""
    return local * world_size() + max(rank(), 0) if connected() else local


def gathered(own: EvalRecords) -> EvalRecords:
    """The records of all processes of the launch together; one's own when it is the only one."""
    if not connected():
        return own
    whole = EvalRecords()
    for share in all_gather(own):
        whole.images.update(share.images)
        whole.losses.update(share.losses)
        prepare, infer, suppress = (sum(pair) for pair in zip(whole.seconds, share.seconds, strict=True))
        whole.seconds = (prepare, infer, suppress)
        if share.confusion is not None:
            whole.confusion = share.confusion if whole.confusion is None else whole.confusion + share.confusion
    return whole
