"""Everything that is, builds, reads or writes a network.

``yolo.py`` holds the detector, ``builder.py`` turns YAML rows into layers, ``layers/`` and ``attention/`` hold the
blocks. ``common.py`` and ``experimental.py`` only re-export the names that YOLOv5 users import.
"""
