"""The options of a run or an evolution that goes on: those it was started with, but for the few that may change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, TypeVar

from engine.options.base import Options
from utils.errors import ConfigError, OptionError
from utils.log import LOGGER

Command = TypeVar("Command", bound=Options)


def continued_options(
    asked: Command,
    stored: Mapping[str, Any],
    *,
    changeable: Set[str],
    ignored: Set[str],
    file: Path,
    what: str,
) -> Command:
    """The stored options, with what the command asks to be different as far as it may be; a warning names the rest.

    Args:
        asked: the command that goes on.
        stored: option values by name; entries that are no options are passed over.
        changeable: names of the options that may differ.
        ignored: names of options that say which one goes on and where it is; they stay as stored, without a warning.
        file: where ``stored`` is from, for messages.
        what: the word for what goes on, for messages, such as ``run``.

    Raises:
        ConfigError: when a stored option is wrong, or the options make no sense together.
    """
    known = {field.name for field in dataclasses.fields(asked)}
    kept = {name: value for name, value in stored.items() if name in known}
    wanted = {name: getattr(asked, name) for name in asked.given - ignored}
    for name in sorted(wanted.keys() - changeable):
        if wanted[name] != kept.get(name):
            LOGGER.warning(f"{asked.flag_of(name)} {wanted[name]}: left out, the {what} goes on with its own")
    changes = {name: value for name, value in wanted.items() if name in changeable}
    try:
        return type(asked).from_kwargs(**{**kept, **changes})
    except OptionError as error:
        raise ConfigError(f"{file}: {error}") from error
