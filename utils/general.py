"""Façade: the famous general names, importable from where other people's scripts expect them.

Paths are in ``utils/paths.py``, boxes in ``utils/boxes.py``, suppression in ``utils/nms.py``, YAML in
``utils/yaml_io.py``, the logger in ``utils/log.py``, data sets in ``utils/datasets/``; the imports below say the rest.
"""

import cv2

from utils.boxes import (
    clip_boxes,
    scale_boxes,
    segments2boxes,
    xyn2xy,
    xywh2xyxy,
    xywhn2xyxy,
    xyxy2xywh,
    xyxy2xywhn,
)
from utils.class_weights import labels_to_class_weights, labels_to_image_weights
from utils.datasets.config import check_dataset
from utils.environment import check_imshow, check_requirements, print_args
from utils.log import LOGGER, colorstr
from utils.nms import non_max_suppression
from utils.paths import check_file, check_suffix, check_yaml, get_latest_run, increment_path
from utils.profiling import Profile
from utils.schedule import one_cycle
from utils.seeding import init_seeds
from utils.sizes import check_img_size, make_divisible
from utils.state_dicts import intersect_dicts
from utils.stripping import strip_optimizer
from utils.yaml_io import yaml_load, yaml_save

__all__ = [
    "LOGGER",
    "Profile",
    "check_dataset",
    "check_file",
    "check_img_size",
    "check_imshow",
    "check_requirements",
    "check_suffix",
    "check_yaml",
    "clip_boxes",
    "colorstr",
    "cv2",
    "get_latest_run",
    "increment_path",
    "init_seeds",
    "intersect_dicts",
    "labels_to_class_weights",
    "labels_to_image_weights",
    "make_divisible",
    "non_max_suppression",
    "one_cycle",
    "print_args",
    "scale_boxes",
    "segments2boxes",
    "strip_optimizer",
    "xyn2xy",
    "xywh2xyxy",
    "xywhn2xyxy",
    "xyxy2xywh",
    "xyxy2xywhn",
    "yaml_load",
    "yaml_save",
]
