"""Where a conversion writes: a folder that appears as a whole, or file by file in one that is there already."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from tqdm import tqdm

from utils.errors import DatasetError

IMAGE_MANNERS = ("copy", "link", "none")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Output:
    """The folder to write into.

    Attributes:
        folder: where files go now.
        home: what the folder will be called.
        images: "copy", "link" (hard links; copies where the disk is another one) or "none".
    """

    folder: Path
    home: Path
    images: str = "copy"

    @contextmanager
    def open(self, name: str) -> Iterator[IO[str]]:
        """A UTF-8 text file below the folder, which takes its place in one step when it is complete."""
        target = self._place(name)
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with unfinished.open("w", encoding="utf-8", newline="\n") as stream:
                yield stream
            unfinished.replace(target)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def put_text(self, name: str, text: str) -> None:
        """Write a small text file below the folder."""
        with self.open(name) as stream:
            stream.write(text)

    def put_images(self, places: Sequence[tuple[str, Path]]) -> None:
        """Copy or link images.

        Args:
            places: name below the folder, and the image's present place.
        """
        if self.images != "none":
            for name, source in with_bar(places, "images"):
                self._put_image(name, source)

    def _put_image(self, name: str, source: Path) -> None:
        """What lies in the place already is replaced, never written into: it may be linked to the source."""
        target = self._place(name)
        if target.exists() and target.samefile(source):
            return
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            _copy_or_link(source.resolve(), unfinished, link=self.images == "link")
            unfinished.replace(target)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def _place(self, name: str) -> Path:
        target = self.folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise DatasetError(f"{error.filename}: is in the way of the folder {target.parent}") from error
        if not target.parent.resolve().is_relative_to(self.folder.resolve()):
            raise DatasetError(f"{target.parent}: is a link that leads out of {self.home}; nothing is written there")
        return target


def with_bar(items: Sequence[Item], text: str) -> Iterator[Item]:
    """The items one by one, with a progress bar on a terminal."""
    yield from tqdm(items, text, leave=False, disable=None)


def _copy_or_link(source: Path, target: Path, link: bool) -> None:
    if link:
        with contextlib.suppress(OSError):  # another disk, or one that knows no links
            target.hardlink_to(source)
            return
    shutil.copyfile(source, target)


@contextmanager
def opened(target: Path, images: str = "copy", exist_ok: bool = False) -> Iterator[Output]:
    """The output of a conversion.

    A new folder is made beside its place and moved there when the block has ended well; otherwise nothing is left of
    it. Into a folder with content, which ``exist_ok`` allows, files go one by one.

    Raises:
        DatasetError: when there is something already, and not allowed.
    """
    home = target.resolve()
    refuse_taken(target, exist_ok)
    if home.is_dir() and any(home.iterdir()):
        yield Output(home, home, images)
        return
    unfinished = home.with_name(f".{home.name}.{os.getpid()}.unfinished")
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise DatasetError(f"{target}: cannot be made ({error.strerror or error}); choose another place") from error
    try:
        yield Output(unfinished, home, images)
        if home.is_dir():  # an empty one may be somebody's current folder, so it stays
            for made in unfinished.iterdir():
                made.rename(home / made.name)
        else:
            unfinished.rename(home)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def refuse_taken(target: Path, exist_ok: bool) -> None:
    """Stop where an output folder has content, before any work is done.

    Raises:
        DatasetError: naming the folder.
    """
    if target.exists() and not target.is_dir():
        raise DatasetError(f"{target}: is a file; expected a new or empty folder")
    if target.exists() and any(target.iterdir()) and not exist_ok:
        raise DatasetError(f"{target}: is there already and not empty; choose another, remove it, or give --exist-ok")
