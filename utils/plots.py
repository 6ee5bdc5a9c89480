"""Façade: the famous drawing names, importable from where other people's scripts expect them.

Drawing on pictures is in ``utils/drawing.py``, charts are in ``utils/charts.py`` and ``utils/curves.py``.
"""

from utils.charts import output_to_target, plot_images, plot_labels, plot_results
from utils.drawing import Annotator, colors, save_one_box

__all__ = [
    "Annotator",
    "colors",
    "output_to_target",
    "plot_images",
    "plot_labels",
    "plot_results",
    "save_one_box",
]
