"""How files are changed: as bytes, as lines of words, as YAML, as archives; every choice is the generator's."""

from __future__ import annotations

import copy
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from datetime import date
from random import Random
from typing import Any

import numpy as np
import yaml

from utils.datasets.index_file import COLUMNS, ColumnWriter, IndexFileError, StoredColumns

LARGEST = 1 << 18  # bytes of a case; more only takes time
_NUMBERS = (0, 1, 2, 7, 10, 16, 127, 128, 255, 256, 4096, 32767, 65535, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
            1 << 40, (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip
WORDS_OF_LABELS = (
    *("0", "1", "-1", "19", "20", "80", "0.5", "1.0", "1.0000001", "-0", "-1e-9", "1e-400", "1e400", "1e38", "1e39"),
    *("nan", "inf", "-inf", "0x1p3", "1_0", "０.5", "٣", "1,5", "0.5.", "1e", "--1", "True", "None", "\0", "\x1b[2J"),
    *(
        "\ufeff",
        "\x85",
        "\u2028",
        "\x1c",
        "9" * 400,
        "0." + "3" * 5000,
        "1e16777216",
        "16777217",
        "9" * 30,
        "4294967296",
    ),
)
TEXTS = (
    *("", " ", "~", "~nobody_here", "~/x", ".", "..", "/", "//", "../../../../etc", "/etc/passwd", "/dev/zero", "nc"),
    *(
        "a\0b",
        "\x1b[2J",
        "\u202e",
        "\ud800",
        "a\nb",
        "x" * 300,
        "y/" * 3000,
        "images/val",
        "../images/val",
        "CON",
        "nan",
    ),
    *("https://example.org/a.zip", "__import__('os').system('id')", "nn.SiLU()", "nn.LeakyReLU(1e999)", "None", "1e3"),
    *(
        "nn.Softplus(0, 0)",
        "nn.PReLU(99999999999)",
        "anchors",
        "nearest",
        "shapes",
        "exec(open('x').read())",
        "bash a.sh",
    ),
)
VALUES: tuple[Any, ...] = (
    *TEXTS,
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        7,
        64,
        1 << 16,
        -(1 << 16),
        1 << 31,
        1 << 64,
        10**40,
        0.5,
        -0.5,
        1e308,
        1e-308,
    ),
    *(float("inf"), float("nan"), [], {}, [[]], [None], {"a": {}}, [0] * 200, {0: "a"}, date(2020, 1, 1), b"\xff\0"),
    *({1, 2}, [["a"]], {"0": "a", 1: "b"}, -2, [-1, 0], (1, 2)),
)
YAML_LINES = (
    *("a: &a [x, x]", "names: *a", "<<: *a", "<<: [*a, *a]", "? [1, 2] : 3", "!!python/object/apply:os.system ['id']"),
    *(
        "nc: 0x" + "f" * 6000,
        "nc: " + "9" * 5000,
        "nc: 1:1:1:1:1:1:1:1",
        "nc: .nan",
        "nc: !!int ''",
        "a: &a [*a]",
        "---",
    ),
    *("...", "%YAML 9.9", "\t- x", "- " * 400, "[" * 400, "x: !!binary '***'", "x: 2001-99-99", "x: !!set {a, b}", "'"),
    *(
        '"\\ud800": 1',
        "names: &n [*n]",
        "x: !!timestamp 0000-00-00",
        "download: {url: 1}",
        "x: !!float ''",
        "{}: []",
        ": :",
    ),
)
PICKLED = (
    *(
        b"cposix\nsystem\n",
        b"cbuiltins\neval\n",
        b"ctorch\nload\n",
        b"ccollections\nOrderedDict\n",
        b"R",
        b"b",
        b"\x81",
    ),
    *(
        b"(",
        b")",
        b"]",
        b"}",
        b"t",
        b"u",
        b"e",
        b"a",
        b"s",
        b"h\0",
        b"q\0",
        b"Q",
        b"N",
        b"\x85",
        b"\x86",
        b"\x87",
        b"0",
        b".",
    ),
    *(
        b"K\0",
        b"M\xff\xff",
        b"J\xff\xff\xff\xff",
        b"\x8a\x09" + b"\xff" * 9,
        b"X\x03\0\0\0nan",
        b"G\x7f\xf8" + b"\0" * 6,
    ),
    *(
        b"\x8c\x05model",
        b"\x8c\x04yaml",
        b"\x8c\x04meta",
        b"ctorch\nFloatStorage\n",
        b"\x89",
        b"\x88",
        b"\x8f",
        b"\x91",
    ),
)


def change_bytes(data: bytes, random: Random, words: Sequence[bytes] = ()) -> bytes:
    """One to four changes at places of their own; ``words`` are put in beside nasty numbers."""
    content = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        place = random.randrange(len(content) + 1)
        end = min(place + random.choice((1, 2, 4, 8, 32, 256)), len(content))
        how = random.randrange(8)
        if how == 0 and place < len(content):
            content[place] ^= 1 << random.randrange(8)
        elif how == 1 and place < len(content):
            content[place] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        elif how == 2:
            number = _packed(random)
            content[place : place + len(number)] = number
        elif how == 3:
            content[place:place] = random.choice(words) if words else _packed(random)
        elif how == 4:
            del content[place:end]
        elif how == 5:
            content[place:place] = content[place:end] * random.choice((1, 1, 2, 50))
        elif how == 6 and random.random() < 0.3:
            del content[place:]
        elif words:
            word = random.choice(words)
            content[place : place + len(word)] = word
    return bytes(content[:LARGEST])


def _packed(random: Random) -> bytes:
    size = random.choice((1, 2, 4, 8))
    number = random.choice(_NUMBERS) + random.choice((0, 0, -1, 1))
    return (number % (1 << (8 * size))).to_bytes(size, random.choice(("little", "big")))


def change_label_lines(data: bytes, random: Random) -> bytes:
    """Change words and lines of a label file; now and then its bytes."""
    if random.random() < 0.15:
        return change_bytes(data, random, [word.encode("utf-8", "surrogatepass") for word in WORDS_OF_LABELS])
    lines = [line.split(" ") for line in data.decode("utf-8", "replace").split("\n")]
    for _ in range(random.choice((1, 1, 2, 3))):
        line = random.choice(lines)
        how, place = random.randrange(8), random.randrange(len(line) + 1)
        if how <= 2 and place < len(line):
            line[place] = random.choice(WORDS_OF_LABELS)
        elif how == 3:
            line.insert(place, random.choice(WORDS_OF_LABELS))
        elif how == 4:
            del line[place : place + random.choice((1, 2))]
        elif how == 5:
            lines.insert(random.randrange(len(lines) + 1), list(line))
        elif how == 6:
            line += line[1:] * random.choice((1, 2, 40))
        elif place < len(line):
            line[place] = repr(random.choice((random.random(), random.gauss(0, 2), random.randrange(-3, 30))))
    ends = random.choice(("\n", "\n", "\n", "\r\n", "\r", "\t", "\v"))
    return ends.join(" ".join(line) for line in lines[:400]).encode("utf-8", "surrogatepass")[:LARGEST]


def yaml_mutator(values: Sequence[Any]) -> Callable[[bytes, Random], bytes]:
    """What changes a YAML file: its structure by the given values as well, its lines, its bytes."""

    def change(data: bytes, random: Random) -> bytes:
        kind = random.random()
        if kind < 0.1:
            return change_bytes(data, random, [line.encode("utf-8", "surrogatepass") for line in YAML_LINES])
        if kind < 0.3:
            return _change_text_lines(data, random)
        try:
            content = yaml.safe_load(data)
            for _ in range(random.choice((1, 1, 2, 3))):
                content = _change_node(content, random, values)
            return yaml.safe_dump(content, sort_keys=False).encode()[:LARGEST]
        except (yaml.YAMLError, ValueError, TypeError, RecursionError):  # an earlier change has made it no YAML
            return _change_text_lines(data, random)

    return change


def _change_text_lines(data: bytes, random: Random) -> bytes:
    lines = data.decode("utf-8", "replace").split("\n")
    place = random.randrange(len(lines) + 1)
    how = random.randrange(4)
    if how == 0:
        lines[place:place] = random.choices(YAML_LINES, k=random.choice((1, 1, 2)))
    elif how == 1:
        del lines[place : place + random.choice((1, 3))]
    elif how == 2:
        lines[place:place] = lines[place : place + 4]
    else:
        lines[place : place + 1] = [random.choice(("  ", "-", " ", "- ")) + line for line in lines[place : place + 1]]
    return "\n".join(lines).encode("utf-8", "surrogatepass")[:LARGEST]


def _change_node(content: Any, random: Random, values: Sequence[Any]) -> Any:
    """A copy of YAML content with one node changed, wherever it is."""
    inside = isinstance(content, (list, dict)) and content
    if not inside or random.random() < 0.03:
        return _replaced(content, random, values)
    result = copy.copy(content)
    key = random.choice(list(content)) if isinstance(content, dict) else random.randrange(len(content))
    how = random.random()
    if how < 0.7:
        result[key] = _change_node(content[key], random, values)
    elif how < 0.8:
        del result[key]
    elif isinstance(result, list):
        result.insert(key, copy.deepcopy(random.choice(content)))
    elif how < 0.9:
        result[random.choice(list(content))] = content[key]
    else:
        result[random.choice(("nc", "names", "path", "x", 0, 1.5, None, True))] = random.choice(values)
    return result


def _replaced(content: Any, random: Random, values: Sequence[Any]) -> Any:
    how = random.random()
    if how < 0.1:
        return [content]
    if how < 0.15:
        return {"x": content}
    if isinstance(content, (int, float)) and not isinstance(content, bool) and how < 0.5:
        return random.choice((-content, content + 1, content * 2, content * 1000, str(content)))
    return copy.deepcopy(random.choice(values))


def change_image(data: bytes, random: Random) -> bytes:
    """Change bytes, sooner where a header is; the checksums of a PNG are often made right again."""
    if random.random() < 0.6:
        head = random.choice((32, 64, 200))
        result = change_bytes(data[:head], random) + data[head:]
    else:
        result = change_bytes(data, random)
    return _with_checksums(result) if result.startswith(b"\x89PNG") and random.random() < 0.7 else result


def _with_checksums(data: bytes) -> bytes:
    content, place = bytearray(data), 8
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            break
        struct.pack_into(">I", content, end, zlib.crc32(content[place + 4 : end]))
        place = end + 4
    return bytes(content)


def change_archive(data: bytes, random: Random) -> bytes:
    """Change a part of a zip archive and put it together again with right checksums, or change its bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {entry.filename: archive.read(entry) for entry in archive.infolist() if entry.file_size < LARGEST}
    except (ValueError, OSError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError):
        parts = {}
    if not parts or random.random() < 0.15:
        return change_bytes(data, random, PICKLED)
    described = [name for name in parts if name.endswith(".pkl")]
    name = random.choice(described if described and random.random() < 0.8 else list(parts))
    how = random.random()
    if how < 0.9:
        parts[name] = change_bytes(parts[name], random, PICKLED if described else ())
    elif how < 0.95:
        del parts[name]
    else:
        parts[name] = parts[random.choice(list(parts))]
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return result.getvalue()


def change_index(data: bytes, random: Random) -> bytes:
    """Change a column of a label index and put it together again with right checksums, or change its bytes."""
    try:
        stored = StoredColumns(data, "index")
    except IndexFileError:
        return change_bytes(data, random)
    if random.random() < 0.15:
        return change_bytes(data, random)
    changed = random.choice(list(COLUMNS))
    result = io.BytesIO()
    with ColumnWriter(io.BytesIO) as writer:
        for name, kind in COLUMNS.items():
            content = stored[name].tobytes()
            if name == changed:
                content = change_bytes(content, random)
                content = content[: len(content) // kind.row_bytes * kind.row_bytes]
            writer.append(name, np.frombuffer(content, kind.dtype))
        writer.save(result, stored.versions)
    return result.getvalue()
