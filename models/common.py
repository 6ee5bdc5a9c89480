"""Names that YOLOv5 users import from here: every block that a model YAML can use, and the inference wrapper.

The blocks live in ``models/layers/`` by family, the attention modules in ``models/attention/``, one idea a file, the
wrapper in ``models/backends/``, AutoShape and its results in ``models/autoshape.py`` and ``models/detections.py``.
"""

from models.attention.axial import AxialAttention, AxialAttentionBlock
from models.attention.biformer import BiFormerBlock
from models.attention.bra import BiLevelRoutingAttention
from models.attention.deformable import DeformableAttention, DeformableAttentionBlock
from models.attention.dilated import DilatedAttention, DilatedAttentionBlock
from models.attention.full import FullAttention, FullAttentionBlock
from models.attention.window import WindowAttention, WindowAttentionBlock
from models.autoshape import AutoShape
from models.backends.multi import DetectMultiBackend
from models.detections import Detections
from models.layers.c3_biformer import C3BiFormer
from models.layers.conv import (
    Conv,
    CrossConv,
    DWConv,
    DWConvTranspose2d,
    Focus,
    GhostBottleneck,
    GhostConv,
    autopad,
)
from models.layers.csp import C3, C3SPP, C3TR, Bottleneck, BottleneckCSP, C3Ghost, C3x
from models.layers.pooling import SPP, SPPF
from models.layers.reshape import Concat, Contract, Expand
from models.layers.transformer import TransformerBlock, TransformerLayer

__all__ = [
    "C3",
    "C3SPP",
    "C3TR",
    "SPP",
    "SPPF",
    "AutoShape",
    "AxialAttention",
    "AxialAttentionBlock",
    "BiFormerBlock",
    "BiLevelRoutingAttention",
    "Bottleneck",
    "BottleneckCSP",
    "C3BiFormer",
    "C3Ghost",
    "C3x",
    "Concat",
    "Contract",
    "Conv",
    "CrossConv",
    "DWConv",
    "DWConvTranspose2d",
    "DeformableAttention",
    "DeformableAttentionBlock",
    "DetectMultiBackend",
    "Detections",
    "DilatedAttention",
    "DilatedAttentionBlock",
    "Expand",
    "Focus",
    "FullAttention",
    "FullAttentionBlock",
    "GhostBottleneck",
    "GhostConv",
    "TransformerBlock",
    "TransformerLayer",
    "WindowAttention",
    "WindowAttentionBlock",
    "autopad",
]
