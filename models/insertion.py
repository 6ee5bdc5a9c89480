"""Rows put into a model YAML from outside it, without renumbering by hand: ``train.py --insert``.

An insertion is written ``MODULE@after:PLACE``, ``MODULE[values]@before:PLACE`` or ``MODULE@replace:PLACE``:

- ``MODULE[values]`` is a row's module and values, as in a YAML: ``BiFormerBlock[0, 5, 4, 3]``; ``BiFormerBlock`` alone
  takes its defaults.
- ``after`` puts it behind the place: everything that reads the place reads the new row instead. ``before`` puts it on
  each input of the place, for the place alone. ``replace`` puts it where the place is; without values it takes over
  those of the row that was there.
- ``PLACE`` is a layer number, the name that the YAML gives a row, or a module in lower case, numbered from 1 where
  there are several: ``9``, ``p3_out``, ``sppf``, ``c3#2``, ``upsample#1``, ``detect``.

Places are those of the file, whatever else is inserted; at one place, the order given is the order in the network. The
network is taken as a graph whose rows know the rows they read, changed there, and numbered at the end.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.rows import IMAGE, SECTIONS, RawRow, read_rows, shorten
from utils.errors import ConfigError, OptionError, did_you_mean
from utils.yaml_io import parse_yaml

GRAMMAR = 'MODULE@after:PLACE, such as "BiFormerBlock@after:sppf"'
_FORM = re.compile(r"\s*([\w.]+)\s*(\[.*\])?\s*@\s*(after|before|replace)\s*:\s*([^\s@]+)\s*", re.DOTALL)
_NUMBER = re.compile(r"\d{1,9}")
_NUMBERED = re.compile(r"(.+)#(\d{1,9})")
_SUFFIX = " with --insert"


@dataclass(frozen=True)
class Insertion:
    """One insertion as asked for; ``values`` is None where it names none."""

    text: str
    module: str
    values: list[Any] | None
    how: str
    place: str


@dataclass(eq=False)
class _Node:
    """A row that knows the rows it reads, None for the image. ``styles`` is how each was written: number or name."""

    section: str
    module: str
    args: list[Any]
    name: str | None = None
    repeats: Any = 1
    listed: bool = False
    sources: list[_Node | None] = field(default_factory=list)
    styles: list[int | str] = field(default_factory=list)
    index: int = -1


def parse_insertion(text: str) -> Insertion:
    """Read one insertion; see the module for the form.

    Raises:
        OptionError: when it has another form.
    """
    parts = _FORM.fullmatch(text)
    if parts is None:
        raise OptionError(f"--insert {shorten(text)}: expected {GRAMMAR}; also MODULE[values], @before: and @replace:")
    module, values, how, place = parts.groups()
    return Insertion(text, module, None if values is None else _read_values(values, text), how, place)


def _read_values(values: str, text: str) -> list[Any]:
    try:
        return list(parse_yaml(values, "--insert"))
    except (ConfigError, TypeError) as error:
        raise OptionError(
            f"--insert {shorten(text)}: {shorten(values)} is not a list of values as in a YAML row"
        ) from error


def insert_rows(content: Mapping[str, Any], insertions: Sequence[str], title: str) -> dict[str, Any]:
    """Put rows into a model description.

    Args:
        content: of a model YAML; not changed.
        insertions: one or more, as the module says.
        title: what messages call the description.

    Returns:
        A new description, whose ``yaml_file`` says that something was inserted.

    Raises:
        ConfigError: when the description itself is wrong, naming the row.
        OptionError: when an insertion has another form, or its place is not there or says too little.
    """
    rows = read_rows(content, title)
    nodes = _as_graph(rows)
    asked = [parse_insertion(text) for text in insertions]
    places = [nodes[_find_place(one, rows, title)] for one in asked]
    ends = {id(node): node for node in nodes}  # the last row put behind each place
    replaced: set[int] = set()
    for one, place in zip(asked, places, strict=True):
        if one.how == "after":
            ends[id(place)] = _put_after_(one, ends[id(place)], nodes)
        elif one.how == "before":
            _put_before_(one, place, nodes)
        else:
            if id(place) in replaced:
                raise OptionError(f"--insert {shorten(one.text)}: this row is replaced already")
            replaced.add(id(place))
            place.module, place.args = one.module, place.args if one.values is None else one.values
    for index, node in enumerate(nodes):
        node.index = index
    changed = {section: [_as_row(node) for node in nodes if node.section == section] for section in SECTIONS}
    return {**content, **changed, "yaml_file": f"{title.removesuffix(_SUFFIX)}{_SUFFIX}"}


def place_names(content: Mapping[str, Any], title: str) -> list[str]:
    """What to call each row of a description in an insertion: its name, else its module, numbered if need be."""
    rows = read_rows(content, title)
    names = {row.name for row in rows}
    totals, seen = Counter(_kind(row.module) for row in rows), Counter()
    places = []
    for row in rows:
        kind = _kind(row.module)
        seen[kind] += 1
        alone = totals[kind] == 1 and kind not in names  # a name goes before a module
        places.append(row.name or (kind if alone else f"{kind}#{seen[kind]}"))
    return places


def _as_graph(rows: Sequence[RawRow]) -> list[_Node]:
    nodes: list[_Node] = []
    for row in rows:
        sources = [None if source == IMAGE else nodes[source] for source in row.sources]
        node = _Node(row.section, row.module, list(row.args), row.name, row.repeats, row.listed, sources)
        node.styles = list(row.given)
        nodes.append(node)
    return nodes


def _kind(module: str) -> str:
    """What a place calls a module."""
    return module.removeprefix("nn.").lower()


def _find_place(one: Insertion, rows: Sequence[RawRow], title: str) -> int:
    """The layer that a place means."""
    if _NUMBER.fullmatch(one.place):
        if int(one.place) >= len(rows):
            raise OptionError(f"--insert {shorten(one.text)}: {title} has the layers 0 to {len(rows) - 1}")
        return int(one.place)
    by_name = {row.name: row.index for row in rows if row.name is not None}
    if one.place in by_name:
        return by_name[one.place]
    numbered = _NUMBERED.fullmatch(one.place)
    kind = _kind(numbered[1] if numbered else one.place)
    found = [row.index for row in rows if _kind(row.module) == kind]
    if not found:
        hint = did_you_mean(kind, [*by_name, *dict.fromkeys(_kind(row.module) for row in rows)])
        raise OptionError(
            f"--insert {shorten(one.text)}: {title} has no row {shorten(one.place)}; {hint}{' ' * bool(hint)}"
            "`python -m tools.model` followed by the YAML's name lists what its rows are called"
        )
    if len(found) > 1 and numbered is None:
        choices = ", ".join(f"{kind}#{number} (layer {index})" for number, index in enumerate(found, 1))
        raise OptionError(f"--insert {shorten(one.text)}: {title} has {len(found)} rows {kind!r}; say which: {choices}")
    number = int(numbered[2]) if numbered else 1
    if not 1 <= number <= len(found):
        raise OptionError(f"--insert {shorten(one.text)}: {title} has {kind}#1 to {kind}#{len(found)}")
    return found[number - 1]


def _put_after_(one: Insertion, place: _Node, nodes: list[_Node]) -> _Node:
    """A new row behind another, read in its place; ``nodes`` grows."""
    readers = [node for node in nodes if place in node.sources]
    if not readers:
        raise OptionError(
            f"--insert {shorten(one.text)}: nothing reads this row ({place.module}), so nothing can follow it; "
            "`@before:` puts rows on its inputs"
        )
    new = _Node(place.section, one.module, one.values or [], sources=[place], styles=[-1])
    for reader in readers:
        reader.sources = [new if source is place else source for source in reader.sources]
    nodes.insert(nodes.index(place) + 1, new)
    return new


def _put_before_(one: Insertion, place: _Node, nodes: list[_Node]) -> None:
    """A new row on each input of another, in the order of the inputs; ``nodes`` grows."""
    new: dict[int, _Node] = {}
    for number, source in enumerate(place.sources):
        if id(source) not in new:
            style = place.styles[number]
            new[id(source)] = _Node(place.section, one.module, list(one.values or []), sources=[source], styles=[style])
            nodes.insert(nodes.index(place), new[id(source)])
    place.sources = [new[id(source)] for source in place.sources]


def _as_row(node: _Node) -> Any:
    """The row as a YAML has it."""
    written = [_written(node, source, style) for source, style in zip(node.sources, node.styles, strict=True)]
    body = [written if node.listed else written[0], node.repeats, node.module, node.args]
    return body if node.name is None else {node.name: body}


def _written(node: _Node, source: _Node | None, style: int | str) -> int | str:
    """How a row names what it reads: by name where it did so, counted back where it did so, else by number."""
    if source is None:
        return IMAGE
    if isinstance(style, int):
        return source.index - node.index if style < 0 else source.index
    if source.name is not None:
        return source.name
    return -1 if source.index == node.index - 1 else source.index
