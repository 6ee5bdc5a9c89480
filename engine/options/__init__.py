"""The options of every command, a file each: ``train.py``, ``val.py``, ``detect.py``, ``benchmark.py``, ``ablate.py``.

``base.py`` turns a dataclass into a command line and into the keywords of ``run()``.
Nothing here imports torch, so that ``--help`` answers at once.
"""
