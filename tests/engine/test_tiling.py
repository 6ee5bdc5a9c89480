"""detect.py --tile: boxes come back in the pixels of the whole picture, and tiles find what is too small untiled.

The first detector's head ignores its input: every cell predicts a box of 10 x 13 px around its centre. So each tile
finds a box in each of its cells, wherever the tile lies.
"""

from __future__ import annotations

import numpy as np
import pytest

import detect
from engine.detection import run_detection
from engine.options.detect import DetectOptions
from engine.predictor import Predictor, Selection
from engine.tiling import TiledPredictor, Tiling, detect_tiled
from models.backends.multi import DetectMultiBackend
from utils.datasets.shapes import draw_large_scene
from utils.datasets.sources import LoadImages
from utils.errors import OptionError
from utils.image_io import write_image


@pytest.fixture(scope="module")
def backend(weights) -> DetectMultiBackend:
    return DetectMultiBackend(weights)


def corners(boxes: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(int(side) for side in row[:4]) for row in boxes}


def test_every_cell_of_every_tile_is_found_in_its_place(backend):
    """Tiles of 64 px side by side see the grid of cells that the whole would see at full size."""
    image = np.zeros((128, 192, 3), np.uint8)
    found = detect_tiled(backend, image, Tiling(64, 0.0, whole=False), imgsz=64)
    x, y = np.meshgrid(np.arange(4, 192, 8), np.arange(4, 128, 8))
    inner = {
        (int(left) - 5, round(top - 6.5), int(left) + 5, round(top + 6.5))
        for left, top in zip(x.flat, y.flat, strict=True)
        if 4 < left % 64 < 60 and 4 < top % 64 < 60  # those at a tile's border are cut there
    }
    assert len(inner) == 6 * 36 and inner <= corners(found)
    assert found.dtype == np.float32 and (found[:, 5] == 1).all() and (np.diff(found[:, 4]) <= 0).all()
    assert found[:, :4].min() >= 0 and (found[:, [0, 2]] <= 192).all() and (found[:, [1, 3]] <= 128).all()


def test_tiles_are_magnified_to_the_networks_size(backend):
    """A tile of 32 px seen at 64: boxes of 10 x 13 px there are 5 x 6.5 px of the picture."""
    found = detect_tiled(backend, np.zeros((32, 64, 3), np.uint8), Tiling(32, 0.0, whole=False), imgsz=64)
    sizes = found[:, 2:4] - found[:, :2]
    assert sizes.max() <= 8 and (found[:, 2] > 60).any()
    assert 4 <= np.median(sizes[:, 0]) <= 5 and 6 <= np.median(sizes[:, 1]) <= 7


@pytest.mark.parametrize("hw", [(1, 1), (64, 64), (20, 50), (3, 60)])
@pytest.mark.parametrize("whole", [True, False])
def test_a_picture_within_one_tile_is_as_without_tiles(backend, tmp_path, hw, whole):
    write_image(tmp_path / "small.png", np.zeros((*hw, 3), np.uint8))
    source = LoadImages(tmp_path, 64, backend.stride)
    (plain,) = Predictor(backend).stream(source.iter_frames())
    (tiled,) = TiledPredictor(backend, Tiling(64, 0.5, whole), (64, 64)).stream(source.iter_frames())
    np.testing.assert_array_equal(plain.boxes, tiled.boxes)


def test_the_whole_picture_is_seen_as_well(backend):
    image = np.zeros((256, 256, 3), np.uint8)
    only = detect_tiled(backend, image, Tiling(64, 0.0, whole=False), imgsz=64)
    both = detect_tiled(backend, image, Tiling(64, 0.0), imgsz=64)
    large = (both[:, 2] - both[:, 0]) >= 39  # 10 px at a quarter of the size
    assert large.any() and not ((only[:, 2] - only[:, 0]) > 21).any()


def test_selection_holds_for_the_whole(backend):
    image = np.zeros((128, 192, 3), np.uint8)
    assert len(detect_tiled(backend, image, Tiling(64), imgsz=64, selection=Selection(max_det=7))) == 7
    assert detect_tiled(backend, image, Tiling(64), imgsz=64, selection=Selection(conf_thres=0.99)).shape == (0, 6)
    assert len(detect_tiled(backend, image, Tiling(64), imgsz=64, selection=Selection(classes=[0]))) == 0


def test_a_run_with_tiles(weights, tmp_path):
    write_image(tmp_path / "large.png", draw_large_scene("tiles", 320).image)
    common = {
        "weights": str(weights),
        "source": str(tmp_path / "large.png"),
        "imgsz": 64,
        "device": "cpu",
        "max_det": 9999,
    }
    settings = {**common, "project": str(tmp_path / "runs"), "save_txt": True}
    plain = run_detection(DetectOptions.from_kwargs(**settings))
    tiled = run_detection(DetectOptions.from_kwargs(**settings, tile=64, overlap=0.25))
    alone = run_detection(DetectOptions.from_kwargs(**settings, tile=64, overlap=0, tile_only=True))
    assert plain.detections == 64 < alone.detections < tiled.detections
    assert len((tiled.save_dir / "labels" / "large.txt").read_text().splitlines()) == tiled.detections


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"tile": 31}, "--tile"),
        ({"tile": -1}, "--tile"),
        ({"tile": 64, "overlap": 0.95}, "--overlap"),
        ({"tile": 64, "overlap": -0.1}, "--overlap"),
        ({"tile": 64, "overlap": float("nan")}, "--overlap"),
        ({"tile_only": True}, "--tile-only"),
        ({"tile": 64, "visualize": True}, "--visualize"),
        ({"tile": 64, "show_routing": "auto"}, "--show-routing"),
    ],
)
def test_what_cannot_be_cut_is_refused(options, flag):
    with pytest.raises(OptionError, match=f"^{flag} "):
        DetectOptions.from_kwargs(**options)


def test_the_flags():
    options = detect.parse_opt(["--tile", "640", "--overlap", "0.3", "--tile-only"])
    assert (options.tile, options.overlap, options.tile_only) == (640, 0.3, True)


def test_large_scenes_are_the_same_everywhere_and_have_what_they_say():
    scene = draw_large_scene("a", 640)
    again = draw_large_scene("a", 640)
    np.testing.assert_array_equal(scene.image, again.image)
    assert scene.image.shape == (640, 640, 3)
    longest = scene.labels[:, 3:].max(1) * 640
    assert (longest < 26).sum() > 15 and (longest > 60).any()
