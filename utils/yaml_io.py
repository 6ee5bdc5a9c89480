"""YAML files in and out. YAML is data: only plain values, nothing is ever constructed or run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from utils.atomic import replacing
from utils.errors import ConfigError, first_line


def yaml_load(file: str | Path = "data.yaml") -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ConfigError: when the file cannot be read, is no valid YAML, or is not a mapping; names file and line.
    """
    path = Path(file)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8", errors="strict"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or first_line(error)
        raise ConfigError(f"{where}: not valid YAML ({reason})") from error
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
