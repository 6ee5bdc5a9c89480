"""From a dataclass to a command line: one field is one flag, one keyword of ``run()`` and one line of ``opt.yaml``."""

from __future__ import annotations

import argparse
import dataclasses
import numbers
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from utils.errors import OptionError, did_you_mean


def flag(
    default: Any,
    help: str,  # noqa: A002 - argparse's word, and the one a reader looks for
    *,
    names: tuple[str, ...] = (),
    later: str | None = None,
    **settings: Any,
) -> Any:
    """Declare a field that is also a command-line flag.

    Args:
        default: value when the flag is not given; its type is the flag's type (None means text).
            False makes a switch without a value; a list is copied for each use.
        help: one line for ``--help``.
        names: flag names; derived from the field's name when omitted.
        later: set for a flag that is accepted but not working yet: what it would do. Using it is an error.
        **settings: passed on to ``argparse.add_argument`` (``type``, ``nargs``, ``const``, ``choices``, ...).
    """
    metadata = {"help": help, "names": names, "later": later, "settings": settings}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass
class Options:
    """Base of each command's options; subclasses only list fields.

    Attributes:
        given: names of the options that the caller named, on the command line or as keywords.
    """

    def __post_init__(self) -> None:
        self.given: frozenset[str] = frozenset()

    @classmethod
    def parse(
        cls,
        argv: Sequence[str] | None = None,
        description: str | None = None,
        *,
        ignore_unknown: bool = False,
        prog: str | None = None,
    ) -> Self:
        """Read a command line; a wrong one prints what is wrong and exits with code 2.

        Args:
            argv: arguments; those of this process when None.
            description: first lines of the help.
            ignore_unknown: pass over arguments that are no flags of this command.
            prog: the command's name in help and errors; the script's when None.
        """
        parser, bare = cls.parser(description, prog=prog), cls.parser(description, defaults=False, prog=prog)
        read = type(parser).parse_known_args if ignore_unknown else _parse_all
        options = cls(**vars(read(parser, argv)[0]))
        options.given = frozenset(vars(read(bare, argv)[0]))
        try:
            options.validate()
        except OptionError as error:
            parser.exit(2, f"{parser.prog}: error: {error}\n")
        return options

    @classmethod
    def parser(
        cls, description: str | None = None, defaults: bool = True, prog: str | None = None
    ) -> argparse.ArgumentParser:
        """The argparse parser that the fields describe.

        Args:
            description: first lines of the help.
            defaults: False leaves out of its result what the command line does not name.
            prog: the command's name; the script's when None.
        """
        parser = argparse.ArgumentParser(
            prog=prog, description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        for field in cls._flags():
            _add_argument(parser, field, _default_of(field) if defaults else argparse.SUPPRESS)
        return parser

    @classmethod
    def from_kwargs(cls, **kwargs: Any) -> Self:
        """Build from keywords, as ``run(**kwargs)`` receives them.

        Raises:
            OptionError: when a keyword is unknown (with the closest known ones) or asks for what does not work yet.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name in kwargs:
            if name not in known:
                hint = did_you_mean(name, known)
                raise OptionError(f"unknown option {name!r}{'; ' * bool(hint)}{hint}")
        options = cls(**{name: _as_on_command_line(known[name], value) for name, value in kwargs.items()})
        options.given = frozenset(kwargs)
        options.validate()
        return options

    def validate(self) -> None:
        """Check values against each other; subclasses extend it.

        Raises:
            OptionError: naming the flag.
        """
        for field in dataclasses.fields(self):
            _check_numbers(field, getattr(self, field.name))
            later = field.metadata.get("later")
            if later and getattr(self, field.name) != _default_of(field):
                raise OptionError(f"{_flag_names(field)[0]} ({later}) is not available yet")

    def _require(self, holds: bool, name: str, expected: str) -> None:
        """Refuse a field's value, as an OptionError that names the flag, unless a condition holds."""
        if not holds:
            raise OptionError(f"--{name.replace('_', '-')} {getattr(self, name)!r}: expected {expected}")

    def _require_from(self, low: int, *names: str) -> None:
        """Refuse fields below a number."""
        for name in names:
            self._require(getattr(self, name) >= low, name, f"a number from {low}")

    def _require_share(self, *names: str) -> None:
        """Refuse fields outside 0..1."""
        for name in names:
            self._require(0 <= getattr(self, name) <= 1, name, "a number from 0 to 1")

    @classmethod
    def _flags(cls) -> list[dataclasses.Field]:
        """The fields in the order of their flags: those that a class adds stand before those that it inherits."""
        distance = {}  # from this class to the one that adds a field
        for steps, origin in enumerate(cls.__mro__):
            distance |= dict.fromkeys(getattr(origin, "__dataclass_fields__", ()), steps)
        return sorted(dataclasses.fields(cls), key=lambda field: distance[field.name])

    @classmethod
    def flag_of(cls, name: str) -> str:
        """The flag of a field, such as ``--batch-size``."""
        return next(_flag_names(field)[0] for field in dataclasses.fields(cls) if field.name == name)

    def command_line(self, *words: str) -> str:
        """The command that has these options, as one would type it.

        Args:
            *words: what it begins with, such as ``python``, ``train.py``.
        """
        typed = list(words)
        for field in self._flags():
            value = getattr(self, field.name)
            if value == _default_of(field):
                continue
            name, settings = _flag_names(field)[0], field.metadata["settings"]
            typed.append(name.replace("--", "--no-", 1) if value is False else name)
            if not isinstance(value, bool) and ("const" not in settings or value != settings["const"]):
                typed += [str(one) for one in (value if isinstance(value, (list, tuple)) else [value])]
        return shlex.join(typed)

    def to_dict(self) -> dict[str, Any]:
        """All options by name, for ``opt.yaml`` and checkpoints."""
        return dataclasses.asdict(self)


def _parse_all(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    return parser.parse_args(argv), []


def _default_of(field: dataclasses.Field) -> Any:
    return field.default_factory() if field.default is dataclasses.MISSING else field.default


def _flag_names(field: dataclasses.Field) -> tuple[str, ...]:
    return field.metadata["names"] or (f"--{field.name.replace('_', '-')}",)


def _as_on_command_line(field: dataclasses.Field, value: Any) -> Any:
    """A keyword's value as the command line would have given it.

    Paths and devices become text, a single value a list where the flag takes several, and True what a flag means that
    stands without its value.
    """
    default, settings = _default_of(field), field.metadata["settings"]
    if settings.get("nargs") == "?" and isinstance(value, bool):
        return settings["const"] if value else default
    if isinstance(default, list) or settings.get("nargs") == "+":
        if value is None:
            return default
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        return [str(one) if isinstance(one, Path) else one for one in values]
    if isinstance(value, Path) or (isinstance(default, str) and _is_single(value)):
        return str(value)
    return value


def _is_single(value: Any) -> bool:
    """Whether a value is no collection, and not nothing."""
    return value is not None and not isinstance(value, (bool, Mapping, list, tuple))


def _check_numbers(field: dataclasses.Field, value: Any) -> None:
    """Refuse what is no number where a number belongs; argparse has done so for a command line."""
    default = _default_of(field)
    several = isinstance(default, list) or field.metadata["settings"].get("nargs") == "+"
    kind = field.metadata["settings"].get("type") or type(default[0] if isinstance(default, list) else default)
    wanted = {int: (numbers.Integral, "a whole number"), float: (numbers.Real, "a number")}.get(kind)
    if value is None and default is None:
        return
    if isinstance(default, bool) and "nargs" not in field.metadata["settings"] and not isinstance(value, bool):
        raise OptionError(f"{_flag_names(field)[0]} {value!r}: expected True or False")
    if isinstance(default, str) and value is None:
        raise OptionError(f"{_flag_names(field)[0]} None: expected a text")
    if wanted is None:
        return
    for one in value if several and isinstance(value, (list, tuple)) else [value]:
        if isinstance(one, bool) or not isinstance(one, wanted[0]):
            raise OptionError(f"{_flag_names(field)[0]} {value!r}: expected {wanted[1]}{' each' if several else ''}")


def _add_argument(parser: argparse.ArgumentParser, field: dataclasses.Field, shown: Any) -> None:
    default, settings = _default_of(field), dict(field.metadata["settings"])
    text = field.metadata["help"].replace("%", "%%")
    if field.metadata["later"]:
        text += " (not available yet)"
    if default is False and "nargs" not in settings:
        settings.setdefault("action", "store_true")
    elif "action" not in settings and "type" not in settings:
        sample = default[0] if isinstance(default, list) and default else default
        settings["type"] = str if sample is None or isinstance(sample, (bool, list)) else type(sample)
    if isinstance(default, list):
        settings.setdefault("nargs", "+")
    parser.add_argument(*_flag_names(field), dest=field.name, default=shown, help=text, **settings)
