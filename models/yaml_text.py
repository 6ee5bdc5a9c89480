"""A model description as the text of a YAML file that people can read: a row a line, with the layer's number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml

from models.rows import SECTIONS

_COMMENT_COLUMN = 52  # as in the shipped files


class _PlainDumper(yaml.SafeDumper):
    """Writes equal lists out each time, where PyYAML would refer to the first one."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def model_yaml_text(content: Mapping[str, Any], title: str) -> str:
    """Write a model description.

    Args:
        content: of a model YAML; its ``yaml_file`` is left out.
        title: a line for the top.

    Returns:
        The text of the file; read again, it gives ``content``.
    """
    lines = [f"# {' '.join(title.split())}", ""]
    for key, value in content.items():
        if key == "anchors" and isinstance(value, (list, tuple)):
            lines += ["anchors:", *(f"  - {_flow(level)}" for level in value)]
        elif key not in (*SECTIONS, "yaml_file"):
            lines.append(f"{_flow(key)}: {_flow(value)}")
    number = 0
    for section in SECTIONS:
        lines += ["", f"{section}:"]
        for row in content[section]:
            lines.append(f"  - {_row(row)}".ljust(_COMMENT_COLUMN) + f"# {number:2d}")
            number += 1
    return "\n".join(lines) + "\n"


def _row(row: Any) -> str:
    if isinstance(row, Mapping):
        return ", ".join(f"{_flow(name)}: {_flow(body)}" for name, body in row.items())
    return _flow(row)


def _flow(value: Any) -> str:
    """A value on one line."""
    text = yaml.dump(value, Dumper=_PlainDumper, default_flow_style=True, width=math.inf, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
