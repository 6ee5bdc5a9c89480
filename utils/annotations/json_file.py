"""JSON files of other programs: data of any shape until proved otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from utils.errors import DatasetError, first_line


def is_json(file: str | Path) -> bool:
    """Whether a file is taken for JSON, by its suffix."""
    return Path(file).suffix.lower() == ".json"


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DatasetError: when it cannot be read, is no JSON, is nested without end, or does not fit into memory.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: is not UTF-8 text (byte {error.start})") from error
    except RecursionError as error:
        raise DatasetError(f"{file}: is nested too deeply for an annotation file") from error
    except MemoryError as error:
        raise DatasetError(f"{file}: does not fit into memory; split it by images") from error
    except ValueError as error:  # json.JSONDecodeError is one, and so are numbers of thousands of digits
        raise DatasetError(f"{file}: not valid JSON ({first_line(error)})") from error
