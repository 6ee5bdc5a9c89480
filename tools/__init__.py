"""Command-line helpers around the main scripts, each started as ``python -m tools.<name>``."""
