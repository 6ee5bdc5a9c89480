"""The options of every command: ``train.py``, ``val.py``, ``detect.py`` and ``benchmark.py`` hold their dataclasses.

``base.py`` turns a dataclass into a command line and into the keywords of ``run()``.
Nothing here imports torch, so that ``--help`` answers at once.
"""
