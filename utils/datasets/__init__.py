"""Data sets and other sources of images.

The way of a training image: ``config.py`` finds the split, ``images.py`` lists it, ``labels.py`` and ``cache.py`` read
its labels, ``detection.py`` makes items of it with ``mosaic.py`` and ``utils/augmentations.py``, ``batching.py`` joins
them. ``sources.py`` feeds detection; ``shapes.py`` draws the embedded set.
"""
