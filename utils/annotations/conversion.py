"""From one format to another: read all, then change, then write."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from utils.annotations.checks import inside_name
from utils.annotations.class_map import ClassMap, apply_class_map
from utils.annotations.formats import FORMATS
from utils.annotations.output import IMAGE_MANNERS, opened, refuse_taken
from utils.annotations.record import AnnotatedSet
from utils.annotations.report import Report
from utils.annotations.settings import ReadSettings, WriteSettings
from utils.annotations.splits import divide, keep_splits
from utils.datasets.source_files import IMG_FORMATS, suffix_of
from utils.errors import DatasetError, OptionError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What is to be converted into what.

    Attributes:
        source: a folder or file of the source format.
        target: a new or empty folder.
        source_format: a name of ``FORMATS``.
        target_format: likewise.
        classes: which classes to keep; None keeps all as they are.
        shares: of train, val and test; None keeps the source's splits.
        seed: of the division.
        images: "copy", "link" or "none".
        exist_ok: the target may have content, whose files of the same names are replaced.
        reading: see :class:`ReadSettings`.
        writing: see :class:`WriteSettings`.
    """

    source: Path
    target: Path
    source_format: str
    target_format: str = "yolo"
    classes: ClassMap | None = None
    shares: tuple[float, ...] | None = None
    seed: int = 0
    images: str = "copy"
    exist_ok: bool = False
    reading: ReadSettings = field(default_factory=ReadSettings)
    writing: WriteSettings = field(default_factory=WriteSettings)


def convert(conversion: Conversion) -> tuple[AnnotatedSet, Report]:
    """Convert a data set. The source is never changed, and a fault in it stops before anything is written.

    Returns:
        What was written, and what was left out.

    Raises:
        DatasetError: naming the file at fault, or when no image is left.
        OptionError: when a format is unknown.
    """
    for name in (conversion.source_format, conversion.target_format):
        if name not in FORMATS:
            raise OptionError(f"{name}: no format; {did_you_mean(name, FORMATS) or 'known: ' + ', '.join(FORMATS)}")
    if conversion.images not in IMAGE_MANNERS:
        raise OptionError(f"--images {conversion.images}: expected {', '.join(IMAGE_MANNERS)}")
    refuse_taken(conversion.target, conversion.exist_ok)
    if not conversion.source.exists():
        raise DatasetError(f"{conversion.source}: is not there")
    report = Report()
    content = FORMATS[conversion.source_format].read(conversion.source, conversion.reading, report)
    content = _with_usable_names(content, report)
    if not content.images:
        first = next(iter(report.lines()), "it has none")
        raise DatasetError(f"{conversion.source}: no image to convert: {first}")
    _refuse_own_folder(content, conversion)
    if conversion.classes is not None:
        content = apply_class_map(content, conversion.classes, report)
    content = divide(content, conversion.shares, conversion.seed) if conversion.shares else keep_splits(content)
    with opened(conversion.target, conversion.images, conversion.exist_ok) as output:
        FORMATS[conversion.target_format].write(content, output, conversion.writing, report)
    return content, report


def _with_usable_names(content: AnnotatedSet, report: Report) -> AnnotatedSet:
    """Without images whose names lead elsewhere, fit into no file or are no images', whatever format they come from."""
    kept = []
    for image in content.images:
        try:
            name = inside_name(image.name)
            if suffix_of(name) not in IMG_FORMATS:
                raise ValueError(f"images end in {', '.join(IMG_FORMATS)}")
        except ValueError as error:
            report.add("images whose name cannot be used: left out", f"{image.file}: {error}")
        else:
            kept.append(replace(image, name=name))
    return replace(content, images=kept)


def _refuse_own_folder(content: AnnotatedSet, conversion: Conversion) -> None:
    """Nothing is written among the source's files, some of which might be replaced."""
    home = conversion.target.resolve()
    if not home.is_dir() or not any(home.iterdir()):
        return
    within = [conversion.source, *dict.fromkeys(image.file.parent for image in content.images)]
    inside = next((path for path in within if path.resolve().is_relative_to(home)), None)
    if inside is not None:
        raise DatasetError(f"{conversion.target}: holds the source's {inside}; choose a folder of its own")
