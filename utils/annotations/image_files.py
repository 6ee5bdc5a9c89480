"""The pictures that annotations belong to: are they there, and how large are they."""

from __future__ import annotations

from pathlib import Path

from utils.annotations.report import Report
from utils.datasets.images import check_image
from utils.errors import DatasetError


def measured(
    file: Path, declared_wh: tuple[int, int] | None, where: str, report: Report, *, required: bool
) -> tuple[int, int] | None:
    """The size of an image; its file counts more than what an annotation declares.

    Args:
        file: of the image.
        declared_wh: width and height by the annotation, px; None where it says nothing.
        where: the annotation, for the report.
        report: gets what was found wrong.
        required: whether the image is useless without its file.

    Returns:
        Width and height, px, upright; None when the image is to be left out.
    """
    if not file.is_file():
        if declared_wh is not None and not required:
            return declared_wh
        report.add("images whose file is missing: left out", f"{where}: {file} is not there")
        return None
    try:
        size_wh = check_image(file)
    except DatasetError as error:
        report.add("images that cannot be read: left out", f"{where}: {error}")
        return None
    if declared_wh is not None and declared_wh != size_wh:
        declared, found = ("x".join(map(str, size)) for size in (declared_wh, size_wh))
        report.add(
            "images of another size than their annotation says: the file's counts, look at their boxes",
            f"{where}: declared {declared} px, {file} is {found} px upright",
        )
    return size_wh
