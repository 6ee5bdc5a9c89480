"""YAML files in and out. YAML is data: only plain values, nothing is ever constructed or run.

What a few lines of YAML can grow to has no bounds (names that stand for lists of names, ``<<`` that doubles a mapping),
so files are bounded here: in bytes, values, levels, and in what they are once every name is written out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from utils.atomic import replacing
from utils.errors import ConfigError, first_line

_LARGEST = 2 << 20  # bytes; a search over 1,000 trainings keeps 750 kB
_MOST_VALUES = 100_000  # in the file, and again with every name written out; reading them takes two seconds
_DEEPEST = 50  # levels
_MOST_MERGED = 1000  # entries of a mapping with ``<<``
_CHARACTERS_OF_VALUE = 64
_LARGEST_BITS = 128  # of a whole number; Python refuses to show those of 4,300 digits
_UNSHOWABLE = re.compile("[\0\ud800-\udfff]")  # NUL, and halves of characters: no path, no file can hold them
_MERGE = "tag:yaml.org,2002:merge"
# PyYAML's own errors, and what it lets through where a tag and its text do not fit
_NOT_YAML = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class _BoundedLoader(yaml.SafeLoader):
    """Gives up on files that are larger, deeper or more entangled than any that people or programs write."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._values = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._values += 1
        self._depth += 1
        if self._values > _MOST_VALUES or self._depth > _DEEPEST:
            problem = f"more than {_MOST_VALUES:,} values, or more than {_DEEPEST} levels"
            raise yaml.composer.ComposerError(problem=problem, problem_mark=self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        merged = [value for key, value in node.value if key.tag == _MERGE]
        if len(merged) > 1 or any(isinstance(value, yaml.SequenceNode) for value in merged):
            problem = "`<<` takes one mapping"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        super().flatten_mapping(node)
        if merged and len(node.value) > _MOST_MERGED:
            problem = f"`<<` makes a mapping of more than {_MOST_MERGED:,} entries"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)


def parse_yaml(text: str, title: str | Path) -> Any:
    """Read YAML.

    Args:
        text: what to read.
        title: what messages call it.

    Raises:
        ConfigError: when it is no valid YAML, or more than any settings are; names title and line.
    """
    try:
        content = yaml.load(text, Loader=_BoundedLoader)
    except _NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{title}:{mark.line + 1}" if mark else str(title)
        problem = getattr(error, "problem", None) or first_line(error)
        raise ConfigError(f"{where}: not valid YAML ({problem})") from error
    try:
        _measure(content, {}, 0)
    except _UnusableError as error:
        raise ConfigError(f"{title}: {error}") from error
    return content


class _UnusableError(Exception):
    """Content is valid YAML, but nothing to work with."""


def _measure(value: Any, known: dict[int, tuple[int, int] | None], depth: int) -> tuple[int, int]:
    """How many values content stands for with every name written out, and in how many levels.

    Args:
        value: content, or a part of it.
        known: results by id, None while a part is being measured; what a name stands for is measured once.
        depth: levels around ``value``.

    Raises:
        _UnusableError: saying why content cannot be used.
    """
    if isinstance(value, (str, bytes)):
        if isinstance(value, str) and _UNSHOWABLE.search(value):
            raise _UnusableError(f"{value[:_CHARACTERS_OF_VALUE]!r} holds a character that no file can have")
        return 1 + len(value) // _CHARACTERS_OF_VALUE, 0
    if isinstance(value, int) and value.bit_length() > _LARGEST_BITS:
        raise _UnusableError(f"holds a whole number of {value.bit_length():,} bits")
    if not isinstance(value, (dict, list, tuple, set)):
        return 1, 0
    found = known.get(id(value), (0, 0))
    if found == (0, 0) and depth <= _DEEPEST:
        known[id(value)] = None
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        measured = [_measure(part, known, depth + 1) for part in parts]
        found = 1 + sum(values for values, _ in measured), 1 + max((levels for _, levels in measured), default=0)
        known[id(value)] = found
    if found is None or depth > _DEEPEST or found[0] > _MOST_VALUES or found[1] > _DEEPEST:
        raise _UnusableError(
            f"its names (&x, *x) stand for more than {_MOST_VALUES:,} values, {_DEEPEST} levels, or for themselves"
        )
    return found


def yaml_load(file: str | Path = "data.yaml") -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ConfigError: when the file cannot be read, is no valid YAML, is larger than settings are, or is not a mapping;
            names file and line.
    """
    path = Path(file)
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ConfigError(f"{path}: is larger than {_LARGEST >> 20} MB, too large for settings")
        text = data.decode("utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    content = parse_yaml(text, path)
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of `key: value` lines, found a {type(content).__name__}")
    return content


def yaml_save(file: str | Path = "data.yaml", data: dict[str, Any] | None = None) -> None:
    """Write a mapping as YAML in one step, in its own order; paths become plain text."""
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in (data or {}).items()}
    with replacing(file) as stream:
        stream.write(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
