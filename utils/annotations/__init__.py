"""Annotated images in the formats of other programs, by way of one neutral form.

``record.py`` is that form; ``coco.py``, ``voc.py``, ``labelme.py`` and ``yolo.py`` read and write one format each, and
``formats.py`` lists them. ``class_map.py`` and ``splits.py`` change what was read, ``checks.py`` decides which entry
can be meant, ``image_files.py`` looks at the pictures, ``output.py`` writes. ``report.py`` counts what was left out.
"""
