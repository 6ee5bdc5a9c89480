"""Façade: the famous data loading names, importable from where other people's scripts expect them.

Loaders are in ``utils/datasets/batching.py``, the data set in ``detection.py`` beside it, sources for detection in
``sources.py``, ``streams.py`` and ``screens.py``, files and sizes in ``images.py``, and ``letterbox`` in
``utils/augmentations.py``.
"""

from utils.augmentations import letterbox
from utils.datasets.batching import create_dataloader
from utils.datasets.detection import LoadImagesAndLabels
from utils.datasets.images import exif_size, img2label_paths
from utils.datasets.screens import LoadScreenshots
from utils.datasets.source_files import IMG_FORMATS, VID_FORMATS
from utils.datasets.sources import LoadImages
from utils.datasets.streams import LoadStreams

__all__ = [
    "IMG_FORMATS",
    "VID_FORMATS",
    "LoadImages",
    "LoadImagesAndLabels",
    "LoadScreenshots",
    "LoadStreams",
    "create_dataloader",
    "exif_size",
    "img2label_paths",
    "letterbox",
]
