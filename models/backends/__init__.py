"""Ways to run a trained detector. ``multi.py`` holds the wrapper that scripts use, by weights file."""
