"""Attention layers, one idea per file, all ``(B, C, H, W) -> (B, C, H, W)`` for any H and W.

``bra`` is bi-level routing attention (``ops`` holds the op itself with its backends); ``full``, ``window``, ``axial``,
``dilated`` and ``deformable`` are the patterns it is compared with, on ``base`` and ``tiles``. ``block`` puts any of
them between a position convolution and an MLP, ``biformer`` does with bi-level routing. ``backbone`` has whole
BiFormers, ``released`` the key layout of the authors' checkpoints.

Beside torch this package needs ``models/registry.py`` and ``utils/errors.py`` and nothing else of the project.
"""

from models.attention.axial import AxialAttention, AxialAttentionBlock
from models.attention.backbone import BiFormer, biformer_base, biformer_small, biformer_tiny
from models.attention.biformer import BiFormerBlock
from models.attention.block import AttentionBlock
from models.attention.bra import BiLevelRoutingAttention
from models.attention.deformable import DeformableAttention, DeformableAttentionBlock
from models.attention.dilated import DilatedAttention, DilatedAttentionBlock
from models.attention.full import FullAttention, FullAttentionBlock
from models.attention.window import WindowAttention, WindowAttentionBlock

__all__ = [
    "AttentionBlock",
    "AxialAttention",
    "AxialAttentionBlock",
    "BiFormer",
    "BiFormerBlock",
    "BiLevelRoutingAttention",
    "DeformableAttention",
    "DeformableAttentionBlock",
    "DilatedAttention",
    "DilatedAttentionBlock",
    "FullAttention",
    "FullAttentionBlock",
    "WindowAttention",
    "WindowAttentionBlock",
    "biformer_base",
    "biformer_small",
    "biformer_tiny",
]
