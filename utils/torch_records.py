"""What the objects inside a PyTorch file become: plain values, and small records where a tensor or array stands.

:func:`known_names` is the table of :mod:`utils.pickle_reader`: every function and class that a file may name, each with
a function of ours that checks its arguments and gives data. Paths become texts, NumPy scalars numbers.
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from utils.pickle_reader import Buildable, Known, Record, UnreadableError, as_key

NAMESPACE = "argparse.Namespace"
MODULES = "torch.nn.modules"  # where PyTorch keeps its layers

_STORAGES = {
    **{"FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16},
    **{"DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32},
    **{"ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool},
}
# PyTorch's layers that a detector may be made of, by the file below torch/nn/modules.
_LAYERS = {
    "activation": """SiLU ReLU ReLU6 LeakyReLU Hardswish Hardsigmoid Mish GELU ELU CELU SELU PReLU Hardtanh Sigmoid Tanh
        Softplus Softmax MultiheadAttention""",
    "batchnorm": "BatchNorm1d BatchNorm2d SyncBatchNorm",
    "container": "Sequential ModuleList ModuleDict",
    "conv": "Conv1d Conv2d ConvTranspose2d",
    "dropout": "Dropout Dropout2d",
    "flatten": "Flatten",
    "linear": "Identity Linear NonDynamicallyQuantizableLinear _LinearWithBias",
    "normalization": "GroupNorm LayerNorm",
    "padding": "ZeroPad2d",
    "pooling": "AdaptiveAvgPool2d AvgPool2d MaxPool2d",
    "upsampling": "Upsample UpsamplingBilinear2d UpsamplingNearest2d",
}
_WRAPPERS = {"data_parallel": "DataParallel", "distributed": "DistributedDataParallel"}
_OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}
_PATHS = ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
_MOST_DIMENSIONS = 16
_SHOWN = 40  # characters in a message
_LONGEST_PATH = 4096  # characters; systems allow no more, and taking a path apart costs a multiple of its length
_MOST_VALUES, _DEEPEST = 100_000, 50  # numbers and texts of a file, and their levels: genuine ones have 10,000 in 6


@dataclass(frozen=True)
class Storage:
    """Where the values of tensors lie: a numbered part of the file, of a type and a number of values."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, eq=False)
class TensorRecord(Buildable):
    """A tensor whose values have not been read: its place in a storage, counted in values."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self):
        sides = len(self.size)
        fits = sides == len(self.stride) and sides <= _MOST_DIMENSIONS
        if not fits or not all(map(is_count, (self.offset, *self.size, *self.stride))):
            raise UnreadableError("a tensor's size, stride and offset do not belong together")
        steps = ((side - 1) * step for side, step in zip(self.size, self.stride, strict=True))
        if self.values and self.offset + sum(steps) >= self.storage.count:
            raise UnreadableError(f"a tensor of size {self.size} reaches beyond its {self.storage.count} values")

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.storage.dtype

    @property
    def values(self) -> int:
        """Number of values; more than are stored where some count several times."""
        return math.prod(self.size)


class NumpyType(Buildable):
    """A NumPy number type; which end comes first is told after the type itself."""

    def __init__(self, code: Any, *_: Any):
        if not isinstance(code, str) or not re.fullmatch(r"[<>=|]?([iuf][248]|[iu]1|b1)", code):
            shown = code[:_SHOWN] if isinstance(code, str) else type(code).__name__
            raise UnreadableError(f"holds a NumPy value of type {shown}; only numbers can be read")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        """Take the byte order, the second value of the state."""
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise UnreadableError("a NumPy type's description is damaged")
        self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray(Buildable):
    """A NumPy array of numbers; ``array`` is empty until the file has given its content."""

    def __init__(self, *_: Any):
        self.array = np.empty(0)

    def build(self, state: Any) -> None:
        """Take version, shape, type, order and bytes."""
        if type(state) is not tuple or len(state) != 5:
            raise UnreadableError("a NumPy array's description is damaged")
        _, shape, kind, by_columns, content = state
        sound = type(shape) is tuple and len(shape) <= _MOST_DIMENSIONS and all(map(is_count, shape))
        if not sound or not isinstance(kind, NumpyType) or not isinstance(content, bytes):
            raise UnreadableError("a NumPy array's description is damaged")
        if math.prod(shape) * kind.dtype.itemsize != len(content):
            raise UnreadableError(f"a NumPy array of shape {shape} has {len(content)} bytes")
        if content:  # without any, the shape says nothing, and could ask for a billion empty rows
            self.array = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if by_columns else "C")


def as_plain(value: Any) -> Any:
    """A value of a file as dicts, lists, texts and numbers alone; a tensor or object is named in words.

    Raises:
        UnreadableError: when it is nested deeper, or larger, than any setting is.
    """
    return _plain(value, 0, _Allowance())


class _Allowance:
    """How much of a file's values may still be written out: one that is shared counts wherever it is found."""

    def __init__(self) -> None:
        self._left = _MOST_VALUES

    def take(self, values: int, depth: int) -> None:
        self._left -= values
        if self._left < 0 or depth > _DEEPEST:
            raise UnreadableError(f"holds values deeper than {_DEEPEST} levels, or more than {_MOST_VALUES:,} of them")


def _plain(value: Any, depth: int, allowance: _Allowance) -> Any:
    if isinstance(value, Record) and value.type == NAMESPACE:
        value = value.state
    allowance.take(_weight(value), depth)
    if isinstance(value, dict):
        return {_plain_key(key): _plain(item, depth + 1, allowance) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth + 1, allowance) for item in value]
    if isinstance(value, NumpyArray):
        return value.array.tolist()
    if isinstance(value, bytes):
        return value.decode("latin1")
    if value is None or isinstance(value, (str, int, float)):
        return value
    return in_words(value)


def _plain_key(key: Any) -> Any:
    return key if key is None or isinstance(key, (str, int, float)) else in_words(key)


def _weight(value: Any) -> int:
    """What writing a value out costs, the items of a list or dict aside."""
    if isinstance(value, (str, bytes)):
        return 1 + len(value) // 64
    return 1 + value.array.size if isinstance(value, NumpyArray) else 1


def in_words(value: Any) -> str:
    """A tensor or an object of a file, named for people."""
    if isinstance(value, TensorRecord):
        return f"tensor {tuple(value.size)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Record):
        return value.type
    return value.name if isinstance(value, Known) else type(value).__name__


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0 that PyTorch can count to."""
    return type(value) is int and 0 <= value < 1 << 63


def known_names(modules: Iterable[tuple[str, str]], made: list[TensorRecord]) -> dict[tuple[str, str], Known]:
    """What a PyTorch file may name, for :class:`utils.pickle_reader.PickleReader`.

    Args:
        modules: classes, as (module, name), of layers beyond PyTorch's own; their instances become records.
        made: gets every tensor of the file as it is read.
    """
    records = [(NAMESPACE.rpartition(".")[0], "Namespace"), *modules]
    records += [(f"{MODULES}.{file}", name) for file, names in _LAYERS.items() for name in names.split()]
    records += [(f"torch.nn.parallel.{file}", name) for file, name in _WRAPPERS.items()]
    records += [(f"torch.optim.{file}", name) for file, name in _OPTIMIZERS.items()]
    table = {place: _record(".".join(place)) for place in records}
    functions = {**_FUNCTIONS, **dict.fromkeys(_TENSOR_FUNCTIONS, lambda *parts: _tensor_of(made, *parts))}
    for name, call in functions.items():
        module, _, function = name.rpartition(".")
        table[module, function] = Known(name, call)
    table |= {("torch", name): Known(name) for name in _STORAGES}
    table |= {("torch", name): Known(name) for name in _DTYPES}
    table |= {
        (module, name): Known(name, _path_of(name)) for module in ("pathlib", "pathlib._local") for name in _PATHS
    }
    return table


def _record(name: str) -> Known:
    return Known(name, new=lambda: Record(name))


def storage_of(reference: Any) -> Storage:
    """The storage that a reference out of the object description means.

    Raises:
        UnreadableError: when it is none.
    """
    if type(reference) is not tuple or len(reference) not in (5, 6) or reference[0] != "storage":
        raise UnreadableError("refers to something other than values of tensors")
    _, kind, key, _, count, *view = reference
    if not isinstance(kind, Known) or kind.name not in _STORAGES or not isinstance(key, str) or not is_count(count):
        raise UnreadableError("refers to the values of a tensor in a way that PyTorch does not")
    if view and view[0] is not None:
        raise UnreadableError("holds a part of a storage; load and save it again with PyTorch 1.6 or newer")
    return Storage(key, _STORAGES[kind.name], count)


def _dict_of(pairs: Any = ()) -> dict[Any, Any]:
    return {as_key(key): value for key, value in pairs}


def _dict_with_default(factory: Any = None) -> dict[Any, Any]:
    return {}


def _set_of(items: Any = ()) -> set[Any]:
    return {as_key(item) for item in items}


def _bytes_of(text: str, encoding: str) -> bytes:
    if encoding != "latin1" or not isinstance(text, str):
        raise UnreadableError("encodes text in a way that no checkpoint does")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


def _path_of(kind: str) -> Callable[..., str]:
    """What reads the paths of a class."""
    flavour = pathlib.PureWindowsPath if "Windows" in kind else pathlib.PurePosixPath

    def path(*parts: Any) -> str:
        if not all(isinstance(part, str) for part in parts) or sum(map(len, parts)) > _LONGEST_PATH:
            raise UnreadableError("a path is too long, or not made of texts")
        return str(flavour(*parts))

    return path


def _size_of(items: Any = ()) -> tuple[Any, ...]:
    if type(items) is not tuple:
        raise UnreadableError("a size is no tuple")
    return items


def _device_of(kind: str, index: int | None = None) -> str:
    if not isinstance(kind, str) or not (index is None or is_count(index)):
        raise UnreadableError("a device's description is damaged")
    return kind if index is None else f"{kind}:{index}"


def _tensor_of(made: list[TensorRecord], storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRecord:
    if not isinstance(storage, Storage) or type(size) is not tuple or type(stride) is not tuple:
        raise UnreadableError("a tensor's description is damaged")
    made.append(TensorRecord(storage, offset, size, stride))
    return made[-1]


def _parameter_of(tensor: Any, *_: Any) -> TensorRecord:
    if not isinstance(tensor, TensorRecord):
        raise UnreadableError("a parameter is no tensor")
    return tensor


def _tensor_of_class(function: Any, cls: Any, arguments: Any, state: Any) -> TensorRecord:
    """A tensor or parameter that was given attributes, which nothing here reads."""
    if not isinstance(function, Known) or function.name not in _TENSOR_FUNCTIONS or type(arguments) is not tuple:
        raise UnreadableError("a tensor's description is damaged")
    return function.call(*arguments)


def _scalar_of(kind: Any, content: Any) -> int | float | bool:
    if not isinstance(kind, NumpyType) or not isinstance(content, bytes) or len(content) != kind.dtype.itemsize:
        raise UnreadableError("a NumPy number's description is damaged")
    return np.frombuffer(content, kind.dtype)[0].item()


_DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"),
    *("Tensor", "strided", "contiguous_format"),
)
_TENSOR_FUNCTIONS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_FUNCTIONS = {
    "collections.OrderedDict": _dict_of,
    "collections.defaultdict": _dict_with_default,
    **{f"{module}.{name}": call for module in ("builtins", "__builtin__") for name, call in (
        ("set", _set_of), ("frozenset", _set_of), ("dict", _dict_of), ("bytes", _empty_bytes),
    )},
    "_codecs.encode": _bytes_of,
    "torch.Size": _size_of,
    "torch.device": _device_of,
    "torch.nn.parameter.Parameter": None,
    "torch._utils._rebuild_parameter": _parameter_of,
    "torch._utils._rebuild_parameter_with_state": _parameter_of,
    "torch._tensor._rebuild_from_type_v2": _tensor_of_class,
    "numpy.ndarray": None,
    "numpy.dtype": NumpyType,
    **{f"numpy.{core}.multiarray.{name}": call for core in ("core", "_core") for name, call in (
        ("scalar", _scalar_of), ("_reconstruct", NumpyArray),
    )},
}  # fmt: skip
