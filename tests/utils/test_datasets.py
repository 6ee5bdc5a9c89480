"""Items, mosaics, batches, loaders and the dataset YAML, on a few drawn images."""

import json

import cv2
import numpy as np
import pytest
import torch
import yaml
from drawn_split import HYP, IMAGES, assert_same_batches, draw_split

from utils.dataloaders import IMG_FORMATS, VID_FORMATS, LoadImagesAndLabels, create_dataloader
from utils.datasets.config import check_dataset, dataset_names
from utils.datasets.mosaic import Mosaic, Tile
from utils.datasets.rectangles import rectangle_groups, rectangle_shapes
from utils.errors import ConfigError, DatasetError
from utils.paths import PROJECT_ROOT

pytestmark = pytest.mark.usefixtures("heard")


@pytest.fixture
def split(tmp_path):
    """A folder of training images with labels."""
    return draw_split(tmp_path)


def white_bounds(image: torch.Tensor) -> np.ndarray:
    """Corner box of the white pixels (fill is 114) of a (3, H, W) image."""
    rows, columns = np.nonzero(image[0].numpy() > 180)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def corners(row: torch.Tensor, shape_hw) -> np.ndarray:
    _, _, x, y, width, height = row.tolist()
    sides = np.array([shape_hw[1], shape_hw[0]] * 2)
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2]) * sides


# -- items ---------------------------------------------------------------------------------------------------------


def test_columns_of_the_data_set(split):
    dataset = LoadImagesAndLabels(split, 64)
    assert len(dataset) == dataset.n == len(dataset.indices) == len(IMAGES)
    names = sorted(IMAGES)
    assert [path.rsplit("/", 1)[1] for path in dataset.im_files] == [f"{name}.png" for name in names]
    np.testing.assert_array_equal(dataset.shapes, [IMAGES[name][0] for name in names])
    empty = names.index("empty")
    assert dataset.labels[empty].shape == (0, 5)
    assert all(labels.dtype == np.float32 for labels in dataset.labels)
    assert list(dataset.segments) == [[]] * len(IMAGES)
    assert not (split.parents[1] / "labels" / "train.cache").exists()


@pytest.mark.parametrize("rect", [False, True])
def test_validation_items_map_back_to_the_file(split, rect):
    dataset = LoadImagesAndLabels(split, 64, batch_size=2, rect=rect, pad=0.5, stride=32)
    for index, path in enumerate(dataset.im_files):
        image, rows, name, ((h0, w0), (ratio_hw, pad_wh)) = dataset[index]
        (width, height), box = IMAGES[path.rsplit("/", 1)[1].removesuffix(".png")]
        assert (name, h0, w0) == (path, height, width)
        assert image.dtype == torch.uint8
        assert image.is_contiguous()
        expected = dataset.batch_shapes[dataset.batch[index]] if rect else (64, 64)
        np.testing.assert_array_equal(image.shape, (3, *expected))
        if box is None:
            assert rows.shape == (0, 6)
            continue
        found = corners(rows[0], image.shape[1:])
        np.testing.assert_allclose(found, white_bounds(image), atol=1.5)
        back = (found - np.tile(pad_wh, 2)) / np.tile(ratio_hw[::-1], 2)
        np.testing.assert_allclose(back, box, atol=1e-3)


def test_items_are_rgb(tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.full((32, 32, 3), (1, 2, 3), np.uint8))  # BGR
    image = LoadImagesAndLabels(tmp_path / "images", 32)[0][0]
    np.testing.assert_array_equal(image[:, 0, 0], (3, 2, 1))


def test_image_sides_are_rounded_up():
    dataset = LoadImagesAndLabels.__new__(LoadImagesAndLabels)
    dataset.img_size = 320
    assert dataset._resized_hw((480, 640)) == (240, 320)
    assert dataset._resized_hw((333, 500)) == (214, 320)  # 213.12
    assert dataset._resized_hw((500, 333)) == (320, 214)
    assert dataset._resized_hw((320, 7)) == (320, 7)


def test_single_class_and_fewest_items(split):
    dataset = LoadImagesAndLabels(split, 64, single_cls=True, min_items=1)
    assert dataset.n == len(IMAGES) - 1
    assert all((labels[:, 0] == 0).all() for labels in dataset.labels)


def test_faults_are_reported_and_capped(split, caplog):
    caplog.set_level("INFO")
    (split / "broken.jpg").write_text("no image")
    label = split.parents[1] / "labels" / "train" / "wide.txt"
    label.write_text(label.read_text() + "7 0.5 0.5 0.1 0.1\n" + "bad\n" * 60)
    dataset = LoadImagesAndLabels(split, 64, nc=2, prefix="train: ")
    assert dataset.n == len(IMAGES)
    assert len(dataset.labels[-2]) == 1
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 51
    assert warnings[-1] == "train: ... and 12 more faults"
    assert any("broken.jpg" in text for text in warnings)
    assert any(f"{label}:3: " in text for text in warnings)
    summary = "train: 6 images, 1 left out, 5 objects, 1 backgrounds, 62 faults"
    assert summary in [record.getMessage() for record in caplog.records]


def test_class_beyond_the_count_is_left_out(split, caplog):
    dataset = LoadImagesAndLabels(split, 64, nc=1)
    assert sum(map(len, dataset.labels)) == 0
    assert "wide.txt:1: class 1 is not below" in caplog.text
    with pytest.raises(DatasetError, match="not one label"):
        LoadImagesAndLabels(split, 64, nc=1, augment=True)


# -- augmentation --------------------------------------------------------------------------------------------------


def test_mosaic_places_tiles_and_labels_exactly():
    size, centre = 40, (30, 50)
    colours = (10, 20, 30, 40)
    shapes = ((20, 40), (40, 24), (40, 40), (30, 40))  # height, width
    tiles = []
    for colour, shape in zip(colours, shapes, strict=True):
        whole = np.array([[colour, 0.5, 0.5, 1, 1]], np.float32)
        tiles.append(Tile(np.full((*shape, 3), colour, np.uint8), whole, [], shape))
    tiles[3] = Tile(tiles[3].image, tiles[3].labels, [np.array([[0, 0], [1, 0], [1, 1]], np.float32)], shapes[3])
    mosaic = Mosaic.around(centre, tiles, size)
    canvas, (labels, polygons) = mosaic.paint(), mosaic.labels()
    assert canvas.shape == (80, 80, 4)
    expected = [[10, 0, 30, 30, 50], [20, 30, 10, 54, 50], [30, 0, 50, 30, 80], [40, 30, 50, 70, 80]]
    np.testing.assert_array_equal(labels, expected)
    for colour, x1, y1, x2, y2 in expected:
        assert (canvas[y1:y2, x1:x2, :3] == colour).all()
    area = sum((x2 - x1) * (y2 - y1) for _, x1, y1, x2, y2 in expected)
    assert (canvas[..., 0] == 114).sum() == 80 * 80 - area
    assert [len(polygon) for polygon in polygons] == [0, 0, 0, 3]
    np.testing.assert_array_equal(polygons[3], [[30, 50], [70, 50], [70, 80]])


def test_mosaic_leaves_out_what_is_off_the_canvas():
    corner = np.array([[0, 0.05, 0.05, 0.1, 0.1]], np.float32)
    tile = Tile(np.zeros((40, 40, 3), np.uint8), corner, [], (40, 40))
    labels, polygons = Mosaic.around((20, 20), [tile] * 4, 40).labels()
    np.testing.assert_array_equal(labels, [[0, 20, 20, 24, 24]])  # only the lower right one shows its corner
    assert polygons == []


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_training_labels_stay_on_their_objects(split, mosaic):
    hyp = {**HYP, "mosaic": mosaic, "mixup": 0.0, "degrees": 0.0, **dict.fromkeys(("hsv_h", "hsv_s", "hsv_v"), 0.0)}
    dataset = LoadImagesAndLabels(split, 96, augment=True, hyp=hyp)
    seen = 0
    for epoch in range(3):
        for index in range(dataset.n):
            image, rows, _, shapes = dataset[index, epoch]
            assert image.shape == (3, 96, 96)
            assert (shapes is None) == bool(mosaic)
            assert ((rows[:, 2:] >= 0) & (rows[:, 2:] <= 1)).all()
            for row in rows:
                x1, y1, x2, y2 = corners(row, (96, 96)).round().astype(int)
                inner = image[0, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2]
                if inner.numel():
                    assert (inner > 180).float().mean() > 0.95
                    seen += 1
    assert seen > 10


def test_polygons_follow_the_single_image(tmp_path):
    image = np.zeros((60, 120, 3), np.uint8)
    outline = np.array([[20, 10], [80, 10], [50, 50]])
    cv2.fillPoly(image, [outline], (255, 255, 255))
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), image)
    shares = (outline / (120, 60)).reshape(-1)
    (tmp_path / "labels" / "a.txt").write_text("0 " + " ".join(f"{value:.6f}" for value in shares))
    dataset = LoadImagesAndLabels(tmp_path / "images", 120, augment=True, hyp={"degrees": 20, "translate": 0.1})
    for epoch in range(5):
        turned, rows, _, _ = dataset[0, epoch]
        np.testing.assert_allclose(corners(rows[0], turned.shape[1:]), white_bounds(turned), atol=2.5)


def test_items_depend_on_seed_epoch_and_index_alone(split):
    first = LoadImagesAndLabels(split, 64, augment=True, hyp=HYP, seed=3)
    again = LoadImagesAndLabels(split, 64, augment=True, hyp=HYP, seed=3)
    other = LoadImagesAndLabels(split, 64, augment=True, hyp=HYP, seed=4)
    again[2, 0]
    np.random.seed(5)
    torch.testing.assert_close(first[1, 5][0], again[1, 5][0], rtol=0, atol=0)
    first.epoch = 5
    torch.testing.assert_close(first[1][1], again[1, 5][1], rtol=0, atol=0)
    torch.testing.assert_close(first[-1][0], first[first.n - 1][0], rtol=0, atol=0)
    assert (first[1, 5][0] != first[1, 6][0]).any()
    assert (first[1, 5][0] != other[1, 5][0]).any()
    with pytest.raises(IndexError):
        first[first.n]


# -- rectangles ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "pad", "shape"),
    [
        ((0.5, 0.75), 0.0, (480, 640)),
        ((0.5, 0.75), 0.5, (512, 672)),
        ((1.25, 2.0), 0.0, (640, 512)),
        ((0.5, 2.0), 0.0, (640, 640)),
        ((1.0, 1.0), 0.5, (672, 672)),
        ((0.51, 0.51), 0.0, (352, 640)),
    ],
)
def test_rectangle_shapes(bounds, pad, shape):
    np.testing.assert_array_equal(rectangle_shapes(np.array([bounds]), 640, 32, pad), [shape])


def test_training_rectangles_are_neighbours_in_aspect_ratio():
    sizes = np.array([size for size, _ in IMAGES.values()])
    order, batch, shapes = rectangle_groups(sizes, 4, 64, 32, 0.0, own_shapes=False)
    ratios = sizes[order, 1] / sizes[order, 0]
    assert (np.diff(ratios) >= 0).all()
    np.testing.assert_array_equal(batch, [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(shapes, [[64, 64], [64, 64]])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_validation_shapes_do_not_depend_on_the_batch_size(batch_size):
    rng = np.random.default_rng(0)
    sizes = rng.integers(30, 300, (57, 2))
    order, batch, shapes = rectangle_groups(sizes, batch_size, 320, 32, 0.5, own_shapes=True)
    assert sorted(order) == list(range(57))
    assert (np.diff(batch) >= 0).all()
    assert np.bincount(batch).max() <= batch_size
    assert np.bincount(batch).min() > 0
    ratios = sizes[order, 1] / sizes[order, 0]
    own = rectangle_shapes(np.stack([ratios, ratios], 1), 320, 32, 0.5)
    np.testing.assert_array_equal(shapes[batch], own)
    full = np.unique(own, axis=0, return_counts=True)[1]
    assert len(shapes) == np.ceil(full / batch_size).sum()  # no needless small batch


# -- loaders -------------------------------------------------------------------------------------------------------


def test_batches_are_collated(split):
    loader, dataset = create_dataloader(split, 64, 4, 32, workers=0)
    assert len(loader) == 2
    sizes = []
    for images, targets, paths, shapes in loader:
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 64, 64)
        assert len(images) == len(paths) == len(shapes)
        counts = [len(dataset.labels[dataset.im_files.index(path)]) for path in paths]
        np.testing.assert_array_equal(targets[:, 0], np.repeat(np.arange(len(paths)), counts))
        sizes.append(len(images))
    assert sizes == [4, 2]


def test_nothing_depends_on_workers(split):
    def batches(workers, epochs=(0, 1)):
        loader, _ = create_dataloader(split, 64, 2, 32, hyp=HYP, augment=True, shuffle=True, workers=workers, seed=1)
        result = []
        for epoch in epochs:
            loader.set_epoch(epoch)
            result += list(loader)
        return result

    alone = batches(0)
    assert_same_batches(alone, batches(2))  # its workers live through both epochs
    assert_same_batches(alone[3:], batches(0, epochs=(1,)))
    assert sorted(path for batch in alone[:3] for path in batch[2]) == sorted(set(sum((b[2] for b in alone), ())))
    assert [batch[2] for batch in alone[:3]] != [batch[2] for batch in alone[3:]]


def test_epochs_pass_by_themselves(split):
    named, _ = create_dataloader(split, 64, 4, 32, hyp=HYP, augment=True, shuffle=True, workers=0)
    counted, _ = create_dataloader(split, 64, 4, 32, hyp=HYP, augment=True, shuffle=True, workers=0)
    for epoch in (0, 1, 2):
        named.set_epoch(epoch)
        assert_same_batches(named, counted)


def test_loading_leaves_torchs_random_stream_alone(split):
    loader, _ = create_dataloader(split, 64, 4, 32, hyp=HYP, augment=True, shuffle=True, workers=0)
    state = torch.get_rng_state()
    list(loader)
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)


@pytest.mark.parametrize("augment", [False, True])
def test_rectangular_loader(split, augment):
    loader, dataset = create_dataloader(
        split, 64, 2, 32, hyp=HYP, augment=augment, rect=True, shuffle=augment, pad=0.5 * (not augment), workers=0
    )
    paths = []
    for images, _, names, _ in loader:
        shape = dataset.batch_shapes[dataset.batch[dataset.im_files.index(names[0])]]
        np.testing.assert_array_equal(images.shape[2:], shape)
        paths += names
    assert paths == list(dataset.im_files)
    assert len(loader) == len(dataset.batch_shapes)


@pytest.mark.parametrize("kind", ["ram", "disk", "auto"])
@pytest.mark.parametrize("augment", [False, True])
def test_kept_pixels_change_nothing(split, kind, augment, monkeypatch):
    plain, _ = create_dataloader(split, 64, 4, 32, hyp=HYP, augment=augment, workers=0)
    before = sorted(split.iterdir())
    kept, dataset = create_dataloader(split, 64, 4, 32, hyp=HYP, augment=augment, workers=0, cache=kind)
    expected = list(plain)
    monkeypatch.setattr(dataset, "_decode", None)  # not needed any more
    assert_same_batches(kept, expected)
    assert sorted(split.iterdir()) == before


@pytest.mark.parametrize(
    ("started_by", "workers", "kept"), [("fork", 1, True), ("spawn", 1, False), ("spawn", 0, True)]
)
def test_processes_that_do_not_share_memory_get_no_copies_of_it_unasked(split, started_by, workers, kept, monkeypatch):
    monkeypatch.setattr("multiprocessing.get_start_method", lambda allow_none: started_by)
    _, dataset = create_dataloader(split, 64, 2, 32, workers=workers, cache="auto")
    assert (dataset._ram is not None) == kept


def test_only_ram_and_disk_keep_pixels(split):
    with pytest.raises(DatasetError, match="ram, disk or none"):
        create_dataloader(split, 64, 4, 32, workers=0, cache="rom")


def test_changed_image_is_decoded_again(split):
    LoadImagesAndLabels(split, 64, cache_images="disk")
    cv2.imwrite(str(split / "square.png"), np.full((90, 90, 3), 200, np.uint8))
    dataset = LoadImagesAndLabels(split, 64, cache_images="disk")
    image = dataset[[path.rsplit("/", 1)[1] for path in dataset.im_files].index("square.png")][0]
    assert (image == 200).all()
    for file in split.parents[1].glob("labels/*.pixels-*/*.npy"):
        file.write_bytes(b"damaged")
    assert (dataset[3][0] != 114).any()


def test_suffixes():
    assert {"jpg", "png", "pfm"} < set(IMG_FORMATS)
    assert {"mp4", "gif"} < set(VID_FORMATS)


# -- dataset YAML --------------------------------------------------------------------------------------------------


def write_yaml(file, **content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.parametrize("place", ["current folder", "beside the file", "absolute"])
def test_where_a_path_is_looked_for(split, monkeypatch, place):
    root = split.parents[1]
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    monkeypatch.chdir(root.parent if place == "current folder" else elsewhere)
    file = (elsewhere / "configs" if place != "beside the file" else root.parent) / "d.yaml"
    path = str(root) if place == "absolute" else root.name
    data = check_dataset(write_yaml(file, path=path, train="images/train", val=["images/train"], names=["a", "b"]))
    assert data["path"] == root
    assert data["train"] == str(split)
    assert data["val"] == [str(split)]
    assert data["test"] is None
    assert data["names"] == {0: "a", 1: "b"}
    assert data["nc"] == 2
    assert check_dataset(data) == data  # what was checked passes again


def test_file_without_path_and_one_folder_too_high(split):
    root = split.parents[1]
    file = write_yaml(root / "data.yaml", train="../images/train", val="../images/train", names=["a"], extra=1)
    data = check_dataset(file)
    assert data["val"] == str(split)
    assert data["extra"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": None}, "`train:` is missing"),
        ({"val": None}, "`val:` is missing"),
        ({"names": None}, "`names:` is missing"),
        ({"train": []}, "`train:` is an empty list"),
        ({"val": []}, "`val:` is an empty list"),
        ({"drawn_by": ["shapes"]}, "is unknown; known: shapes"),
        ({"nc": 3}, "`nc: 3` contradicts the 2 names"),
        ({"names": ["a", ["b"]]}, "which is no name"),
        ({"nc": "2"}, "`nc: '2'` contradicts the 2 names"),
        ({"names": {0: "a", 2: "b"}}, "must be 0 to 1"),
        ({"names": {"a": "x"}}, "whole numbers"),
        ({"names": "a b"}, "list or a mapping"),
        ({"names": []}, "empty"),
        ({"val": 5}, "`val:` must be"),
        ({"val": "images/val"}, "images/val"),
        ({"train": "gone", "val": "gone", "download": "https://example.org/d.zip"}, "nothing is downloaded.*example"),
        ({"drawn_by": "pencil"}, "pencil"),
    ],
)
def test_what_is_wrong_with_a_yaml(split, change, words):
    content = {"path": str(split.parents[1]), "train": "images/train", "val": "images/train", "names": ["a", "b"]}
    with pytest.raises(DatasetError, match=words):
        check_dataset({**content, **change})


def test_mapping_is_not_changed(split):
    content = {"path": str(split.parents[1]), "train": "images/train", "val": "images/train", "names": {1: "b", 0: "a"}}
    before = json.dumps({**content, "names": sorted(content["names"].items())})
    assert list(check_dataset(content)["names"].items()) == [(0, "a"), (1, "b")]
    assert json.dumps({**content, "names": sorted(content["names"].items())}) == before


@pytest.mark.parametrize(("name", "classes"), [("coco", 80), ("coco128", 80), ("VOC", 20), ("shapes", 5)])
def test_shipped_names(name, classes):
    names = dataset_names(f"{name}.yaml")
    assert list(names) == list(range(classes))
    assert len(set(names.values())) == classes


def test_shipped_recipes_have_the_same_keys():
    recipes = {file.stem: yaml.safe_load(file.read_text()) for file in (PROJECT_ROOT / "data/hyps").glob("*.yaml")}
    shipped = ("scratch-low", "scratch-med", "scratch-high", "VOC", "Objects365", "no-augmentation")
    assert {f"hyp.{name}" for name in shipped} <= set(recipes)
    keys = set(recipes["hyp.scratch-low"])
    for name, recipe in recipes.items():
        assert set(recipe) - {"anchors", "nbs", "optimizer"} == keys, name
        assert all(isinstance(recipe[key], float) for key in keys), name
    off = recipes["hyp.no-augmentation"]
    assert not any(off[key] for key in keys if key in HYP and key != "lr0")


def test_unknown_yaml():
    with pytest.raises(ConfigError):
        check_dataset("no_such_dataset.yaml")
