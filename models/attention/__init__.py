"""Attention layers, one idea per file, all ``(B, C, H, W) -> (B, C, H, W)``.

``bra`` is bi-level routing attention, ``biformer`` the block around it and its C3 form, ``backbone`` whole BiFormers,
``released`` the key layout of the authors' checkpoints; ``ops`` holds the op itself with its backends.
"""
