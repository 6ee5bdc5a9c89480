"""Files that try to run something, to hang, to fill the memory or to crash whoever reads them as a checkpoint."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CANARY = "canary"  # what a file that gets anything to run leaves in the current folder
_TOUCH = f"open('{CANARY}', 'w')"


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def archive(path: Path, description: bytes, compression: int = zipfile.ZIP_STORED, **parts: bytes) -> None:
    """An archive as PyTorch writes it, with an object description and parts of any content."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("a/data.pkl", description)
        file.writestr("a/version", b"3\n")
        for name, content in parts.items():
            file.writestr(f"a/data/{name.removeprefix('part')}", content)


def saved(content: Any) -> Callable[[Path], None]:
    """What torch.save makes of a content."""
    return lambda path: torch.save(content, path)


def described(description: bytes) -> Callable[[Path], None]:
    """An archive with this object description alone."""
    return lambda path: archive(path, description)


def calling(module: str, name: str, *arguments: Any) -> Callable[[Path], None]:
    """A description that calls a function of any name, which need not be here."""
    return described(b"\x80\x02" + named(module, name) + pickle.dumps(arguments, 2)[2:-1] + b"R.")


def named(module: str, name: str) -> bytes:
    """The instruction that asks for a Python object."""
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    """The instruction that gives a text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def tensor(size: bytes, stride: bytes, count: bytes = b"K\x04") -> bytes:
    """The description of a dict with a tensor that has 4 float32 values in the part ``0``, unless ``count`` lies."""
    storage = b"(" + text("storage") + named("torch", "FloatStorage") + text("0") + text("cpu") + count + b"tQ"
    arguments = b"(" + storage + b"K\x00" + size + stride + b"\x89" + named("collections", "OrderedDict") + b")Rt"
    return (
        b"\x80\x02}"
        + text("model")
        + b"}"
        + text("w")
        + named("torch._utils", "_rebuild_tensor_v2")
        + arguments
        + b"Rss."
    )


def holding(description: bytes) -> Callable[[Path], None]:
    """An archive with a part ``0`` of 4 values."""
    return lambda path: archive(path, description, part0=struct.pack("<4f", 1, 2, 3, 4))


def nested(path: Path) -> None:
    """An archive around an archive."""
    inner = io.BytesIO()
    torch.save({"model": Calls(eval, _TOUCH)}, inner)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("inner.pt", inner.getvalue())


def nested_as_description(path: Path) -> None:
    """An archive whose object description is an archive."""
    inner = io.BytesIO()
    torch.save({"model": Calls(eval, _TOUCH)}, inner)
    archive(path, inner.getvalue())


def cut(share: float, zipped: bool = True) -> Callable[[Path], None]:
    """A file that ends early."""

    def write(path: Path) -> None:
        stream = io.BytesIO()
        torch.save({"model": {"w": torch.ones(1000)}}, stream, _use_new_zipfile_serialization=zipped)
        path.write_bytes(stream.getvalue()[: int(len(stream.getvalue()) * share)])

    return write


def bomb(path: Path) -> None:
    """An archive of a few kilobytes that unpacks to gigabytes; cheaply made: 4 MiB stand for them."""
    archive(path, tensor(b"K\x04\x85", b"K\x01\x85"), zipfile.ZIP_DEFLATED, part0=bytes(4 << 20))


def lying_directory(path: Path) -> None:
    """An archive whose directory declares a part of almost 4 GB."""
    archive(path, tensor(b"K\x04\x85", b"K\x01\x85", b"\x8a\x04\x00\x00\x00\x3c"), part0=bytes(16))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"a/data/0"))
    content[entry + 20 : entry + 28] = struct.pack("<II", 0xF0000000, 0xF0000000)
    path.write_bytes(content)


def twice(path: Path) -> None:
    """An archive with two object descriptions, of which readers may choose either."""
    archive(path, b"\x80\x02}.")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("a/data.pk_", pickle.dumps(Calls(eval, _TOUCH), 2))
    path.write_bytes(path.read_bytes().replace(b"a/data.pk_", b"a/data.pkl"))


def tape(path: Path) -> None:
    """The oldest form, a tar archive, whose readers unpickle three parts."""
    with tarfile.open(path, "w") as file:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(Calls(eval, _TOUCH), 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))


def stream(path: Path) -> None:
    """The form before PyTorch 1.6 with a call inside."""
    torch.save({"model": Calls(eval, _TOUCH)}, path, _use_new_zipfile_serialization=False)


def bare(path: Path) -> None:
    """No PyTorch file at all: a pickle."""
    path.write_bytes(pickle.dumps(Calls(eval, _TOUCH), 2))


def stream_of_terabytes(path: Path) -> None:
    """The older form, declaring a tensor for which no memory would do."""
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(4)}, buffer, _use_new_zipfile_serialization=False)
    path.write_bytes(buffer.getvalue().replace(b"K\x04Nt", b"\x8a\x06\0\0\0\0\0\x40Nt"))


_DEEP = 300_000  # levels; hashing a tuple so deep ends a Python process
_LAUGHS = b"]" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(45))  # 2 ** 45 lists, most of them the same

# name -> what writes the file, and words of the line that refuses it
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "os.system": (calling("posix", "system", f"touch {CANARY}"), "posix.system"),
    "subprocess": (calling("subprocess", "Popen", ["touch", CANARY]), "subprocess.Popen"),
    "eval": (saved({"model": Calls(eval, _TOUCH)}), "eval"),
    "exec as a key": (saved({Calls(exec, _TOUCH): 1}), "exec"),
    "getattr": (calling("builtins", "getattr", 1, "real"), "builtins.getattr"),
    "getattr chain": (
        described(
            b"\x80\x02" + named("builtins", "getattr") + b"(" + named("builtins", "getattr") + b"("
            + named("torch", "nn") + text("os") + b"tR" + text("system") + b"tR(" + text(f"touch {CANARY}") + b"tR."
        ),
        "builtins.getattr",
    ),
    "dotted name": (described(b"\x80\x04\x8c\x05torch\x8c\x08hub.load\x93)R."), "torch.hub.load"),
    "import": (calling("builtins", "__import__", "os"), "__import__"),
    "partial": (calling("functools", "partial", 1), "functools.partial"),
    "torch.load": (calling("torch", "load", "other.pt"), "torch.load"),
    "torch.hub.load": (calling("torch.hub", "load", "a/b", "c"), "torch.hub.load"),
    "bytes loader": (calling("torch.storage", "_load_from_bytes", b"x"), "_load_from_bytes"),
    "layer of no detector": (saved({"model": torch.nn.LSTM(1, 1)}), "LSTM"),
    "ultralytics": (calling("ultralytics.nn.tasks", "DetectionModel"), "ultralytics package"),
    "numpy.load": (calling("numpy", "load", "other.npy"), "numpy.load"),
    "name with a control character": (calling("os\x1b[2J", "system", 1), "os?[2J.system"),
    "calls a text": (described(b"\x80\x02" + text("os.system") + b")R."), "calls a str"),
    "calls a type": (described(b"\x80\x02" + named("torch", "float32") + b")R."), "calls float32"),
    "calls a layer": (described(b"\x80\x02" + named("torch.nn.modules.conv", "Conv2d") + b")R."), "Conv2d"),
    "arguments that do not fit": (calling("torch._utils", "_rebuild_tensor_v2", 1), "damaged"),
    "state of a class": (
        described(b"\x80\x02" + named("collections", "OrderedDict") + b"N}" + text("call") + b"K\x01s\x86b."),
        "gives a state to collections.OrderedDict",
    ),
    "slots of a layer": (
        described(
            b"\x80\x02" + named("torch.nn.modules.conv", "Conv2d") + b")\x81N}" + text("__class__") + b"K\x01s\x86b."
        ),
        "no dict",
    ),
    "setstate in a state": (
        described(
            b"\x80\x02}" + text("model") + named("models.yolo", "Model") + b")\x81}" + text("__setstate__")
            + named("collections", "OrderedDict") + b"s" + b"b}bs."
        ),
        "no `yaml`",
    ),
    "extension": (described(b"\x80\x02\x82\x01."), "EXT1"),
    "old instance": (described(b"\x80\x02(ios\nsystem\n."), "INST"),
    "numpy objects": (calling("numpy", "dtype", "O8", False, True), "only numbers"),
    "nested archive": (nested, "unpack it first"),
    "nested as description": (nested_as_description, "damaged"),
    "two descriptions": (twice, "several parts of one name"),
    "tar": (tape, "begins like neither"),
    "older form": (stream, "eval"),
    "pickle alone": (bare, "begins like neither"),
    "cut to half": (cut(0.5), "damaged"),
    "cut by a little": (cut(0.99), "damaged"),
    "older form cut": (cut(0.9, zipped=False), "cut or changed"),
    "older form cut early": (cut(0.05, zipped=False), "damaged"),
    "compressed": (bomb, "is compressed"),
    "directory that lies": (lying_directory, "the file has"),
    "older form of terabytes": (stream_of_terabytes, "cut or changed"),
    "storage of terabytes": (
        holding(tensor(b"\x8a\x06\0\0\0\0\0\x40\x85", b"K\x01\x85", b"\x8a\x06\0\0\0\0\0\x40")), "should have"
    ),
    "tensor beyond its values": (holding(tensor(b"M\x10\x27\x85", b"K\x01\x85")), "reaches beyond"),
    "tensor of negative steps": (holding(tensor(b"K\x02\x85", b"J\xff\xff\xff\xff\x85")), "belong together"),
    "one value a billion times": (holding(tensor(b"J\0\0\0\x40J\0\0\0\x40\x86", b"K\0K\0\x86")), "only 4 values"),
    "list in itself": (described(b"\x80\x02]q\0h\0a."), "deeper than"),
    "dict in itself": (described(b"\x80\x02}q\0" + text("model") + b"h\0s."), "deeper than"),
    "deep lists": (described(b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b"."), "deeper than"),
    "deep tuple as a key": (described(b"\x80\x02})" + b"\x85" * _DEEP + b"Ns."), "a tuple as a key"),
    "namespace as a key": (
        described(b"\x80\x02}" + text("opt") + b"}" + named("argparse", "Namespace") + b")\x81Nss."), "beside tensors"
    ),
    "keys that hash alike": (
        described(
            b"\x80\x02}(" + b"".join(
                b"\x8a\x0a" + (number * (2**61 - 1)).to_bytes(10, "little") + b"N" for number in range(50_000)
            ) + b"u."
        ),
        "as a key",
    ),
    "billions of empty rows": (
        described(
            b"\x80\x02" + named("numpy.core.multiarray", "_reconstruct") + b")R(K\x01\x8a\x05\0\0\0\0\x10K\0\x86"
            + named("numpy", "dtype") + text("f4") + b"\x85R\x89" + named("__builtin__", "bytes") + b")Rtb."
        ),
        "beside tensors",
    ),
    "path of megabytes": (calling("pathlib", "PurePosixPath", "ab/" * (1 << 20)), "a path is too long"),
    "one list under many keys": (
        described(
            b"\x80\x02}(" + text("0") + b"](" + b"N" * 50_000 + b"eq\0"
            + b"".join(text(f"{number}") + b"h\0" for number in range(1, 50_000)) + b"u."
        ),
        "more than",
    ),
    "memo of billions": (described(b"\x80\x02}r\xff\xff\xff\x7f."), "no checkpoint"),
    "memo that is not there": (described(b"\x80\x02h\x07."), "damaged"),
    "number of megabytes": (described(b"\x80\x02\x8b\0\0\x10\0" + b"\x7f" * (1 << 20) + b"."), "LONG4"),
    "number of 2,040 bits": (described(b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b"."), "whole number"),
    "text of gigabytes": (described(b"\x80\x02X\xff\xff\xff\xffabc."), "damaged"),
    "text of exabytes": (described(b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fabc."), "damaged"),
    "bytes of gigabytes": (described(b"\x80\x05\x96" + b"\xff" * 5 + b"\0\0\0abc."), "damaged"),
    "no end": (described(b"\x80\x02" + b"N" * (1 << 20)), "instructions"),
    "laughs": (described(b"\x80\x02}" + text("opt") + _LAUGHS + b"s."), "more than"),
    "laughs as a device": (described(b"\x80\x02" + named("torch", "device") + _LAUGHS + b"\x85R."), "device"),
    "laughs as a type": (described(b"\x80\x02" + named("numpy", "dtype") + _LAUGHS + b"\x85R."), "type tuple"),
    "copies for ever": (
        described(
            b"\x80\x02" + named("builtins", "set") + b"q\x01]q\x00("
            + b"N" * 20_000 + b"e" + b"h\x01h\x00\x85R" * 20_000
        ),
        "copies more than",
    ),
    "states for ever": (
        described(
            b"\x80\x02" + named("argparse", "Namespace") + b")\x81}q\x00("
            + b"".join(text(f"{number}") + b"N" for number in range(5_000)) + b"u" + b"bh\x00" * 50_000
        ),
        "copies more than",
    ),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "text file": (lambda path: path.write_text("weights"), "begins like neither"),
    "folder": (lambda path: path.mkdir(), "cannot be read"),
}  # fmt: skip
