"""Names that YOLOv5 users import from here: loading weights, ensembles, mixed convolutions.

They live in ``models/loading.py`` and ``models/layers/conv.py``.
"""

from models.layers.conv import MixConv2d
from models.loading import Ensemble, attempt_load

__all__ = ["Ensemble", "MixConv2d", "attempt_load"]
