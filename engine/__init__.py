"""What the commands do: ``trainer.py``, ``evaluator.py``, ``predictor.py``.

``options/`` holds one dataclass per command, the single source of its flags, keywords and ``opt.yaml``;
``benchmarks/`` what ``benchmark.py`` measures.
The scripts at the top level only parse, call this package, and report.
"""
