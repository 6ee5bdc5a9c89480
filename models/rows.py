"""The rows of a model YAML as written: which form they have, what they are called, which rows they read.

A row is ``[from, number, module, args]``, or the same behind a name: ``sppf: [-1, 1, SPPF, [1024, 5]]``. ``from`` is a
layer number, a negative number counted back from the row, the name of an earlier row, or a list of these. Names are for
people: a built layer knows its inputs by number. Nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from utils.errors import ConfigError, did_you_mean

SECTIONS = ("backbone", "head")
IMAGE = -1  # the index that stands for the network's input in RawRow.sources
_NAME = re.compile(r"[^\W\d_][\w.-]*")  # a letter, then letters, digits, ".", "_" and "-"
_FORM = "[from, number, module, args], with a name `name: [from, number, module, args]`"


@dataclass(frozen=True)
class RawRow:
    """One line of ``backbone`` or ``head`` whose form and inputs are right; number and values are not looked at yet.

    Attributes:
        index: number of the layer, counted from 0 over both lists.
        section: the list that the row stands in.
        name: what the file calls the row, None where it has no name.
        where: how messages name the row.
        sources: absolute indices of the layers it reads, :data:`IMAGE` for the network's input.
        given: ``from`` as the file gives it, always as a list.
        listed: whether ``from`` was a list.
    """

    index: int
    section: str
    name: str | None
    where: str
    sources: tuple[int, ...] = ()
    given: tuple[int | str, ...] = ()
    listed: bool = False
    repeats: Any = 1
    module: str = ""
    args: tuple[Any, ...] = ()

    @property
    def source_field(self) -> int | list[int]:
        """``from`` in numbers alone: those of the file, and the layer's for a name."""
        pairs = zip(self.given, self.sources, strict=True)
        numbers = [source if isinstance(given, str) else given for given, source in pairs]
        return numbers if self.listed else numbers[0]


def read_rows(content: Mapping[str, Any], title: str) -> list[RawRow]:
    """Read both lists of a model description.

    Args:
        content: of a model YAML.
        title: what messages call it.

    Raises:
        ConfigError: naming the row.
    """
    for key in SECTIONS:
        if not isinstance(content.get(key), list) or not content[key]:
            raise ConfigError(f"{title}: `{key}` must be a list of [from, number, module, args] rows")
    written = [(section, place, row) for section in SECTIONS for place, row in enumerate(content[section])]
    all_names = {_split(row)[0] for _, _, row in written}
    rows: list[RawRow] = []
    by_name: dict[str, RawRow] = {}
    for index, (section, place, raw) in enumerate(written):
        name, body = _split(raw)
        called = f" {name!r}" if name is not None else ""
        where = f"{title}: {section} row {place}{called} (layer {index}) {shorten(body)}"
        _check_name(name, by_name, where)
        row = _read_row(body, RawRow(index, section, name, where), by_name, all_names)
        rows.append(row)
        if name is not None:
            by_name[name] = row
    return rows


def shorten(value: Any, longest: int = 80) -> str:
    """A value as text for a message, cut where it would flood the line."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}..."


def _split(raw: Any) -> tuple[Any, Any]:
    """A row's name (None without one) and the rest; what has another form comes back whole."""
    if isinstance(raw, Mapping) and len(raw) == 1:
        name, body = next(iter(raw.items()))
        return "" if name is None else name, body  # `~:` is no name, and said to be none
    return None, raw


def _check_name(name: Any, by_name: Mapping[str, RawRow], where: str) -> None:
    if name is None:
        return
    if not isinstance(name, str):
        raise ConfigError(f"{where}: YAML reads the name as {name!r}, which is no text; take another")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: a name starts with a letter and goes on with letters, digits, `.`, `_` and `-`")
    if name in by_name:
        raise ConfigError(f"{where}: layer {by_name[name].index} is called {name!r} already")


def _read_row(body: Any, row: RawRow, by_name: Mapping[str, RawRow], all_names: set[Any]) -> RawRow:
    """The row with what its four elements say."""
    if not isinstance(body, (list, tuple)) or len(body) != 4:
        raise ConfigError(f"{row.where}: expected four elements, {_FORM}")
    source_field, repeats, module, args = body
    if not isinstance(module, str):
        raise ConfigError(f"{row.where}: the module must be a name, found {module!r}")
    if not isinstance(args, (list, tuple)):
        raise ConfigError(f"{row.where}: args must be a list, found {args!r}")
    listed = isinstance(source_field, (list, tuple))
    given = tuple(source_field) if listed else (source_field,)
    if not given:
        raise ConfigError(f"{row.where}: `from` is an empty list")
    sources = tuple(_resolve(source, row, by_name, all_names) for source in given)
    return replace(row, sources=sources, given=given, listed=listed, repeats=repeats, module=module, args=tuple(args))


def _resolve(source: Any, row: RawRow, by_name: Mapping[str, RawRow], all_names: set[Any]) -> int:
    """A ``from`` entry as an absolute layer index."""
    if isinstance(source, str):
        if source not in by_name:
            raise ConfigError(f"{row.where}: `from` {source!r} {_why_unknown(source, row, by_name, all_names)}")
        return by_name[source].index
    if isinstance(source, bool) or not isinstance(source, int):
        raise ConfigError(
            f"{row.where}: `from` must be a layer index, the name of a row, or a list of them, found {source!r}"
        )
    absolute = row.index + source if source < 0 else source
    if absolute >= row.index:
        raise ConfigError(f"{row.where}: `from` {source} is not an earlier layer; this row is layer {row.index}")
    if absolute < 0 and not (row.index == 0 and source == -1):
        raise ConfigError(f"{row.where}: `from` {source} points before the first layer")
    return absolute


def _why_unknown(source: str, row: RawRow, by_name: Mapping[str, RawRow], all_names: set[Any]) -> str:
    if source == row.name:
        return "is this row itself"
    if source in all_names:
        return "is a later row; a row reads earlier ones"
    known = f"names so far: {', '.join(by_name)}" if by_name else "no row before it has one"
    return f"is not the name of a row; {did_you_mean(source, by_name) or known}"
