"""The YAML of networks of a few layers, for two classes and images of 64 px."""

from __future__ import annotations

_YAML = """
nc: 2
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[10, 13, 16, 30], [30, 61, 62, 45]]
backbone:
  - [-1, 1, Conv, [8, 6, 2, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
{rows}
head:
  - [[{levels}], 1, Detect, [nc, anchors]]
"""


def tiny_network(*rows: str, levels: tuple[int, int]) -> str:
    """Layers behind the first three, which are numbered 0 to 2, such as ``C3, [16]``; and which two Detect looks at."""
    return _YAML.format(rows="\n".join(f"  - [-1, 1, {row}]" for row in rows), levels=", ".join(map(str, levels)))
