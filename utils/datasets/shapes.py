"""The embedded data set: circles, squares, triangles, stars and rings, drawn on first use.

It needs no network and is the same, pixel by pixel, on every machine: everything is computed in whole numbers from
the raw bits of one generator per image. It stands in for real data in demonstrations, tests and quick comparisons, so
it has what detectors find hard: cluttered backgrounds, tiny objects, dense groups, objects that hide each other.
``situations.csv`` says which images have which, for figures by situation.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.errors import DatasetError
from utils.image_io import write_image

CLASSES = ("circle", "square", "triangle", "star", "ring")
COUNTS: Mapping[str, int] = {"train": 240, "val": 80, "test": 20}
SIDE = 320  # pixels
RECIPE = 1  # raise it whenever a pixel or a label changes

_FINE = 4  # subpixels per pixel and axis: outlines are smoothed by averaging them
_UNIT = 4096  # of whole-number sines
_ROOM = 128 * 128  # pixels of a large image per small figure
_VISIBLE = 4  # an object is labelled when at least one part in so many of it can be seen
_SINES = [round(_UNIT * math.sin(math.radians(angle))) for angle in range(360)]

# One family of colours (BGR) per class; one object in ten may take another family's instead.
_COLOURS = (
    ((60, 60, 220), (50, 90, 235), (80, 40, 190)),  # reds
    ((215, 120, 40), (235, 160, 60), (190, 80, 30)),  # blues
    ((70, 190, 70), (90, 215, 120), (40, 150, 60)),  # greens
    ((40, 205, 240), (70, 225, 250), (20, 170, 220)),  # yellows
    ((200, 70, 190), (225, 110, 215), (160, 40, 150)),  # purples
)


class Dice:
    """Whole-number chance from a bit generator, whose raw output never changes between NumPy versions."""

    def __init__(self, text: str):
        self._bits = np.random.PCG64(zlib.crc32(text.encode()))

    def between(self, low: int, high: int) -> int:
        """A number in low ... high, both included."""
        return low + int(self._bits.random_raw()) % (high - low + 1)

    def percent(self, chance: int) -> bool:
        """True in so many cases of a hundred."""
        return self.between(0, 99) < chance

    def noise(self, height: int, width: int, spread: int) -> np.ndarray:
        """(height, width, 1) int32 noise in -spread ... spread."""
        count = height * width
        raw = self._bits.random_raw(-(-count // 8)).astype("<u8").view(np.uint8)[:count]
        return (raw.astype(np.int32) % (2 * spread + 1) - spread).reshape(height, width, 1)


@dataclass(frozen=True)
class Figure:
    """One object: class, centre and radius in pixels, turn in degrees, colour (BGR)."""

    class_id: int
    x: int
    y: int
    radius: int
    angle: int
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """A drawn image.

    Attributes:
        image: (side, side, 3) uint8 BGR.
        labels: (N, 5) class, x, y, width, height, normalised: the whole extent of each object, cut at the image.
        situation: what the image is about.
    """

    image: np.ndarray
    labels: np.ndarray
    situation: str


# -- outlines ------------------------------------------------------------------------------------------------------


def _figure_mask(figure: Figure) -> np.ndarray:
    """(2r + 1, 2r + 1) coverage 0 ... 16 of a figure in its own square."""
    reach = figure.radius * _FINE + _FINE // 2
    axis = np.arange(-reach, reach, dtype=np.int64) * 2 + 1  # centres of subpixels, in half subpixels
    across, down = axis[None, :], axis[:, None]
    radius = figure.radius * _FINE * 2
    name = CLASSES[figure.class_id]
    if name in ("circle", "ring"):
        square = across**2 + down**2
        inside = square <= radius**2
        if name == "ring":
            inside &= square >= (radius * 11 // 20) ** 2
    else:
        # a regular polygon is where all its edges' half-planes meet; a five-pointed star, where four of five do
        edges, needed = {"square": (4, 4), "triangle": (3, 3), "star": (5, 4)}[name]
        nearest = {4: 2896, 3: 2048, 5: 1266}[edges]  # centre to edge line over centre to point, in units
        votes = sum(
            (across * _SINES[(angle + 90) % 360] + down * _SINES[angle] <= radius * nearest).astype(np.int8)
            for angle in ((figure.angle + turn * 360 // edges) % 360 for turn in range(edges))
        )
        inside = votes >= needed
    size = 2 * figure.radius + 1
    return inside.reshape(size, _FINE, size, _FINE).sum(axis=(1, 3))


def _shade(colour: tuple[int, int, int], percent: int) -> np.ndarray:
    return np.minimum(np.array(colour, np.int32) * percent // 100, 255)


class _Canvas:
    """An image being drawn, and which figure each pixel shows."""

    def __init__(self, background: np.ndarray):
        self.pixels = background  # (side, side, 3) int32
        self.owner = np.full(background.shape[:2], -1, np.int32)
        self.areas: list[int] = []  # pixels of each figure, hidden or outside ones too
        self.boxes: list[tuple[int, int, int, int]] = []  # left, top, right, bottom, cut at the image

    def draw(self, figure: Figure) -> None:
        """Lay a figure over what is there, its rim darker than its body."""
        mask = _figure_mask(figure)
        size = mask.shape[0]
        left, top = figure.x - figure.radius, figure.y - figure.radius
        rows = slice(max(top, 0), min(top + size, self.owner.shape[0]))
        columns = slice(max(left, 0), min(left + size, self.owner.shape[1]))
        part = mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        solid = mask * 2 >= _FINE**2
        shown = part * 2 >= _FINE**2
        number = len(self.areas)
        self.areas.append(int(solid.sum()))
        self.boxes.append(_extent(shown, columns.start, rows.start))
        rim = _shade(figure.colour, 55)
        body = np.where(_core(part, max(figure.radius // 10, 1)), np.array(figure.colour, np.int32), rim)
        weight, full = part[..., None], _FINE**2
        region = self.pixels[rows, columns]
        self.pixels[rows, columns] = (region * (full - weight) + body * weight + full // 2) // full
        self.owner[rows, columns][shown] = number

    def visible_share_ok(self, number: int) -> bool:
        """Whether enough of a figure can be seen for a label."""
        return int((self.owner == number).sum()) * _VISIBLE >= max(self.areas[number], 1)


def _core(mask: np.ndarray, depth: int) -> np.ndarray:
    """(h, w, 1) bool: fully covered pixels that are ``depth`` pixels away from the outline."""
    core = mask == _FINE**2
    for _ in range(depth):
        wide = np.pad(core, 1, constant_values=True)
        core = core & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return core[..., None]


def _extent(shown: np.ndarray, left: int, top: int) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(shown.any(axis=0)), np.flatnonzero(shown.any(axis=1))
    if not len(columns):
        return (0, 0, 0, 0)
    return (left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1)


# -- backgrounds ---------------------------------------------------------------------------------------------------


def _background(dice: Dice, side: int) -> np.ndarray:
    """(side, side, 3) int32: a slope of two dull colours with coarse stains, stripes or tiles, scribbles and grain."""
    first = np.array([dice.between(60, 190) for _ in range(3)])
    second = np.clip(first + [dice.between(-50, 50) for _ in range(3)], 0, 255)
    across, down = np.arange(side)[None, :, None], np.arange(side)[:, None, None]
    along = (across * dice.between(0, 4) + down * dice.between(0, 4)) % (8 * side)
    pixels = first + (second - first) * along // (8 * side)
    pixels = np.broadcast_to(pixels, (side, side, 3)).astype(np.int32)
    pattern = dice.between(0, 3)
    if pattern == 0:
        cell = (8, 16, 20, 32)[dice.between(0, 3)]
        stains = dice.noise(side // cell, side // cell, dice.between(10, 26))
        pixels += np.repeat(np.repeat(stains, cell, axis=0), cell, axis=1)
    elif pattern == 1:
        period, slant = dice.between(10, 40), dice.between(-2, 2)
        pixels += np.where((across + slant * down) % period * 2 < period, dice.between(8, 22), 0)
    elif pattern == 2:
        cell = dice.between(12, 40)
        pixels += np.where((across // cell + down // cell) % 2 == 0, dice.between(8, 22), 0)
    for _ in range(dice.between(0, 8)):
        _scribble(pixels, dice)
    grain = dice.between(0, 5)
    if grain:
        pixels += np.repeat(np.repeat(dice.noise(side // 2, side // 2, grain), 2, axis=0), 2, axis=1)
    return np.clip(pixels, 0, 255)


def _scribble(pixels: np.ndarray, dice: Dice) -> None:
    """A straight grey stroke from edge to edge: clutter that is no object. Draws into ``pixels``."""
    side = len(pixels)
    start, end, half = dice.between(0, side), dice.between(0, side), dice.between(0, 2)
    shade, upright = dice.between(40, 215), dice.percent(50)
    strip = pixels if upright else pixels.transpose(1, 0, 2)
    for step in range(side):
        middle = start + (end - start) * step // side
        strip[step, max(middle - half, 0) : max(middle + half + 1, 0)] = shade


# -- scenes --------------------------------------------------------------------------------------------------------


def _figure(dice: Dice, x: int, y: int, radius: int) -> Figure:
    class_id = dice.between(0, len(CLASSES) - 1)
    family = _COLOURS[class_id] if dice.percent(90) else _COLOURS[dice.between(0, len(CLASSES) - 1)]
    return Figure(class_id, x, y, radius, dice.between(0, 359), family[dice.between(0, len(family) - 1)])


def _apart(
    dice: Dice, count: int, smallest: int, largest: int, taken: list[Figure], *, side: int = SIDE
) -> list[Figure]:
    """Figures anywhere that keep clear of each other."""
    placed = list(taken)
    for _ in range(count * 6):
        if len(placed) == len(taken) + count:
            break
        radius = dice.between(smallest, largest)
        x, y = dice.between(0, side - 1), dice.between(0, side - 1)
        if all((x - other.x) ** 2 + (y - other.y) ** 2 > (radius + other.radius + 3) ** 2 for other in placed):
            placed.append(_figure(dice, x, y, radius))
    return placed[len(taken) :]


def _plain(dice: Dice) -> list[Figure]:
    return _apart(dice, dice.between(3, 9), 10, 34, [])


def _large(dice: Dice) -> list[Figure]:
    big = _apart(dice, dice.between(1, 2), 45, 80, [])
    return big + _apart(dice, dice.between(1, 4), 10, 22, big)


def _small(dice: Dice) -> list[Figure]:
    tiny = _apart(dice, dice.between(4, 9), 4, 8, [])
    return tiny + _apart(dice, dice.between(1, 3), 12, 28, tiny)


def _dense(dice: Dice) -> list[Figure]:
    """A loose grid of figures, nearly touching."""
    columns, rows, step = dice.between(4, 6), dice.between(3, 5), dice.between(24, 38)
    left, top = dice.between(10, SIDE - columns * step), dice.between(10, SIDE - rows * step)
    shake = step // 6
    return [
        _figure(
            dice,
            left + column * step + dice.between(-shake, shake),
            top + row * step + dice.between(-shake, shake),
            dice.between(step * 2 // 5, step // 2 + 1),
        )
        for row in range(rows)
        for column in range(columns)
        if not dice.percent(12)
    ]


def _occluding(dice: Dice) -> list[Figure]:
    """Pairs and threes, the later ones over the earlier."""
    figures: list[Figure] = []
    for first in _apart(dice, dice.between(2, 4), 18, 34, []):
        figures.append(first)
        for _ in range(dice.between(1, 2)):
            angle, away = dice.between(0, 359), first.radius * dice.between(70, 120)
            x = first.x + away * _SINES[(angle + 90) % 360] // (100 * _UNIT)
            y = first.y + away * _SINES[angle] // (100 * _UNIT)
            x, y = min(max(x, 0), SIDE - 1), min(max(y, 0), SIDE - 1)
            figures.append(_figure(dice, x, y, dice.between(first.radius * 3 // 5, first.radius)))
    return figures


def _scattered(dice: Dice, side: int) -> list[Figure]:
    """Many small figures over a large image, and a few large ones."""
    big = _apart(dice, dice.between(3, 6), 40, 70, [], side=side)
    return big + _apart(dice, side * side // _ROOM, 5, 12, big, side=side)


# situation, images of a hundred, what it draws; the rest are backgrounds without any object
_SITUATIONS: tuple[tuple[str, int, Callable[[Dice], list[Figure]]], ...] = (
    ("plain", 37, _plain),
    ("large", 18, _large),
    ("small", 12, _small),
    ("dense", 15, _dense),
    ("occluding", 15, _occluding),
    ("background", 3, lambda dice: []),
)


def draw_scene(name: str, situation: str | None = None) -> Scene:
    """Draw one image.

    Args:
        name: seeds everything in it.
        situation: plain, large, small, dense, occluding or background; drawn by chance when None.
    """
    dice = Dice(f"shapes:{RECIPE}:{name}")
    draw = dice.between(0, 99)
    if situation is None:
        shares = np.cumsum([share for _, share, _ in _SITUATIONS])
        situation = _SITUATIONS[int(np.searchsorted(shares, draw, side="right"))][0]
    painters = {label: painter for label, _, painter in _SITUATIONS}
    background = _background(dice, SIDE)
    return _scene(background, painters[situation](dice), situation)


def draw_large_scene(name: str, side: int) -> Scene:
    """Draw one large image with many small objects of 11 to 25 px, and a few of 80 to 140 px.

    Args:
        name: seeds everything in it.
        side: of the image, px, a multiple of 160.
    """
    dice = Dice(f"shapes:{RECIPE}:large:{side}:{name}")
    background = _background(dice, side)
    return _scene(background, _scattered(dice, side), "scattered")


def _scene(background: np.ndarray, figures: list[Figure], situation: str) -> Scene:
    """Figures one over the other on a background, with labels for those that can be seen."""
    canvas = _Canvas(background)
    for figure in figures:
        canvas.draw(figure)
    rows = []
    for number, figure in enumerate(figures):
        if canvas.visible_share_ok(number):
            left, top, right, bottom = canvas.boxes[number]
            rows.append((figure.class_id, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top))
    labels = np.array(rows, dtype=np.float64).reshape(-1, 5)
    labels[:, 1:] /= len(background)
    return Scene(canvas.pixels.astype(np.uint8), labels, situation)


def draw_shapes(folder: Path, counts: Mapping[str, int] = COUNTS) -> None:
    """Draw the whole set into a folder; until it is complete, the folder does not exist.

    Args:
        folder: gets ``images/<split>``, ``labels/<split>``, ``situations.csv`` and ``recipe.json``.
        counts: images of each split.

    Raises:
        DatasetError: when the folder exists already with other content, or cannot be written.
    """
    recipe = {"recipe": RECIPE, "counts": dict(counts)}
    if folder.exists():
        _check_recipe(folder, recipe)
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise DatasetError(f"{folder}: the data set cannot be drawn there ({error.strerror or error})") from error
    try:
        _draw_into(workshop, counts)
        (workshop / "recipe.json").write_text(json.dumps(recipe) + "\n", encoding="utf-8")
        workshop.chmod(0o755)  # temporary folders are private
        workshop.replace(folder)
    except OSError as error:
        if not (folder / "recipe.json").is_file():  # unless another process was faster
            raise DatasetError(f"{folder}: the data set cannot be drawn ({error.strerror or error})") from error
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _check_recipe(folder: Path, recipe: Mapping[str, object]) -> None:
    file = folder / "recipe.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found != recipe:
        raise DatasetError(f"{folder}: is not the set that this version draws; move it away to have it drawn again")


def _draw_into(folder: Path, counts: Mapping[str, int]) -> None:
    tasks = [(split, f"{split}_{number:04d}") for split, count in counts.items() for number in range(count)]
    for split in counts:
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
    with (folder / "situations.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("split", "image", "situation", "objects"))
        for split, name in tqdm(tasks, "drawing shapes", leave=False, disable=None):
            scene = draw_scene(name)
            write_image(folder / "images" / split / f"{name}.png", scene.image)
            lines = (f"{int(row[0])} " + " ".join(f"{value:.6f}" for value in row[1:]) + "\n" for row in scene.labels)
            (folder / "labels" / split / f"{name}.txt").write_text("".join(lines), encoding="utf-8", newline="\n")
            table.writerow((split, f"{name}.png", scene.situation, len(scene.labels)))
