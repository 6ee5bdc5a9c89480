"""Boxes, losses, metrics, data and drawing: everything that does not know what a model is.

Start with ``boxes.py``, ``assign.py`` and ``loss.py`` for the maths, ``datasets/`` for the data. ``general.py``,
``dataloaders.py``, ``torch_utils.py`` and ``plots.py`` only re-export the names that YOLOv5 users import.
"""
