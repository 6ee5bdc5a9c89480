"""What a weights file holds, in words: of this project, of YOLOv5, or any other that PyTorch has written.

Tensors are counted, not read, and no network is built, so this also tells about files that cannot be used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.pickled_network import find_networks, own_classes
from utils.errors import CheckpointError, first_line
from utils.pickle_reader import Record, UnreadableError
from utils.torch_file import TorchFile
from utils.torch_records import TensorRecord, as_plain, in_words

Row = tuple[str, str]  # what is told, and the words

_LONGEST, _LONGEST_VALUE = 2000, 100  # characters of a row, and of a setting in it
_SHOWN_NAMES = 20
_SHOWN_APART = ("model", "ema", "meta", "format")  # parts of a checkpoint that rows of their own tell about


def summarise(path: str | Path, tensors: bool = False) -> list[Row]:
    """Describe a weights file; nothing in it can run code.

    Args:
        path: the file.
        tensors: a row for each tensor, too.

    Raises:
        CheckpointError: when it is missing, damaged, no PyTorch file, or asks for objects that no checkpoint needs.
    """
    source = Path(path)
    with TorchFile(source, own_classes()) as file:
        form = "zip archive" if file.is_archive else "the form before PyTorch 1.6"
        rows = [("file", f"{source} ({source.stat().st_size:,} bytes, {form})")]
        try:
            return rows + _rows(file.content, tensors)
        except UnreadableError as error:
            raise CheckpointError(f"{source}: {first_line(error)}") from error


def _rows(content: Any, tensors: bool) -> list[Row]:
    as_plain(content)  # bounds what the rows below go through, however often its parts are shared
    networks = find_networks(content)
    parts = content if isinstance(content, dict) else {"content": content}
    meta = parts.get("meta")
    states = {key: network.tensors for key, network in networks.items()}
    if networks:
        kind, told = "YOLOv5's own: whole modules", networks["model"]
        names, yaml = told.names, told.yaml
    elif isinstance(meta, dict) and "format" in parts:
        kind = f"this project's, format {as_plain(parts['format'])}"
        names, yaml = as_plain(meta.get("names")), as_plain(meta.get("yaml"))
    else:
        kind, names, yaml = "plain data, no checkpoint of a detector", None, None
    if not networks:
        candidates = {**{str(key): value for key, value in parts.items()}, "content": content}
        states = {key: value for key, value in candidates.items() if _is_state_dict(value)}
    rows = [("kind", kind)]
    rows += [(key, _counted(state)) for key, state in states.items()]
    rows += _about_network(names, yaml)
    rows += [
        (str(key), _described(value))
        for key, value in parts.items()
        if key not in states and not (key in _SHOWN_APART and (networks or meta is not None))
    ]
    if tensors:
        rows += [
            (f"{key}: {name}", in_words(record)) for key, state in states.items() for name, record in state.items()
        ]
    return [(_one_line(key), _one_line(words)) for key, words in rows]


def _is_state_dict(value: Any) -> bool:
    """Whether a part of a file is a dict of tensors, a few other values aside."""
    return isinstance(value, dict) and bool(value) and all(isinstance(item, TensorRecord) for item in value.values())


def _counted(state: Mapping[Any, TensorRecord]) -> str:
    values = sum(record.values for record in state.values())
    size = sum(record.values * record.dtype.itemsize for record in state.values())
    types = Counter(str(record.dtype).removeprefix("torch.") for record in state.values())
    listed = ", ".join(name if len(types) == 1 else f"{count} {name}" for name, count in types.most_common())
    return f"{len(state)} tensors of {values:,} values, {size / 1e6:,.1f} MB ({listed})"


def _about_network(names: Any, yaml: Any) -> list[Row]:
    rows = []
    if isinstance(names, dict):
        shown = ", ".join(f"{index} {name}" for index, name in list(names.items())[:_SHOWN_NAMES])
        rows.append(("classes", f"{len(names)}: {shown}{', ...' if len(names) > _SHOWN_NAMES else ''}"))
    if isinstance(yaml, dict):
        layers = [row for key in ("backbone", "head") if isinstance(yaml.get(key), list) for row in yaml[key]]
        settings = {key: value for key, value in yaml.items() if key not in ("backbone", "head")}
        rows.append(("network", f"{len(layers)} rows; {_joined(settings)}"))
    return rows


def _described(value: Any) -> str:
    """A part of a file that is neither a network nor about one."""
    if isinstance(value, dict) and "param_groups" in value:
        return f"state dict, moments of {len(value.get('state') or ())} tensors"
    if isinstance(value, Record) and "param_groups" in value.state:
        return f"a whole {value.type}"
    plain = as_plain(value)
    return _joined(plain) if isinstance(plain, dict) else str(plain)


def _joined(settings: Mapping[Any, Any]) -> str:
    return ", ".join(f"{key}={value!s:.{_LONGEST_VALUE}}" for key, value in settings.items()) or "empty"


def _one_line(text: str) -> str:
    """Text out of a file without anything that a terminal would act on."""
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return "".join(letter if letter.isprintable() else " " for letter in cut).strip()
