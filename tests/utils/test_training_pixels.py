"""Pixels of training images: only what is seen is painted, and large JPEGs are decoded small."""

import cv2
import numpy as np
import pytest

from utils.augmentations import copy_paste
from utils.datasets.detection import LoadImagesAndLabels
from utils.datasets.mosaic import Mosaic, Tile
from utils.geometry_warp import Warp, WarpRanges
from utils.image_io import read_image

NO_LABELS = np.zeros((0, 5), np.float32)


@pytest.fixture
def jpeg(tmp_path):
    """Where the one image of a set goes; its label is there."""
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    return tmp_path / "images" / "a.jpg"


def outside(shape_hw, rows: slice, columns: slice) -> np.ndarray:
    mask = np.ones(shape_hw, bool)
    mask[rows, columns] = False
    return mask


@pytest.mark.parametrize(
    "ranges", [WarpRanges(0, 0.1, 0.5, 0), WarpRanges(180, 0.4, 1.5, 30), WarpRanges(5, 0.1, 0.5, 5, 0.002)]
)
def test_what_a_warp_does_not_see_need_not_be_painted(ranges):
    rng = np.random.default_rng(5)
    tiles = [
        Tile(rng.integers(0, 256, (*hw, 3), dtype=np.uint8), NO_LABELS, [], hw)
        for hw in [(64, 64), (40, 64), (64, 48), (1, 64)]
    ]
    for _ in range(20):
        mosaic = Mosaic.around(tuple(rng.integers(32, 97, 2).tolist()), tiles, 64)
        warp = Warp.sample(ranges, (128, 128), (-32, -32), rng)
        rows, columns = warp.seen()
        window = mosaic.paint((rows, columns))
        whole = mosaic.paint()
        np.testing.assert_array_equal(window[rows, columns, :3], whole[rows, columns, :3])
        unseen = np.where(outside((128, 128), rows, columns)[..., None], 255 - whole, whole)
        np.testing.assert_array_equal(warp.image(unseen)[..., :3], warp.image(whole)[..., :3])


def test_objects_are_pasted_onto_the_painted_canvas():
    triangle = np.array([[0.1, 0.1], [0.4, 0.1], [0.1, 0.4]], np.float32)
    label = np.array([[0, 0.25, 0.25, 0.3, 0.3]], np.float32)
    tiles = [Tile(np.full((64, 64, 3), 50 * place, np.uint8), label, [triangle], (64, 64)) for place in range(4)]
    mosaic = Mosaic.around((64, 64), tiles, 64)
    targets, outlines = mosaic.labels()
    pasted, rows, polygons = copy_paste(mosaic.paint(), targets, outlines, 1.0, np.random.default_rng(0))
    assert pasted.shape == (128, 128, 4) and len(rows) == len(polygons) == 8
    assert (pasted[8:12, 112:119, :3] == 0).all()  # the upper left one's triangle, in the upper right tile


@pytest.mark.parametrize(
    ("wh", "size", "reduces"),
    [
        ((640, 480), 320, True),
        ((480, 640), 320, True),
        ((640, 480), 321, False),  # half of it would be too small
        ((1288, 904), 150, True),  # to an eighth, and from there to the size
        ((1283, 901), 160, False),  # no side divides
    ],
)
def test_large_jpegs_are_decoded_small_for_training(jpeg, wh, size, reduces):
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    cv2.imwrite(str(jpeg), cv2.resize(coarse, wh, interpolation=cv2.INTER_CUBIC))
    whole = cv2.imread(str(jpeg))
    tile = LoadImagesAndLabels(jpeg.parent, size, augment=True).load_tile(0)
    validated = LoadImagesAndLabels(jpeg.parent, size).load_tile(0)
    assert tile.original_hw == whole.shape[:2]
    assert tile.image.shape == validated.image.shape and max(tile.image.shape) == size
    exact = cv2.resize(whole, tile.image.shape[1::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(validated.image, exact)
    difference = np.abs(tile.image.astype(int) - exact)
    assert difference.mean() < 1 and difference.max() < 12
    assert read_image(jpeg, 2).shape[:2] == (-(-wh[1] // 2), -(-wh[0] // 2))
    in_full = cv2.resize(whole, tile.image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    assert (tile.image != in_full).any() == reduces


def test_a_jpeg_that_changed_since_it_was_listed_is_still_scaled_to_fit(jpeg):
    cv2.imwrite(str(jpeg), np.zeros((480, 640, 3), np.uint8))
    dataset = LoadImagesAndLabels(jpeg.parent, 320, augment=True)
    for height, width in ((100, 640), (640, 100), (20, 20), (2000, 3000)):
        cv2.imwrite(str(jpeg), np.zeros((height, width, 3), np.uint8))
        assert dataset[0][0].shape == (3, 320, 320)
        assert max(dataset.load_tile(0).image.shape) == 320
