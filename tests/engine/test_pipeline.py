"""Reading ahead, writing behind, batches by shape: order, limits, errors and interruptions."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.pipeline import ReadAhead, WriteBehind
from engine.predictor import FrameResult, Predictor
from engine.sinks import Frame
from models.backends.multi import DetectMultiBackend
from tiny_detector import save_detector
from utils.datasets.frames import SourceFrame
from utils.errors import DatasetError


def frame(number: int) -> Frame:
    image = np.zeros((8, 8, 3), np.uint8)
    return Frame(FrameResult(Path("/x/clip.avi"), image, np.zeros((0, 6), np.float32), {}, frame=number))


class Notebook:
    """A sink that writes down what it gets, and can fail."""

    def __init__(self, fails_at: int = 0, close_fails: bool = False) -> None:
        self.seen: list[int] = []
        self.threads: set[str] = set()
        self.closed = 0
        self.fails_at, self.close_fails = fails_at, close_fails
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def write(self, frame: Frame) -> None:
        self.may_go_on.wait(10)
        if frame.result.frame == self.fails_at:
            raise OSError(28, "No space left on device")
        self.seen.append(frame.result.frame)
        self.threads.add(threading.current_thread().name)

    def close(self) -> None:
        self.closed += 1
        if self.close_fails:
            raise OSError(28, "No space left on device")


# -- reading ahead ---------------------------------------------------------------------------------------------------


def test_items_come_in_order_from_another_thread_and_only_a_few_ahead():
    read: list[tuple[int, str]] = []

    def items() -> Iterator[int]:
        for number in range(50):
            read.append((number, threading.current_thread().name))
            yield number

    with ReadAhead(items(), depth=3) as ahead:
        consumer = iter(ahead)
        assert next(consumer) == 0
        time.sleep(0.3)
        assert 4 <= len(read) <= 5  # one given, three waiting, one in the reader's hand
        assert list(consumer) == list(range(1, 50))
    assert {name for _, name in read} == {"read ahead"}


def test_an_error_while_reading_comes_after_what_was_read_and_names_the_step():
    def items() -> Iterator[int]:
        yield 1
        raise DatasetError("clip.avi: is damaged")

    got = []
    with pytest.raises(DatasetError, match=r"clip\.avi") as caught, ReadAhead(items(), depth=2) as ahead:
        got += ahead
    assert (got, caught.value.__notes__) == ([1], ["while reading the source"])


def test_leaving_early_ends_the_reader():
    def endless() -> Iterator[int]:
        while True:
            yield 0

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), ReadAhead(endless(), depth=2) as ahead:
        next(iter(ahead))
        raise KeyboardInterrupt
    assert threading.active_count() == before


# -- writing behind --------------------------------------------------------------------------------------------------


def test_frames_are_written_in_order_by_one_thread_and_sinks_closed():
    sinks = [Notebook(), Notebook()]
    with WriteBehind(sinks, depth=2) as behind:
        for number in range(1, 30):
            behind.write(frame(number))
    for sink in sinks:
        assert (sink.seen, sink.closed, sink.threads) == (list(range(1, 30)), 1, {"write behind"})


def test_a_full_queue_holds_the_caller_up():
    sink = Notebook()
    sink.may_go_on.clear()
    handed_over = []
    with WriteBehind([sink], depth=2) as behind:

        def hand_over() -> None:
            for number in range(1, 10):
                behind.write(frame(number))
                handed_over.append(number)

        caller = threading.Thread(target=hand_over)
        caller.start()
        time.sleep(0.3)
        assert len(handed_over) == 3  # one with the sink, two waiting
        sink.may_go_on.set()
        caller.join()
    assert sink.seen == list(range(1, 10))


def test_an_error_while_writing_ends_the_run_and_names_the_frame_and_the_sink():
    sinks = [Notebook(fails_at=3), Notebook()]
    with pytest.raises(OSError, match="No space") as caught, WriteBehind(sinks, depth=1) as behind:
        for number in range(1, 1000):
            behind.write(frame(number))
    assert number < 1000 and sinks[0].seen == [1, 2]
    assert caught.value.__notes__ == ["while writing the results of /x/clip.avi, frame 3 (Notebook)"]
    assert [sink.closed for sink in sinks] == [1, 1]


def test_an_error_at_the_last_frame_or_while_closing_is_not_lost():
    with pytest.raises(OSError, match="No space"), WriteBehind([Notebook(fails_at=1)], depth=5) as behind:
        behind.write(frame(1))
    other = Notebook()
    with (
        pytest.raises(OSError, match="No space") as caught,
        WriteBehind([Notebook(close_fails=True), other], 5) as behind,
    ):
        behind.write(frame(1))
    assert caught.value.__notes__ == ["while finishing the files of Notebook"] and other.closed == 1


def test_after_an_interruption_what_waits_is_written():
    sink = Notebook()
    sink.may_go_on.clear()
    with pytest.raises(KeyboardInterrupt), WriteBehind([sink], depth=4) as behind:
        for number in range(1, 5):
            behind.write(frame(number))
        sink.may_go_on.set()
        raise KeyboardInterrupt
    assert (sink.seen, sink.closed) == ([1, 2, 3, 4], 1)


# -- batches ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backend(tmp_path_factory) -> DetectMultiBackend:
    return DetectMultiBackend(save_detector(tmp_path_factory.mktemp("weights") / "tiny.pt"))


@pytest.fixture
def batches(backend) -> Iterator[list[tuple[int, int]]]:
    """Number of images and width of each batch that the network sees."""
    seen: list[tuple[int, int]] = []
    hook = backend.model.register_forward_hook(lambda _, given, __: seen.append((given[0].shape[0], given[0].shape[3])))
    yield seen
    hook.remove()


def shaped(widths: list[int]) -> list[SourceFrame]:
    """A frame a width; each has as many rows as its place tells, so that boxes are clipped differently."""
    return [
        SourceFrame(
            Path(str(place)), np.full((3, 32, width), place, np.uint8), np.zeros((9 + place, width, 3), np.uint8)
        )
        for place, width in enumerate(widths)
    ]


@pytest.mark.parametrize(
    ("size", "widths", "expected"),
    [
        (1, [32, 64, 32], [(1, 32), (1, 64), (1, 32)]),
        (2, [32] * 5, [(2, 32), (2, 32), (1, 32)]),
        (2, [32, 64, 32, 64], [(2, 32), (2, 64)]),
        (2, [32] + [64] * 9, [(2, 64), (2, 64), (2, 64), (1, 32), (2, 64), (1, 64)]),  # the window holds eight
        (3, [], []),
        (8, [32, 64, 96], [(1, 32), (1, 64), (1, 96)]),
    ],
)
def test_batches_have_one_shape_and_results_the_order_of_the_frames(backend, batches, size, widths, expected):
    results = list(Predictor(backend, batch_size=size).stream(shaped(widths)))
    assert [result.path.name for result in results] == [str(place) for place in range(len(widths))]
    assert batches == expected
    alone = list(Predictor(backend).stream(shaped(widths)))
    for one, other in zip(results, alone, strict=True):
        assert len(one.boxes)
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 3])
def test_several_networks_at_a_time_give_the_same_in_the_same_order(backend, size):
    """Widths change all the time, and with them the grids that the head keeps."""
    torch.set_num_threads(2)
    frames = shaped([32, 64, 96, 64, 32] * 12)
    expected = list(Predictor(backend).stream(frames))
    found = list(Predictor(backend, batch_size=size, workers=2).stream(frames))
    assert [result.path for result in found] == [frame.path for frame in frames]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=1e-5)
    assert torch.get_num_threads() == 2


def test_an_error_in_the_network_comes_up(backend):
    odd = SourceFrame(Path("odd.jpg"), np.zeros((4, 32, 32), np.uint8), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(RuntimeError, match="channels") as caught:
        list(Predictor(backend, workers=2).stream([*shaped([32] * 3), odd, *shaped([32] * 3)]))
    assert "while detecting in odd.jpg" in caught.value.__notes__


def test_no_more_frames_wait_than_the_window_holds(backend):
    taken = []

    def frames() -> Iterator[SourceFrame]:
        for one in shaped([32, *[64] * 3, *[96] * 40]):
            taken.append(one)
            yield one

    next(Predictor(backend, batch_size=4).stream(frames()))
    assert len(taken) == 16
