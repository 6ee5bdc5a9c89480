"""Turn data sets of other formats into this project's: ``python -m tools.convert voc SRC DST``.

PASCAL VOC: ``Annotations/*.xml``, ``JPEGImages/`` and, where present, ``ImageSets/Main/{train,val,test}.txt`` become
``images/<split>``, ``labels/<split>`` and ``data.yaml``. Without lists every image goes into ``train``, and the YAML
validates on it too. Boxes are taken as ``xmin ymin xmax ymax`` in pixels over the image's width and height, as most
tools write and read them, and cut at the image. The VOC standard itself counts pixels from 1 and includes the last
one; ``--one-based`` reads boxes so: xmin - 1 and ymin - 1 to xmax and ymax. Objects marked difficult are left out
unless ``--difficult``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

if __package__ in (None, ""):  # started as a file: python tools/convert.py
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.cli import run_command
from utils.datasets.images import check_image
from utils.datasets.sources import IMG_FORMATS
from utils.errors import DatasetError
from utils.yaml_io import yaml_save

SPLITS = ("train", "val", "test")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocObject:
    """One annotated object: class name, ``xmin ymin xmax ymax`` as written, and the difficult mark."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


@dataclass
class _Conversion:
    """What will be written, collected before anything is."""

    images: list[tuple[str, Path]] = field(default_factory=list)  # split, image
    labels: list[list[tuple[str, tuple[float, ...]]]] = field(default_factory=list)  # per image: name, x y w h
    notes: list[str] = field(default_factory=list)


def read_voc(file: Path) -> list[VocObject]:
    """Read one VOC annotation.

    Raises:
        DatasetError: naming the file, when it is no readable annotation or contains a document type definition
            (which could expand to any size, or name other files).
    """
    try:
        content = file.read_bytes()
        _refuse_doctype(content, file)
        root = ElementTree.fromstring(content)
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (ElementTree.ParseError, expat.ExpatError, ValueError, LookupError) as error:
        raise DatasetError(f"{file}: not valid XML ({error})") from error
    return [_read_object(node, number, file) for number, node in enumerate(root.iter("object"), start=1)]


def _refuse_doctype(content: bytes, file: Path) -> None:
    def refuse(*_: object) -> None:
        raise DatasetError(f"{file}: contains a document type definition, which annotations have no use for; remove it")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(content, True)


def _read_object(node: ElementTree.Element, number: int, file: Path) -> VocObject:
    name = (node.findtext("name") or "").strip()
    texts = [node.findtext(f"bndbox/{side}") for side in _SIDES]
    try:
        corners = tuple(float(text) for text in texts)
        finite = all(abs(value) < float("inf") for value in corners)  # also False for NaN
    except (TypeError, ValueError):
        finite = False
    if not name or not finite:
        raise DatasetError(f"{file}: object {number} needs a name and four numbers {' '.join(_SIDES)}, found {texts}")
    return VocObject(name, corners, (node.findtext("difficult") or "0").strip() == "1")


def _listed_stems(source: Path) -> dict[str, list[str]]:
    """Image stems of each split."""
    found = {}
    for split in SPLITS:
        listing = source / "ImageSets" / "Main" / f"{split}.txt"
        if listing.is_file():
            lines = listing.read_text(encoding="utf-8-sig").splitlines()
            found[split] = [line.split()[0] for line in lines if line.strip()]
    if not found:
        found["train"] = sorted(file.stem for file in (source / "Annotations").glob("*.xml"))
    if not any(found.values()):
        raise DatasetError(f"{source}: no annotation found; expected Annotations/*.xml and JPEGImages/")
    return found


def _images_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: this folder of images is missing")
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix[1:].lower() in IMG_FORMATS}


def normalise(
    corners: Sequence[float], size_wh: tuple[int, int], one_based: bool
) -> tuple[float, float, float, float] | None:
    """Corner pixels to centre, width and height as shares of the image; None when nothing lies inside it.

    Args:
        corners: xmin ymin xmax ymax in pixels.
        size_wh: width and height of the image.
        one_based: pixels count from 1 and the last one belongs to the box.
    """
    shift = 1.0 if one_based else 0.0
    width, height = size_wh
    left, right = (min(max(value, 0.0), width) for value in (corners[0] - shift, corners[2]))
    top, bottom = (min(max(value, 0.0), height) for value in (corners[1] - shift, corners[3]))
    if right <= left or bottom <= top:
        return None
    return (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height


def _collect(source: Path, one_based: bool, difficult: bool) -> _Conversion:
    """Read everything, so that a fault stops the work before anything is written."""
    result, images = _Conversion(), _images_by_stem(source / "JPEGImages")
    for split, stems in _listed_stems(source).items():
        for stem in stems:
            annotation = source / "Annotations" / f"{stem}.xml"
            if stem not in images:
                raise DatasetError(f"{annotation}: its image {stem}.* is missing in {source / 'JPEGImages'}")
            size_wh, rows = check_image(images[stem]), []
            for number, item in enumerate(read_voc(annotation), start=1):
                box = normalise(item.corners, size_wh, one_based)
                if box is None:
                    result.notes.append(f"{annotation}: object {number} ({item.name}) is empty or outside: left out")
                elif difficult or not item.difficult:
                    rows.append((item.name, box))
            result.images.append((split, images[stem]))
            result.labels.append(rows)
    return result


def convert_voc(
    source: Path,
    target: Path,
    *,
    link: bool = False,
    names: Sequence[str] | None = None,
    one_based: bool = False,
    difficult: bool = False,
) -> Path:
    """Convert a PASCAL VOC folder.

    Args:
        source: has ``Annotations`` and ``JPEGImages``.
        target: new or empty folder.
        link: link to the images instead of copying them.
        names: classes in order; sorted by name when None. Objects of other classes are an error.
        one_based: see :func:`normalise`.
        difficult: keep objects marked difficult.

    Returns:
        Path of the written ``data.yaml``.

    Raises:
        DatasetError: naming the file at fault; nothing is written then.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(f"{target}: is there already and not an empty folder; choose another or remove it")
    work = _collect(source, one_based, difficult)
    present = sorted({name for rows in work.labels for name, _ in rows})
    classes = list(names) if names else present
    unknown = [name for name in present if name not in classes]
    if unknown or len(set(classes)) < len(classes):
        raise DatasetError(
            f"--names {','.join(classes)}: names must differ and include {', '.join(unknown or present)}"
        )
    place = _link if link else shutil.copyfile
    for (split, image), rows in zip(work.images, work.labels, strict=True):
        _write_pair(target, split, image, ((classes.index(name), box) for name, box in rows), place)
    for note in work.notes:
        print(note)
    counts = {split: sum(where == split for where, _ in work.images) for split in SPLITS}
    print(f"{sum(map(len, work.labels))} objects in {counts}, classes {', '.join(classes)}")
    return _write_yaml(target, classes, {split for split, count in counts.items() if count})


def _link(source: Path, target: Path) -> None:
    target.symlink_to(source.resolve())


def _write_pair(
    target: Path,
    split: str,
    image: Path,
    rows: Iterable[tuple[int, tuple[float, ...]]],
    place: Callable[[Path, Path], object],
) -> None:
    for kind in ("images", "labels"):
        (target / kind / split).mkdir(parents=True, exist_ok=True)
    place(image, target / "images" / split / image.name)
    lines = (f"{index} " + " ".join(f"{value:.6f}" for value in box) + "\n" for index, box in rows)
    (target / "labels" / split / f"{image.stem}.txt").write_text("".join(lines), encoding="utf-8", newline="\n")


def _write_yaml(target: Path, classes: Sequence[str], splits: set[str]) -> Path:
    first = "train" if "train" in splits else min(splits)
    content: dict[str, object] = {"path": str(target.resolve())}
    content |= {split: f"images/{split if split in splits else first}" for split in ("train", "val")}
    if "test" in splits:
        content["test"] = "images/test"
    file = target / "data.yaml"
    yaml_save(file, {**content, "names": dict(enumerate(classes))})
    print(f"{file} written")
    return file


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.convert", description=__doc__.split("\n")[0])
    formats = parser.add_subparsers(dest="format", required=True)
    voc = formats.add_parser("voc", help="PASCAL VOC: XML annotations")
    voc.add_argument("source", type=Path, metavar="SRC", help="folder with Annotations and JPEGImages")
    voc.add_argument("target", type=Path, metavar="DST", help="new folder")
    manner = voc.add_mutually_exclusive_group()
    manner.add_argument("--copy", action="store_true", help="copy the images (default)")
    manner.add_argument("--link", action="store_true", help="link to the images")
    voc.add_argument("--names", help="classes in order, separated by commas; sorted by name when left out")
    voc.add_argument("--one-based", action="store_true", help="pixels count from 1, the last one included")
    voc.add_argument("--difficult", action="store_true", help="keep objects marked difficult")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Convert as the command line says; returns the exit code."""
    opt = parse_opt(argv)
    names = [name.strip() for name in opt.names.split(",") if name.strip()] if opt.names else None
    return run_command(
        lambda: convert_voc(
            opt.source, opt.target, link=opt.link, names=names, one_based=opt.one_based, difficult=opt.difficult
        )
    )


if __name__ == "__main__":
    sys.exit(main())
