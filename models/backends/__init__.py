"""Ways to run a trained detector, a file each, behind the protocol in ``protocol.py``.

``choice.py`` finds the one for a weights file; ``multi.py`` holds the wrapper that scripts use.
"""
