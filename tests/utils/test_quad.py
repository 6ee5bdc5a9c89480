"""Groups of four images as one of twice the side."""

import numpy as np
import pytest
import torch
from drawn_split import HYP, assert_same_batches, draw_many, draw_split

from utils.dataloaders import LoadImagesAndLabels, create_dataloader
from utils.datasets.items import QuadKey
from utils.datasets.quad import collate_quad, join_quad
from utils.datasets.sampling import EpochBatches
from utils.errors import OptionError

COUNT = 23  # of pictures: five groups of four, and three over


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return draw_many(tmp_path_factory.mktemp("many"), COUNT)


def plain_item(number: int, height: int = 4, width: int = 6):
    """An item of one colour with one label."""
    shapes = ((8, 12), ((0.5, 0.5), (1.0, 2.0)))
    rows = torch.tensor([[0, number, 0.5, 0.25, 0.2, 0.1]])
    return torch.full((3, height, width), 10 * number, dtype=torch.uint8), rows, f"{number}.png", shapes


# -- one image -----------------------------------------------------------------------------------------------------


def test_four_tiles_with_halved_boxes():
    image, rows, path, shapes = join_quad([plain_item(number) for number in range(4)])
    assert image.dtype == torch.uint8
    expected = torch.zeros(3, 8, 12, dtype=torch.uint8)
    expected[:, 4:, :6], expected[:, :4, 6:], expected[:, 4:, 6:] = 10, 20, 30
    assert torch.equal(image, expected)
    places = [[0.25, 0.125], [0.25, 0.625], [0.75, 0.125], [0.75, 0.625]]
    torch.testing.assert_close(rows, torch.tensor([[0, n, *places[n], 0.1, 0.05] for n in range(4)]))
    assert (path, shapes) == ("0.png", None)


def test_tiles_without_labels():
    items = [(image, rows[:0], path, None) for image, rows, path, _ in map(plain_item, range(4))]
    assert join_quad(items)[1].shape == (0, 6)


def test_one_enlarged():
    ramp = torch.arange(6, dtype=torch.uint8).mul(20).expand(3, 4, 6).contiguous()
    _, rows, path, shapes = plain_item(1)
    image, again, name, doubled = join_quad([(ramp, rows, path, shapes)])
    assert image.shape == (3, 8, 12)
    expected = torch.nn.functional.interpolate(ramp[None].float(), scale_factor=2, mode="bilinear")[0]
    torch.testing.assert_close(image.float(), expected, rtol=0, atol=0.5)
    torch.testing.assert_close(again, rows)
    assert (name, doubled) == (path, ((8, 12), ((1.0, 1.0), (2.0, 4.0))))
    assert join_quad([(ramp, rows, path, None)])[3] is None


# -- loaders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rect", [False, True])
def test_tiles_are_the_items_and_labels_stay_on_their_objects(split, rect):
    dataset = LoadImagesAndLabels(split, 32, 8, augment=True, hyp={}, rect=rect)
    batches = EpochBatches(dataset, 8, shuffle=True, quad=True)
    kinds = set()
    for keys in batches:
        for key in keys:
            image, rows, _, _ = dataset[key]
            alone = [dataset[member] for member in key.members]
            height, width = alone[0][0].shape[1:]
            assert image.shape == (3, 2 * height, 2 * width)
            assert len(rows) == sum(len(item[1]) for item in alone)
            for row in rows:
                x, y = int(row[2] * image.shape[2]), int(row[3] * image.shape[1])
                assert image[0, y, x] > 125  # the middle of a rectangle, not the ground or the fill around it
            if len(key.members) == 4:
                for place, item in enumerate(alone):
                    top, left = height * (place % 2), width * (place // 2)
                    assert torch.equal(image[:, top : top + height, left : left + width], item[0])
            kinds.add(len(key.members))
    assert kinds == {1, 4}


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(4, [1] * 5), (6, [1] * 5), (8, [2, 2, 1]), (16, [4, 1]), (100, [5])]
)
def test_sizes_of_batches(split, batch_size, sizes):
    loader, dataset = create_dataloader(
        split, 32, batch_size, 32, hyp=HYP, augment=True, quad=True, shuffle=True, workers=0
    )
    shapes = [tuple(images.shape) for images, _, _, _ in loader]
    assert shapes == [(size, 3, 64, 64) for size in sizes]
    assert len(loader) == len(sizes)
    assert loader.dataset is dataset


def test_rectangular_batches_make_quads(split):
    loader, dataset = create_dataloader(split, 64, 8, 32, hyp={}, augment=True, rect=True, quad=True, workers=0)
    shapes = [tuple(images.shape) for images, _, _, _ in loader]
    sides = (2 * dataset.batch_shapes).tolist()
    assert shapes == [(count, 3, *side) for count, side in zip((2, 2, 1), sides, strict=True)]
    assert len(set(shapes)) > 1


def test_half_of_the_groups_are_enlarged_and_it_follows_from_seed_epoch_and_index(split):
    dataset = LoadImagesAndLabels(split, 32, hyp=HYP, augment=True)

    def kinds(seed, epoch, shuffle=True, ranks=1):
        found = {}
        for rank in range(ranks):
            batches = EpochBatches(dataset, 8, shuffle=shuffle, seed=seed, quad=True, rank=rank, ranks=ranks)
            batches.set_epoch(epoch)
            for keys in batches:
                assert all(isinstance(key, QuadKey) for key in keys)
                found |= {key.members[0].index: len(key.members) for key in keys}
        return found

    many = [size for seed in range(3) for epoch in range(100) for size in kinds(seed, epoch).values()]
    assert 0.45 < many.count(1) / len(many) < 0.55
    assert set(many) == {1, 4}
    assert kinds(1, 3) == kinds(1, 3)
    fixed = [tuple(kinds(0, epoch, shuffle=False).items()) for epoch in range(9)]
    assert len(set(fixed)) > 1  # without shuffling the groups are the same, but not what becomes of them
    one, two = kinds(0, 4), kinds(0, 4, ranks=2)
    assert all(one[index] == two[index] for index in one.keys() & two.keys())


def test_nothing_depends_on_workers(split):
    def batches(workers):
        loader, _ = create_dataloader(
            split, 32, 8, 32, hyp=HYP, augment=True, quad=True, shuffle=True, workers=workers, seed=4
        )
        return [batch for _ in range(2) for batch in loader]

    torch.manual_seed(1)
    np.random.seed(1)
    alone = batches(0)
    assert_same_batches(alone, batches(2))


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_get_equally_many_groups(split, ranks, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    own = -(-COUNT // ranks) // 4  # groups of one rank
    for rank in range(ranks):
        loader, _ = create_dataloader(split, 32, 4, 32, augment=True, quad=True, workers=0, rank=rank)
        assert len(loader) == len(list(loader)) == own


def test_too_few_images(split, tmp_path):
    with pytest.raises(OptionError, match="--batch-size 3: expected 4 or more, as --quad joins"):
        create_dataloader(split, 32, 3, 32, quad=True, augment=True, workers=0)
    for file in sorted(draw_split(tmp_path).iterdir())[3:]:
        file.unlink()
    with pytest.raises(OptionError, match="3 images are too few"):
        create_dataloader(tmp_path / "images" / "train", 32, 8, 32, quad=True, augment=True, workers=0)


# -- collating for loaders of other people's making ---------------------------------------------------------------


def test_collate_fn4_joins_items(split):
    dataset = LoadImagesAndLabels(split, 32, hyp=HYP, augment=True)

    def batches(workers):
        loader = torch.utils.data.DataLoader(
            dataset, 8, collate_fn=LoadImagesAndLabels.collate_fn4, num_workers=workers, drop_last=False
        )
        return list(loader)

    torch.manual_seed(1)
    first = batches(0)
    torch.manual_seed(2)
    assert_same_batches(first, batches(1))
    assert [tuple(images.shape) for images, _, _, _ in first] == [(2, 3, 64, 64), (2, 3, 64, 64), (1, 3, 64, 64)]
    for _, targets, paths, _ in first:
        assert set(targets[:, 0].tolist()) <= set(range(len(paths)))


def test_collate_fn4_tosses_a_fair_coin(split):
    dataset = LoadImagesAndLabels(split, 32, hyp=HYP, augment=True)
    enlarged = 0
    for epoch in range(40):
        members = [dataset[index, epoch] for index in range(4)]
        image = collate_quad(members)[0][0]
        enlarged += not torch.equal(image[:, :32, :32], members[0][0])
    assert 10 < enlarged < 30
    with pytest.raises(ValueError, match="groups of 4"):
        collate_quad(members[:3])
