"""Data sets and other sources of images.

The way of a training image: ``config.py`` finds the split, ``images.py`` lists it, ``labels.py`` and ``cache.py`` read
its labels into ``label_index.py``, a file (``index_file.py``) of which ``label_view.py`` and ``columns.py`` show a data
set its own; ``pixels.py`` keeps decoded images where ``budget.py`` finds room.
``sampling.py`` says which image is whose turn, ``detection.py`` makes items with ``mosaic.py``, ``rectangles.py``,
``quad.py`` and ``utils/augmentations.py``, ``batching.py`` joins them. ``sources.py`` feeds detection; ``shapes.py``
draws the embedded set.
"""
