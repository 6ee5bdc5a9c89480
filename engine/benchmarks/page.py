"""Putting a result into its place on a page of the documentation: between two comments, everything else stays."""

from __future__ import annotations

from pathlib import Path

from utils.atomic import replacing
from utils.errors import ConfigError


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
