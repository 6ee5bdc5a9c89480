"""Names of images in a folder where no two may share a stem, as their annotation files would then share a name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from utils.annotations.checks import LONGEST_PART
from utils.annotations.record import AnnotatedImage
from utils.annotations.report import Report


def unique_names(images: Sequence[AnnotatedImage], report: Report, flat: bool = False) -> list[str]:
    """A name for each image, with "/" between its parts; ``b.jpg`` and ``b.png`` become ``b.jpg`` and ``b_2.png``.

    Args:
        images: that share a folder.
        report: gets the new names.
        flat: the folder has none below it: ``cam1/b.jpg`` becomes ``cam1_b.jpg``.
    """
    taken: set[str] = set()
    names = []
    wanted = [_flat(image.name) if flat else image.name for image in images]
    own = {_key(PurePosixPath(name)) for name in wanted}
    for image, name in zip(images, wanted, strict=True):
        path, number = PurePosixPath(name), 1
        while _key(path) in taken or (number > 1 and _key(path) in own):
            number += 1
            path = PurePosixPath(name).with_stem(f"{PurePosixPath(name).stem}_{number}")
        if number > 1:
            report.add("images renamed, as another has the same name but for its suffix", f"{image.file}: now {path}")
        taken.add(_key(path))
        names.append(str(path))
    return names


def _flat(name: str) -> str:
    joined = name.replace("/", "_")
    return joined if len(joined.encode()) <= LONGEST_PART else PurePosixPath(name).name


def _key(path: PurePosixPath) -> str:
    """What two names may not share; file systems of Windows and macOS know no difference between a and A."""
    return str(path.with_suffix("")).casefold()
