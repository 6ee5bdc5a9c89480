"""A small coverage-guided fuzzer for every file that the project reads: ``python -m tools.fuzz``.

``targets.py`` says which files and what must hold, ``mutators.py`` how they are changed, ``guard.py`` what no case may
do, ``coverage.py`` which cases are worth going on from, and ``loop.py`` puts these together.
"""
