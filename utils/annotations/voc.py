"""PASCAL VOC: ``Annotations/*.xml``, ``JPEGImages/`` and ``ImageSets/Main/{train,val,test}.txt``.

Boxes are whole pixels. As most tools write and read them, ``xmin ymin xmax ymax`` are edges: 0 0 100 80 is all of a
100x80 image. The VOC standard counts pixels from 1 and includes the last one (1 1 100 80 is all of it): with
``one_based`` boxes are read and written so. Either way, what was written and read once stays as it is.
VOC has no crowds: one becomes a difficult object, with ``<iscrowd>`` beside it, which other programs pass over.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.parsers import expat

from utils.annotations.checks import class_name, cut_box, finite, whole_size
from utils.annotations.image_files import measured
from utils.annotations.names import unique_names
from utils.annotations.output import Output, with_bar
from utils.annotations.record import SPLITS, AnnotatedImage, AnnotatedSet, Annotation, Box, categories_by_name
from utils.annotations.report import Report
from utils.annotations.settings import ReadSettings, WriteSettings
from utils.datasets.sources import IMG_FORMATS
from utils.errors import DatasetError
from utils.threads import in_threads

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read(source: Path, settings: ReadSettings, report: Report) -> AnnotatedSet:
    """Read a VOC folder. Objects marked difficult are left out unless the settings keep them; crowds are kept.

    Raises:
        DatasetError: when the folder has no annotations, or an annotation is no XML.
    """
    folder = settings.image_folder or source / "JPEGImages"
    files = _images_by_stem(folder, settings)
    listed = [(stem, split) for split, stems in _listed_stems(source, report).items() for stem in stems]

    def read_one(entry: tuple[str, str | None]) -> AnnotatedImage | None:
        stem, split = entry
        annotation = source / "Annotations" / f"{stem}.xml"
        root = _parse(annotation)
        file = files.get(stem, folder / f"{stem}.jpg")
        declared = whole_size(root.findtext("size/width"), root.findtext("size/height"))
        size_wh = measured(file, declared, str(annotation), report, required=settings.images_required)
        if size_wh is None:
            return None
        return AnnotatedImage(file, file.name, size_wh, _objects(root, annotation, size_wh, settings, report), split)

    images = list(filter(None, in_threads(read_one, listed, "reading annotations")))
    return AnnotatedSet(images, categories_by_name(images))


def _images_by_stem(folder: Path, settings: ReadSettings) -> Mapping[str, Path]:
    if not folder.is_dir():
        if settings.images_required:
            raise DatasetError(f"{folder}: this folder of images is missing")
        return {}
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix[1:].lower() in IMG_FORMATS}


def _listed_stems(source: Path, report: Report) -> dict[str | None, list[str]]:
    """Image stems of each split; without any list all are of none."""
    present = sorted(file.stem for file in (source / "Annotations").glob("*.xml"))
    if not present:
        raise DatasetError(f"{source}: no annotation found; expected Annotations/*.xml and JPEGImages/")
    known, found = set(present), {}
    for split in SPLITS:
        listing = source / "ImageSets" / "Main" / f"{split}.txt"
        if listing.is_file():
            found[split] = _stems_of(listing, known)
    for stem in sorted(known.difference(*found.values())) if found else ():
        report.add("annotations that no list names: left out", str(source / "Annotations" / f"{stem}.xml"))
    return found or {None: present}


def _stems_of(listing: Path, known: set[str]) -> list[str]:
    """The stem in each line: all of it, or its first word where VOC's lists of one class have a mark behind it."""
    lines = listing.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    stems = [line if line in known else line.split()[0] for line in lines if line.strip()]
    lost = [stem for stem in stems if stem not in known]
    if lost:
        raise DatasetError(f"{listing}: names {lost[0]!r}, which has no file in Annotations")
    return list(dict.fromkeys(stems))


def _parse(file: Path) -> ElementTree.Element:
    """Read one annotation.

    Raises:
        DatasetError: naming the file, when it is no readable XML or contains a document type definition (which could
            expand to any size, or name other files).
    """
    try:
        content = file.read_bytes()
        _refuse_doctype(content, file)
        return ElementTree.fromstring(content)
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (ElementTree.ParseError, expat.ExpatError, ValueError, LookupError, RecursionError) as error:
        raise DatasetError(f"{file}: not valid XML ({error})") from error


def _refuse_doctype(content: bytes, file: Path) -> None:
    def refuse(*_: object) -> None:
        raise DatasetError(f"{file}: contains a document type definition, which annotations have no use for; remove it")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(content, True)


def _objects(
    root: ElementTree.Element, file: Path, size_wh: tuple[int, int], settings: ReadSettings, report: Report
) -> tuple[Annotation, ...]:
    found = []
    for number, node in enumerate(root.iter("object"), start=1):
        where = f"{file}: object {number}"
        try:
            one, cut = _object(node, size_wh, settings.one_based)
        except ValueError as error:
            report.add("objects that cannot be meant: left out", f"{where}: {error}")
            continue
        if one.difficult and not one.crowd and not settings.difficult:
            report.add("difficult objects: left out (--difficult keeps them)", where)
            continue
        if cut:
            report.add("boxes beyond the edge of their image: cut", where)
        found.append(one)
    return tuple(found)


def _object(node: ElementTree.Element, size_wh: tuple[int, int], one_based: bool) -> tuple[Annotation, bool]:
    name = class_name(node.findtext("name"))
    left, top, right, bottom = (_side(node, side) for side in _SIDES)
    shift = 1 if one_based else 0
    box, cut = cut_box((left - shift, top - shift, right, bottom), size_wh)
    return Annotation(name, box, _marked(node, "iscrowd"), _marked(node, "difficult")), cut


def _side(node: ElementTree.Element, side: str) -> float:
    text = node.findtext(f"bndbox/{side}")
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise ValueError(f"<{side}> is {(text or '')[:60]!r}, expected a number") from None
    return finite(value, f"<{side}>")


def _marked(node: ElementTree.Element, mark: str) -> bool:
    return (node.findtext(mark) or "0").strip() == "1"


def write(content: AnnotatedSet, output: Output, settings: WriteSettings, report: Report) -> None:
    """Write a VOC folder."""
    names = unique_names(content.images, report, flat=True)
    for image, name in with_bar(list(zip(content.images, names, strict=True)), "annotations"):
        output.put_text(f"Annotations/{Path(name).stem}.xml", _document(image, name, settings.one_based))
        for one in image.annotations:
            if one.outlines or one.mask:
                report.add("outlines: their boxes alone are written", f"{image.file}")
            if one.crowd:
                report.add("crowd regions: written as difficult objects", f"{image.file}")
    for split in content.splits:
        stems = (Path(name).stem for image, name in zip(content.images, names, strict=True) if image.split == split)
        output.put_text(f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems))
    output.put_images([(f"JPEGImages/{name}", image.file) for image, name in zip(content.images, names, strict=True)])


def _document(image: AnnotatedImage, name: str, one_based: bool) -> str:
    root = ElementTree.Element("annotation")
    _add(root, folder="JPEGImages", filename=name)
    size = ElementTree.SubElement(root, "size")
    _add(size, width=image.size_wh[0], height=image.size_wh[1], depth=3)
    _add(root, segmented=0)
    for one in image.annotations:
        node = ElementTree.SubElement(root, "object")
        _add(node, name=one.category, pose="Unspecified", truncated=0, difficult=int(one.difficult or one.crowd))
        if one.crowd:
            _add(node, iscrowd=1)
        corners = whole_corners(one.box_xyxy, image.size_wh, one_based)
        _add(ElementTree.SubElement(node, "bndbox"), **dict(zip(_SIDES, corners, strict=True)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(parent: ElementTree.Element, **texts: object) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)


def whole_corners(box_xyxy: Box, size_wh: Sequence[int], one_based: bool) -> tuple[int, int, int, int]:
    """The nearest whole pixels, at least one wide and high.

    Args:
        box_xyxy: edges, px.
        size_wh: of the image, px.
        one_based: pixels count from 1 and the last one belongs to the box.

    Returns:
        xmin ymin xmax ymax.
    """
    (left, right), (top, bottom) = (_whole_edges(box_xyxy[axis], box_xyxy[axis + 2], size_wh[axis]) for axis in (0, 1))
    shift = 1 if one_based else 0
    return left + shift, top + shift, right, bottom


def _whole_edges(low: float, high: float, side: int) -> tuple[int, int]:
    first = min(round(low), side - 1)
    return first, max(round(high), first + 1)
