"""What an attention over routed regions is told besides its tokens: one object, the same for every backend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AttentionSettings:
    """How tokens attend to those of the regions that they are routed to.

    Args:
        num_heads: M, a divisor of the channels.
        scale: factor on the logits.
        mask_padding: keep keys that padding made out of the softmax; False lets them take part as zeros.
    """

    num_heads: int
    scale: float
    mask_padding: bool = True
