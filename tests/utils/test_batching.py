"""Sharing an epoch out over processes, and drawing images by weight."""

import multiprocessing
import os
from itertools import chain

import numpy as np
import pytest
import torch
from drawn_split import HYP, assert_same_batches, draw_many

from utils.class_weights import labels_to_class_weights, labels_to_image_weights
from utils.dataloaders import create_dataloader
from utils.datasets.detection import LoadImagesAndLabels
from utils.datasets.sampling import EpochBatches, _earlier_occurrences
from utils.dist import all_gather
from utils.errors import OptionError
from utils.log import LOGGER

COUNT = 11  # of pictures


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return draw_many(tmp_path_factory.mktemp("many"), COUNT)


pytestmark = pytest.mark.usefixtures("heard")


def indices(batches):
    """Image numbers of each batch of keys."""
    return [[key.index for key in batch] for batch in batches]


def flat(batches):
    return list(chain.from_iterable(indices(batches)))


# -- sharing out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 16])
@pytest.mark.parametrize("shuffle", [False, True])
def test_training_images_are_shared_out_evenly(split, ranks, batch_size, shuffle):
    dataset = LoadImagesAndLabels(split, 32, batch_size)
    settings = {"shuffle": shuffle, "seed": 3}
    shares = [EpochBatches(dataset, batch_size, **settings, rank=rank, ranks=ranks) for rank in range(ranks)]
    for epoch in (0, 1):
        order = flat(EpochBatches(dataset, batch_size, **settings)) if epoch == 0 else None
        passes = [list(share) for share in shares]
        assert len({len(own) for own in passes}) == 1
        assert [len(share) for share in shares] == [len(own) for own in passes]
        seen = [flat(own) for own in passes]
        assert len({len(own) for own in seen}) == 1
        in_turn = [index for together in zip(*seen, strict=True) for index in together]
        assert sorted(in_turn[:COUNT]) == list(range(COUNT))
        assert in_turn[COUNT:] == in_turn[: -COUNT % ranks]
        if order:
            assert in_turn[:COUNT] == order


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 16])
@pytest.mark.parametrize("rect", [False, True])
@pytest.mark.parametrize("augment", [False, True])
def test_every_batch_belongs_to_one_rank(split, ranks, batch_size, rect, augment):
    dataset = LoadImagesAndLabels(split, 32, batch_size, augment=augment, rect=rect, pad=0.5)
    whole = indices(EpochBatches(dataset, batch_size))
    assert sorted(chain.from_iterable(whole)) == list(range(COUNT))
    for rank in range(ranks):
        share = EpochBatches(dataset, batch_size, rank=rank, ranks=ranks, repeat=False)
        assert indices(share) == whole[rank::ranks]
        assert len(share) == len(whole[rank::ranks])


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5])
def test_rectangular_training_batches_are_shared_out_whole(split, ranks):
    dataset = LoadImagesAndLabels(split, 32, 4, augment=True, rect=True)
    whole = indices(EpochBatches(dataset, 4))
    assert [len(batch) for batch in whole] == [4, 4, 3]
    shares = [EpochBatches(dataset, 4, rank=rank, ranks=ranks) for rank in range(ranks)]
    passes = [indices(share) for share in shares]
    in_turn = [batch for together in zip(*passes, strict=True) for batch in together]
    assert in_turn == whole + [whole[number % 3] for number in range(-3 % ranks)]
    assert {len(share) for share in shares} == {-(-3 // ranks)}


@pytest.mark.parametrize("workers", [0, 1])
def test_ranks_validate_the_batches_of_one_process(split, workers, monkeypatch):
    settings = {"rect": True, "pad": 0.5, "workers": workers, "repeat": False}
    alone = list(create_dataloader(split, 64, 4, 32, **settings)[0])
    ranks = len(alone) + 1  # the last one has nothing to do
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    for rank in range(ranks):
        loader, _ = create_dataloader(split, 64, 4, 32, **settings, rank=rank)
        assert_same_batches(loader, alone[rank::ranks])
        assert len(loader) == len(alone[rank::ranks])


def test_a_rank_that_is_not_there(split):
    with pytest.raises(OptionError, match="rank 1 of 1 processes"):
        create_dataloader(split, 64, 4, 32, rank=1, workers=0)
    with pytest.raises(ValueError, match="rank 2 is not one of 2"):
        EpochBatches(LoadImagesAndLabels(split, 32), 4, rank=2, ranks=2)


# -- several real processes ----------------------------------------------------------------------------------------


def make_together(rank: int, ranks: int, split: str, folder: str) -> None:
    """What one of several processes says and gets, into files."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks), GLOO_SOCKET_IFNAME="lo")
    said = []
    LOGGER.addFilter(lambda record: said.append(record.getMessage()) or False)
    LOGGER.setLevel("INFO")
    meeting = torch.distributed.FileStore(f"{folder}/meeting", ranks)
    torch.distributed.init_process_group("gloo", store=meeting, rank=rank, world_size=ranks)
    if rank:  # whoever is not the main process finds the index ready, and reads no label
        import utils.datasets.cache

        utils.datasets.cache.read_record = None
    loader, dataset = create_dataloader(
        split, 64, 2, 32, rect=True, pad=0.5, cache="disk", workers=0, rank=rank, repeat=False
    )
    short_for_one = dataset._has_room("ram", "one machine is full" if rank else "")
    batches = list(loader)
    counts = all_gather(len(batches))
    torch.distributed.destroy_process_group()
    torch.save({"said": said, "batches": batches, "counts": counts, "room": short_for_one}, f"{folder}/{rank}.pt")


def test_processes_make_one_data_set(tmp_path):
    split = draw_many(tmp_path, COUNT)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["utils.datasets.batching"])  # torch is loaded once for both
    children = [context.Process(target=make_together, args=(rank, 2, str(split), str(tmp_path))) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    main, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    assert main["said"] == [
        f"{COUNT} images, {COUNT} objects, 0 backgrounds, 0 faults",
        "--cache ram is off: one machine is full",
    ]
    assert other["said"] == []
    assert main["room"] is other["room"] is False
    alone = list(create_dataloader(split, 64, 2, 32, rect=True, pad=0.5, workers=0)[0])
    assert main["counts"] == other["counts"] == [len(alone[0::2]), len(alone[1::2])]
    assert_same_batches(main["batches"], alone[0::2])
    assert_same_batches(other["batches"], alone[1::2])


# -- drawing by weight ---------------------------------------------------------------------------------------------


def test_images_are_drawn_by_weight(split):
    dataset = LoadImagesAndLabels(split, 32)
    batches = EpochBatches(dataset, 4, shuffle=True, seed=5)
    weights = np.zeros(COUNT)
    weights[[2, 7]] = (1, 3)
    batches.draw_by(weights)
    drawn = list(chain.from_iterable(flat(batches) for _ in range(200)))
    assert len(drawn) == 200 * COUNT
    assert set(drawn) == {2, 7}
    assert 0.72 < drawn.count(7) / len(drawn) < 0.78
    batches.draw_by(None)
    assert sorted(flat(batches)) == list(range(COUNT))
    batches.draw_by(np.zeros(COUNT))  # nothing is left to improve
    assert len(set(chain.from_iterable(flat(batches) for _ in range(9)))) == COUNT


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_the_draw_is_one_for_all_ranks(split, ranks):
    dataset = LoadImagesAndLabels(split, 32)
    weights = np.arange(COUNT)
    whole = EpochBatches(dataset, 3, seed=8)
    whole.draw_by(weights)
    shares = [EpochBatches(dataset, 3, seed=8, rank=rank, ranks=ranks) for rank in range(ranks)]
    for share in shares:
        share.draw_by(weights)
    for epoch in (4, 1):
        for batches in (whole, *shares):
            batches.set_epoch(epoch)
        expected = list(chain.from_iterable(whole))
        in_turn = list(chain.from_iterable(zip(*(chain.from_iterable(share) for share in shares), strict=True)))
        assert in_turn == expected + expected[: -COUNT % ranks]
        assert len(set(in_turn[:COUNT])) == COUNT  # an image that comes again has another number, so looks different


def test_what_came_before_is_counted():
    np.testing.assert_array_equal(_earlier_occurrences(np.array([], int)), [])
    np.testing.assert_array_equal(_earlier_occurrences(np.array([3, 1, 3, 3, 1, 0])), [0, 0, 1, 2, 1, 0])


@pytest.mark.parametrize("workers", [0, 2])
def test_weights_change_between_epochs_of_living_workers(split, workers):
    loader, dataset = create_dataloader(
        split, 32, 4, 32, hyp=HYP, augment=True, image_weights=True, workers=workers, seed=2, rect=True
    )
    assert not dataset.rect
    first = list(chain.from_iterable(batch[2] for batch in loader))
    assert sorted(first) == list(dataset.im_files)
    assert first != list(dataset.im_files)  # shuffled while nothing is known
    weights = np.zeros(COUNT)
    weights[4] = 2
    loader.draw_by(weights)
    loader.set_epoch(1)
    again, _ = create_dataloader(split, 32, 4, 32, hyp=HYP, augment=True, image_weights=True, workers=0, seed=2)
    again.draw_by(weights)
    again.set_epoch(1)
    batches = list(loader)
    assert_same_batches(batches, again)
    assert {path for batch in batches for path in batch[2]} == {dataset.im_files[4]}
    looks = torch.cat([batch[0] for batch in batches]).flatten(1)
    assert len(looks.unique(dim=0)) == COUNT  # eleven draws of one image are eleven different samples


def test_wrong_weights(split):
    batches = EpochBatches(LoadImagesAndLabels(split, 32), 4)
    for weights in (np.ones(COUNT - 1), np.full(COUNT, -1.0), np.full(COUNT, np.nan)):
        with pytest.raises(ValueError, match=f"expected {COUNT} finite weights"):
            batches.draw_by(weights)
    with pytest.raises(ValueError, match="rectangular"):
        EpochBatches(LoadImagesAndLabels(split, 32, rect=True), 4).draw_by(np.ones(COUNT))


def test_rect_gives_way_to_image_weights_and_says_so(split, caplog):
    create_dataloader(split, 32, 4, 32, rect=True, image_weights=True, workers=0, prefix="train: ")
    assert "train: images drawn by weight have no fixed batches: --rect is off" in caplog.text


def test_the_formula_of_image_weights():
    """Sum over an image's labels of w_c (1 - mAP_c)^2, w_c the inverse class count, normalised."""
    classes = ([0, 0, 1], [2], [], [0, 2, 2, 2])
    labels = [np.array([[number, 0.5, 0.5, 0.1, 0.1] for number in own]).reshape(-1, 5) for own in classes]
    maps = np.array([0.5, 0.2, 0.9, 0.0])
    inverse = np.array([1 / 3, 1, 1 / 4, 1])  # counts 3, 1, 4, and a class that does not occur
    per_label = inverse / inverse.sum() * (1 - maps) ** 2
    expected = [sum(per_label[number] for number in own) for own in classes]
    rare = labels_to_class_weights(labels, 4).numpy()
    found = labels_to_image_weights(labels, nc=4, class_weights=rare * (1 - maps) ** 2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
