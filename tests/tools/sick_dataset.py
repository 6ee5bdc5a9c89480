"""A data set with a fault of every kind in it, each at a known file and line, and nothing else wrong."""

from __future__ import annotations

import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from utils.yaml_io import yaml_save

BOX, OTHER_BOX = "0 0.5 0.5 0.4 0.4", "1 0.4 0.4 0.5 0.5"
NAMES = ["cat", "dog", "bird", "fish"]
HEALTHY = 6  # images of train, with two objects each

# kind, what is wrong with line 2 of train/<name>.txt, which begins with a good box
BAD_LINES = {
    "few-values": ("label-columns", "0 0.5 0.5 0.2"),
    "commas": ("label-columns", "1,0.3,0.3,0.2,0.2"),
    "half-a-point": ("label-columns", "0 0.1 0.1 0.9 0.1 0.5 0.9 0.3"),
    "word": ("label-number", "cat 0.5 0.5 0.2 0.2"),
    "nan": ("label-number", "0 nan 0.5 0.2 0.2"),
    "overshoot": ("label-range", "1 0.5 0.5 1.002 0.5"),
    "pixels": ("label-range", "1 24 24 10 10"),
    "negative": ("label-range", "1 -0.2 0.5 0.2 0.2"),
    "outline": ("label-range", "1 0.1 0.1 1.004 0.1 0.5 0.9"),
    "minus-class": ("label-class", "-1 0.5 0.5 0.2 0.2"),
    "half-class": ("label-class", "1.5 0.5 0.5 0.2 0.2"),
    "no-such-class": ("label-unknown-class", "7 0.5 0.5 0.2 0.2"),
    "no-width": ("label-no-area", "1 0.5 0.5 0 0.2"),
    "no-area-outline": ("label-no-area", "1 0.2 0.2 0.8 0.2 0.5 0.2"),
    "twice": ("label-duplicate", "0 0.50 0.5 0.4 0.40"),
    "two-classes": ("label-two-classes", "1 0.5 0.5 0.4 0.4"),
    "beyond": ("label-beyond", "1 0.9 0.5 0.3 0.3"),
    "flat-outline": ("polygon-flat", "1 0.1 0.1 0.5 0.5 0.9 0.9"),
    "tiny-object": ("objects-tiny", "1 0.5 0.5 0.05 0.1"),
}

Place = tuple[str, str, int]  # kind, file below the data set's folder, line


def make_sick_dataset(root: Path) -> set[Place]:
    """Write the set; returns every finding that the doctor has to come to, and no other, at image size 64."""
    plants: set[Place] = set()
    rng = np.random.default_rng(0)
    for number in range(HEALTHY):
        save_pair(root, "train", f"good{number}", rng, f"{BOX}\n{OTHER_BOX}\n")
        save_pair(root, "val", f"good{number}", rng, f"{BOX}\n\n")
    for name, (kind, line) in BAD_LINES.items():
        save_pair(root, "train", name, rng, f"{BOX}\n{line}\n")
        plants.add((kind, f"labels/train/{name}.txt", 2))
    plants |= _sick_label_files(root, rng) | _sick_images(root, rng) | _sick_splits(root, rng)
    yaml_save(
        root / "data.yaml",
        {"path": str(root), "train": "images/train", "val": "images/val", "test": "test.txt", "names": NAMES},
    )
    return plants


def make_clean_dataset(root: Path) -> Path:
    """A small set with nothing wrong; returns its YAML."""
    rng = np.random.default_rng(1)
    for number in range(10):
        save_pair(root, "train", f"{number}", rng, f"\ufeff{BOX}\r\n{OTHER_BOX}\r\n")  # as some Windows editors write
    save_pair(root, "val", "0", rng, BOX)
    save_pair(root, "val", "background", rng, "")
    (root / "labels" / "classes.txt").write_text("cat\ndog\n")
    yaml_save(root / "data.yaml", {"path": str(root), "train": "images/train", "val": "images/val", "names": NAMES[:2]})
    return root / "data.yaml"


def save_pair(root: Path, split: str, name: str, rng: np.random.Generator, text: str | None, **how: object) -> Path:
    """An image of noise and its label file, none where the text is None; returns the image's path."""
    image = root / "images" / split / (name if "." in name else f"{name}.png")
    label = root / "labels" / split / f"{Path(name).stem}.txt"
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(image, **how)
    if text is not None:
        label.write_bytes(text.encode())
    return image


def _sick_label_files(root: Path, rng: np.random.Generator) -> set[Place]:
    labels, images = root / "labels" / "train", root / "images" / "train"
    for name in ("utf16", "pipe", "folder", "no-label", "beside", "Case"):
        save_pair(root, "train", name, rng, None)
    (labels / "utf16.txt").write_bytes(f"{BOX}\n".encode("utf-16"))
    os.mkfifo(labels / "pipe.txt")
    (labels / "folder.txt").mkdir()
    (images / "beside.txt").write_text(BOX)
    (labels / "case.TXT").write_text(BOX)
    (labels / "no-image.txt").write_text(BOX)
    save_pair(root, "train", "shared.jpg", rng, BOX)
    save_pair(root, "train", "shared.png", rng, BOX)
    return {
        ("label-encoding", "labels/train/utf16.txt", 1),
        ("label-special", "labels/train/pipe.txt", 0),
        ("label-unreadable", "labels/train/folder.txt", 0),
        ("image-unlabelled", "images/train/no-label.png", 0),
        ("label-misplaced", "images/train/beside.txt", 0),
        ("label-misnamed", "labels/train/case.TXT", 0),
        ("label-orphan", "labels/train/no-image.txt", 0),
        ("label-shared", "images/train/shared.png", 0),
    }


def _sick_images(root: Path, rng: np.random.Generator) -> set[Place]:
    images = root / "images" / "train"
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("cut.jpg", "no-image.jpg.png", "small.png", "blank.png", "copy.png", "late-exif.png"):
        save_pair(root, "train", name, rng, BOX)
    (root / "labels" / "train" / "no-image.jpg.txt").write_text(BOX)
    save_pair(root, "train", "turned.jpg", rng, BOX, exif=turned)
    (images / "cut.jpg").write_bytes((images / "cut.jpg").read_bytes()[:-200])
    (images / "no-image.jpg.png").write_text("<html>404</html>")
    Image.fromarray(np.full((9, 64, 3), 7, np.uint8)).save(images / "small.png")
    Image.fromarray(np.full((48, 64, 3), 7, np.uint8)).save(images / "blank.png")
    save_pair(root, "train", "same.png", rng, f"{BOX}\n{OTHER_BOX}\n")
    for name in ("copy", "same"):
        Image.open(images / "good0.png").save(images / f"{name}.png", compress_level=1)  # other bytes, equal pixels
    (images / "late-exif.png").write_bytes(_with_late_exif((images / "late-exif.png").read_bytes(), turned))
    os.mkfifo(images / "pipe-image.png")
    _leave_socket(images / "socket.png")
    for name in ("pipe-image", "socket"):
        (root / "labels" / "train" / f"{name}.txt").write_text(BOX)
    return {
        ("image-truncated", "images/train/cut.jpg", 0),
        ("image-unreadable", "images/train/no-image.jpg.png", 0),
        ("image-tiny", "images/train/small.png", 0),
        ("image-blank", "images/train/blank.png", 0),
        ("image-turned", "images/train/turned.jpg", 0),
        ("image-copy", "images/train/good0.png", 0),  # copy.png comes first
        ("image-copy", "images/train/same.png", 0),
        ("image-size", "images/train/late-exif.png", 0),
        ("image-special", "images/train/pipe-image.png", 0),
        ("image-special", "images/train/socket.png", 0),
    }


def _with_late_exif(png: bytes, exif: Image.Exif) -> bytes:
    """A PNG that says only behind its pixels that it is turned: a header reader cannot know."""
    content = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return png[:-12] + chunk + png[-12:]


def _leave_socket(path: Path) -> None:
    """A socket's file; their paths must be short."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def _sick_splits(root: Path, rng: np.random.Generator) -> set[Place]:
    """A picture of train in val, a list with odd lines, a class without objects and one with few."""
    content = (root / "images" / "train" / "good1.png").read_bytes()
    save_pair(root, "val", "leak", rng, BOX).write_bytes(content)
    save_pair(root, "train", "fish", rng, f"3 0.5 0.5 0.2 0.2\n{OTHER_BOX}\n")
    save_pair(root, "test", "a", rng, BOX)
    lines = ["./images/test/a.png", "./images/test/a.png", "./images/test/gone.png", "# a remark"]
    (root / "test.txt").write_text("\n".join(lines))
    (root / "labels" / "test" / "gone.txt").write_text(BOX)
    return {
        ("split-overlap", "images/val/leak.png", 0),
        ("image-listed-twice", "images/test/a.png", 0),
        ("image-missing", "images/test/gone.png", 0),
        ("list-line", "test.txt", 4),
        ("class-empty", "", 0),
        ("class-rare", "", 0),
    }
