"""Where a result goes: into the folder of its run, and into its place on a page of the documentation.

That place is between two comments; everything else on the page stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.options.benchmark_base import BenchmarkOptions
from utils.atomic import replacing
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.paths import check_file, increment_path, make_folder


@dataclass(frozen=True)
class Picture:
    """A picture of a result.

    Attributes:
        draw: writes it into a file.
        name: of the copy in ``images`` beside the page, without suffix.
        caption: what it shows.
    """

    draw: Callable[[Path], None]
    name: str
    caption: str


class ResultPlace:
    """Where the result of a benchmark goes; made before anything is measured, so that a wrong page is found then.

    Args:
        options: of the benchmark, which say.
        section: between whose markers the result stands on the page; the benchmark's name when left out.

    Raises:
        ConfigError: when the page of the documentation has no place for the result.
    """

    def __init__(self, options: BenchmarkOptions, section: str = "") -> None:
        self._runs = Path(options.project) / options.name, options.exist_ok
        self._benchmark = options.benchmark()
        self._section = section or self._benchmark
        self._page = Path(check_file(options.docs)) if options.docs else None
        if self._page is not None:
            section_bounds(self._page, self._section)

    def make_folder(self) -> Path:
        """Make the folder of the run.

        Raises:
            ConfigError: when it cannot be made.
        """
        return increment_path(*self._runs, mkdir=True)

    def publish(
        self, folder: Path, text: str, *, summary: str = "", csv: str = "", picture: Picture | None = None
    ) -> None:
        """Write a result into its folder, then onto the page where one was asked for, and log where it is.

        Args:
            folder: of the run.
            text: the tables, Markdown.
            summary: what the log says of the result.
            csv: the figures behind the tables; nothing for no file.
            picture: which stands below the tables on the page.
        """
        files = {suffix: folder / f"{self._benchmark}.{suffix}" for suffix in ("md", "csv", "png")}
        for suffix, content in (("md", text), ("csv", csv)):
            if content:
                with replacing(files[suffix]) as stream:
                    stream.write(content)
        if picture:
            picture.draw(files["png"])
        LOGGER.info(f"{summary.strip()}\nresult in {folder}".lstrip())
        if self._page is not None:
            shown = _copy_picture(files["png"], self._page, picture) if picture else ""
            replace_section(self._page, self._section, f"{text}{shown}")
            LOGGER.info(f"{self._page}: section {self._section} replaced")


def measured_with(machine: str, command: str) -> str:
    """The first lines of a result: on which machine, and with which command, it was measured."""
    return f"Measured on {machine}, with\n\n```bash\n{command}\n```\n"


def _copy_picture(file: Path, page: Path, picture: Picture) -> str:
    """Put a picture into ``images`` beside a page; returns the line that shows it there."""
    copy = make_folder(page.parent / "images") / f"{picture.name}.png"
    with replacing(copy, binary=True) as stream:
        stream.write(file.read_bytes())
    return f"\n![{picture.caption}](images/{copy.name})\n"


def _markers(section: str) -> tuple[str, str]:
    """The lines between which a section's result stands."""
    return f"<!-- {section}:begin -->", f"<!-- {section}:end -->"


def section_bounds(page: Path, section: str) -> tuple[str, str]:
    """What stands on a page before and after a section's result, markers included.

    Args:
        page: Markdown file.
        section: name in the markers.

    Raises:
        ConfigError: when the page cannot be read, or has not each marker once and in this order.
    """
    try:
        text = page.read_bytes().decode("utf-8")  # line ends stay what they are
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{page}: expected a page to put the result on, but it cannot be read ({error})") from error
    begin, end = _markers(section)
    before, found, rest = text.partition(begin)
    inside, closed, after = rest.partition(end)
    if not found or not closed or any(marker in before + inside + after for marker in (begin, end)):
        raise ConfigError(
            f"{page}: expected the line {begin} once and below it the line {end} once; "
            "put them where the result should stand"
        )
    return before + begin, end + after


def replace_section(page: Path, section: str, text: str) -> None:
    """Put a result between a section's markers, in one step; nothing else changes.

    Args:
        page: Markdown file.
        section: name in the markers.
        text: Markdown.

    Raises:
        ConfigError: as :func:`section_bounds`.
    """
    before, after = section_bounds(page, section)
    result = f"\n\n{text.strip()}\n\n"
    if 0 < before.count("\n") == before.count("\r\n"):  # a page from Windows
        result = result.replace("\n", "\r\n")
    with replacing(page, binary=True) as stream:
        stream.write(f"{before}{result}{after}".encode())
