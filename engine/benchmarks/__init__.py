"""What ``benchmark.py`` measures: ``attention.py`` is ``python benchmark.py attention``.

``interleaved.py`` (time), ``memory.py`` (bytes), ``machine.py`` and ``page.py`` (where a result stands) serve every
benchmark; ``attention_*.py`` hold what is compared, its tables and its picture, ``naive.py`` what is measured against.
``index_work.py`` does the work of ``label_index.py``, ``python benchmark.py index``.
``growth.py`` is ``python benchmark.py growth``: ``growth_network.py``, ``growth_labels.py`` and ``growth_loader.py``
measure, ``growth_curves.py`` fits exponents.
"""
