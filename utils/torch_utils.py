"""Façade: the famous torch helpers, importable from where other people's scripts expect them.

Devices are in ``utils/devices.py``, the EMA and early stopping in ``utils/ema.py``, optimizers in ``utils/optim.py``,
fusing in ``utils/fuse.py``, the model summary in ``utils/model_info.py``, stop-watches in ``utils/profiling.py``.
"""

from utils.devices import de_parallel, is_parallel, select_device, smart_inference_mode
from utils.ema import EarlyStopping, ModelEMA
from utils.fuse import fuse_conv_and_bn
from utils.model_info import model_info
from utils.optim import smart_optimizer
from utils.profiling import time_sync

__all__ = [
    "EarlyStopping",
    "ModelEMA",
    "de_parallel",
    "fuse_conv_and_bn",
    "is_parallel",
    "model_info",
    "select_device",
    "smart_inference_mode",
    "smart_optimizer",
    "time_sync",
]
