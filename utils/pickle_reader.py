"""Reading a pickle as data: nothing that it names is imported, looked up or called.

The standard library's disassembler cuts the stream into instructions; this module carries out the few that PyTorch
writes, on plain values, and refuses the rest. What a file calls a function or class is a :class:`Known`, found in the
reader's table and nowhere else: an entry says which function of ours stands in for it.

Why no subclass of ``pickle.Unpickler``: whatever its ``find_class`` returns can still be called, built and given
attributes by the file; an instruction of five bytes makes it allocate gigabytes; and a tuple nested deep enough, used
as the key of a dict, ends the process. Here each of these is an error.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

MOST_INSTRUCTIONS = 1_000_000  # a file with yolov5x6, its average and its optimizer has 230,000
_MOST_COPIED = 64 << 20  # bytes, about, that calls and states may copy; that file copies 4 MB
_BYTES_OF_ITEM = 64
_LARGEST_BITS = 128  # of a number; PyTorch's own go up to 77
_LARGEST_KEY_BITS = 60  # from 61 on, numbers can be chosen that all hash alike, and a dict of them takes hours
_SIMPLE = (str, bytes, int, float, bool, type(None))

Lookup = Mapping[tuple[str, str], "Known"]


class UnreadableError(ValueError):
    """The stream is damaged, or says what no checkpoint says."""


class UnknownNameError(Exception):
    """The stream asks for a Python object that is not in the reader's table."""

    def __init__(self, module: str, name: str):
        super().__init__(f"{module}.{name}")
        self.module, self.name = module, name


@dataclass(frozen=True, eq=False)
class Known:
    """What stands for a function or class that a stream may name.

    Attributes:
        name: how messages call it.
        call: what gives the result when the stream calls it; None when it must not be called.
        new: what gives an object when the stream makes an instance without arguments; None alike.
    """

    name: str
    call: Callable[..., Any] | None = None
    new: Callable[[], Buildable] | None = None


class Buildable:
    """A value that the stream may fill in after it has been made."""

    def build(self, state: Any) -> None:
        """Take the state that the stream gives.

        Raises:
            UnreadableError: when it is of the wrong kind.
        """
        raise UnreadableError(f"gives a state to {type(self).__name__}, which has none")


@dataclass(eq=False, repr=False)
class Record(Buildable):
    """An object of the stream: the name of its class, and its attributes as plain values."""

    type: str
    state: dict[str, Any] = field(default_factory=dict)

    def build(self, state: Any) -> None:
        """Take the attributes."""
        if type(state) is not dict or not all(isinstance(key, str) for key in state):
            raise UnreadableError(f"the attributes of {self.type} are no dict")
        self.state.update(state)


def as_key(value: Any) -> Any:
    """A value that may be an entry of a set or the key of a dict: hashing it takes no time and no stack.

    Raises:
        UnreadableError: for any other.
    """
    if not isinstance(value, (*_SIMPLE, Buildable)):
        raise UnreadableError(f"uses a {type(value).__name__} as a key")
    if isinstance(value, int) and value.bit_length() > _LARGEST_KEY_BITS:
        raise UnreadableError(f"uses a number of {value.bit_length()} bits as a key")
    return value


class PickleReader:
    """Carries out one pickle.

    Args:
        stream: read up to the end of the pickle; its ``read`` must not give more than is there.
        known: the functions and classes that the pickle may name, by (module, name).
        persistent: turns what the pickle refers to outside of it into a value; None refuses such references.
    """

    def __init__(self, stream: IO[bytes], known: Lookup, persistent: Callable[[Any], Any] | None = None):
        self._stream, self._known, self._persistent = stream, known, persistent
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []  # stacks put aside, the innermost last
        self._memo: dict[int, Any] = {}
        self._copied = 0

    def read(self) -> Any:
        """The value that the pickle describes. It may contain itself.

        Raises:
            UnknownNameError: when the pickle names what is not in the table.
            UnreadableError: when it is damaged or holds instructions that PyTorch does not write.
        """
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(self._stream)):
                step = _STEPS.get(opcode.name)
                if step is None:
                    raise UnreadableError(f"holds the instruction {opcode.name}, which PyTorch does not write")
                if count > MOST_INSTRUCTIONS:
                    raise UnreadableError(f"holds more than {MOST_INSTRUCTIONS:,} instructions")
                step(self, argument)
        except UnreadableError:
            raise
        except (ValueError, LookupError, TypeError, OverflowError, struct.error) as error:
            raise UnreadableError(f"the object description is damaged: {error}") from error
        if len(self._stack) != 1 or self._marks:
            raise UnreadableError("the object description is damaged: it ends early")
        return self._stack[0]

    def _pop(self) -> Any:
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        """What the following items go into; of exactly this kind."""
        target = self._stack[-1]
        if type(target) is not kind:
            raise UnreadableError(f"puts items into a {type(target).__name__}")
        return target

    def _nothing(self, _: Any) -> None:
        """Protocol number, frame, end."""

    def _push(self, value: Any) -> None:
        if type(value) is int and value.bit_length() > _LARGEST_BITS:
            raise UnreadableError(f"holds a whole number of {value.bit_length():,} bits")
        self._stack.append(value)

    def _mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _tuple(self, count: int | None) -> None:
        if count is None:
            self._push(tuple(self._since_mark()))
        elif len(self._stack) < count:
            raise UnreadableError("the object description is damaged: too few items for a tuple")
        else:
            split = len(self._stack) - count
            self._stack[split:] = [tuple(self._stack[split:])]

    def _append(self, _: Any) -> None:
        item = self._pop()
        self._top(list).append(item)

    def _appends(self, _: Any) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._top(dict)[as_key(key)] = value

    def _set_items(self, _: Any) -> None:
        items = self._since_mark()
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[as_key(key)] = value

    def _add_items(self, _: Any) -> None:
        items = self._since_mark()
        self._top(set).update(map(as_key, items))

    def _frozen_set(self, _: Any) -> None:
        self._push(frozenset(map(as_key, self._since_mark())))

    def _memoize(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _recall(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _global(self, text: str) -> None:
        module, _, name = text.partition(" ")
        self._find(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise UnreadableError("names an object by something other than text")
        self._find(module, name)

    def _find(self, module: str, name: str) -> None:
        known = self._known.get((module, name))
        if known is None:
            raise UnknownNameError(module, name)
        self._stack.append(known)

    def _reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Known) or function.call is None or type(arguments) is not tuple:
            raise UnreadableError(f"calls {_named(function)}, which is no function that a checkpoint calls")
        for value in (arguments, *arguments):
            self._count_copy(value)
        self._push(function.call(*arguments))

    def _new(self, _: Any) -> None:
        arguments, cls = self._pop(), self._pop()
        if not isinstance(cls, Known) or cls.new is None or type(arguments) is not tuple or arguments:
            raise UnreadableError(f"makes an instance of {_named(cls)} in a way that no checkpoint does")
        self._stack.append(cls.new())

    def _build(self, _: Any) -> None:
        state, target = self._pop(), self._stack[-1]
        self._count_copy(state)
        if type(target) is dict:  # an OrderedDict of PyTorch's has a note about versions as an attribute
            return
        if not isinstance(target, Buildable):
            raise UnreadableError(f"gives a state to {_named(target)}, which has none")
        target.build(state)

    def _count_copy(self, value: Any) -> None:
        if isinstance(value, (str, bytes)):
            self._copied += len(value)
        elif isinstance(value, (list, tuple, dict, set, frozenset)):
            self._copied += _BYTES_OF_ITEM * len(value)
        if self._copied > _MOST_COPIED:
            raise UnreadableError(f"copies more than {_MOST_COPIED:,} bytes of itself")

    def _refer(self, _: Any) -> None:
        if self._persistent is None:
            raise UnreadableError("refers to data where there is none")
        self._push(self._persistent(self._pop()))


def _named(value: Any) -> str:
    return value.name if isinstance(value, Known) else f"a {type(value).__name__}"


_STEPS: dict[str, Callable[[PickleReader, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), PickleReader._nothing),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), PickleReader._push),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"), PickleReader._push),
    "NONE": lambda reader, _: reader._push(None),
    "NEWTRUE": lambda reader, _: reader._push(True),
    "NEWFALSE": lambda reader, _: reader._push(False),
    "EMPTY_TUPLE": lambda reader, _: reader._push(()),
    "EMPTY_LIST": lambda reader, _: reader._push([]),
    "EMPTY_DICT": lambda reader, _: reader._push({}),
    "EMPTY_SET": lambda reader, _: reader._push(set()),
    "TUPLE1": lambda reader, _: reader._tuple(1),
    "TUPLE2": lambda reader, _: reader._tuple(2),
    "TUPLE3": lambda reader, _: reader._tuple(3),
    "TUPLE": lambda reader, _: reader._tuple(None),
    "MARK": PickleReader._mark,
    "APPEND": PickleReader._append,
    "APPENDS": PickleReader._appends,
    "SETITEM": PickleReader._set_item,
    "SETITEMS": PickleReader._set_items,
    "ADDITEMS": PickleReader._add_items,
    "FROZENSET": PickleReader._frozen_set,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), PickleReader._memoize),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), PickleReader._recall),
    "GLOBAL": PickleReader._global,
    "STACK_GLOBAL": PickleReader._stack_global,
    "REDUCE": PickleReader._reduce,
    "NEWOBJ": PickleReader._new,
    "BUILD": PickleReader._build,
    "BINPERSID": PickleReader._refer,
}
