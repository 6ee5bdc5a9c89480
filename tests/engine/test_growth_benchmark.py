"""benchmark.py growth: what it measures and leaves out, what it says about growth; figures may be any."""

from __future__ import annotations

import csv
import os

import cv2
import numpy as np
import pytest
import torch

import benchmark
from engine.benchmarks.growth_chart import plot_growth
from engine.benchmarks.growth_curves import MEMORY, TIME, Curve, Point, of_axis
from engine.benchmarks.growth_labels import LabelSettings, draw_labels, measure_sets
from engine.benchmarks.growth_loader import measure_loader, private_bytes
from engine.benchmarks.growth_network import Load, Network, NetworkSettings, batches_of, measure_networks, sizes_of
from engine.benchmarks.growth_tables import report
from engine.benchmarks.memory import traced_bytes
from engine.options.growth_benchmark import GrowthBenchmarkOptions
from utils.datasets.detection import LoadImagesAndLabels
from utils.errors import ConfigError, OptionError

CPU = torch.device("cpu")
TINY = {"sizes": [64], "batches": [1, 2], "labels": [20], "images": 4, "cfg": ["yolov5n.yaml"]}


def curve(exponent: float, work_exponent: float = 1.0, **given) -> Curve:
    points = tuple(Point(at, 3 * at**exponent, 7 * at**work_exponent) for at in (10, 20, 40, 80))
    return Curve(**{"axis": "batch", "kind": TIME, "name": "it", "work": "toil", "points": points, **given})


@pytest.fixture(scope="module")
def network() -> Network:
    return Network("yolov5n.yaml", CPU)


def test_a_quick_run_writes_tables_and_picture(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- growth:begin -->\nold\n<!-- growth:end -->\nbelow\n")
    threads = torch.get_num_threads()
    given = {**TINY, "workers": [0], "device": "cpu", "threads": 1, "docs": str(page)}
    result = benchmark.run("growth", quick=True, project=str(tmp_path), exist_ok=True, **given)
    assert torch.get_num_threads() == threads
    assert {(one.axis, one.kind) for one in result.curves} == {
        (axis, kind) for axis in ("size", "batch", "labels", "workers") for kind in (TIME, MEMORY)
    }
    places = {"size": [64], "batch": [1, 2], "labels": [20], "workers": [0]}
    assert all([point.at for point in one.points] == places[one.axis] for one in result.curves)
    assert all(point.figure > 0 for one in result.curves for point in one.points if one.axis != "workers")
    with (tmp_path / "growth" / "growth.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == sum(len(one.points) for one in result.curves)
    assert (tmp_path / "growth" / "growth.md").read_text(encoding="utf-8") == result.text
    assert result.text.strip() in page.read_text() and "old" not in page.read_text()
    assert cv2.imread(str(tmp_path / "images" / "growth.png")).shape[0] > 1000


def test_exponents_are_those_of_the_powers():
    one = curve(1.5, work_exponent=1.25)
    figures = (one.exponent(), one.exponent(upper=True), one.work_exponent(), one.work_exponent(upper=True))
    np.testing.assert_allclose(figures, (1.5, 1.5, 1.25, 1.25))
    assert one.faster and not curve(1.3, work_exponent=1.25).faster and not curve(0.2).faster
    side = curve(2.0, axis="size")  # of the side of an image, so 1 of its pixels
    np.testing.assert_allclose((side.exponent(), side.work_exponent()), (1.0, 0.5))


def test_the_upper_end_is_judged_without_what_costs_the_same_everywhere():
    points = tuple(Point(at, 100 + at**1.5, at) for at in (1, 10, 100, 1000, 10_000))
    one = curve(1, points=points)
    assert one.exponent() < 1.1 and one.faster


@pytest.mark.parametrize("points", [(), (Point(0, 1.0, 1.0), Point(1, 2.0, 1.0))])
def test_what_has_no_exponent_is_not_faster(points):
    one = curve(1, points=points)
    assert one.exponent() is None and not one.faster


def test_the_report_names_what_grows_faster_and_what_is_left_out():
    curves = [curve(2.0, name="explosive", left_out=("from 160 on, which takes about 9.0 GB",)), curve(0.9)]
    text = report(curves, GrowthBenchmarkOptions(), machine="Abacus 9", command="count")
    assert "grow faster than their work: batch, time: explosive." in text
    assert "explosive, from 160 on, which takes about 9.0 GB" in text and "Abacus 9" in text
    assert "Nothing grows faster" in report([curve(0.9)], GrowthBenchmarkOptions(), machine="", command="")


def test_memory_of_a_network_is_that_of_its_maps(network):
    settings = NetworkSettings(CPU, 1, 1e9)
    loads = sizes_of([128, 64, 64], 1)
    assert loads == {64: Load(64, 1), 128: Load(128, 1)}
    times, training, memory, _ = measure_networks([network], "size", loads, settings)
    assert (times.kind, training.name, memory.kind) == (TIME, "yolov5n, training", MEMORY)
    assert 0.8 < memory.exponent() < 1.01
    assert [point.work for point in training.points] == [network.work(load) for load in loads.values()]
    np.testing.assert_allclose(times.work_exponent(), 1.0)


def test_a_step_of_training_changes_weights_and_leaves_no_gradients(network):
    load = Load(64, 2)
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    averaged = network.ema.updates
    network.training(load.images(CPU), load.targets(CPU))
    changed = [name for name, value in network.model.named_parameters() if not torch.equal(value, before[name])]
    assert len(changed) == len(list(network.model.parameters())) and network.ema.updates == averaged + 1
    assert all(parameter.grad is None for parameter in network.model.parameters())


def test_batches_that_would_not_fit_are_left_out(network):
    settings = NetworkSettings(CPU, 1, 2e6)
    curves = measure_networks([network], "batch", batches_of([1, 2, 400], 64), settings)
    inference = of_axis(curves, "batch", TIME)[0]
    assert [point.at for point in inference.points] == [1, 2]
    assert inference.left_out[0].startswith("from 400 on, which takes about 0.")
    assert [point.at for point in curves[1].points] == [1]  # a step of training needs more


def test_sets_have_the_labels_they_are_named_by(tmp_path):
    images = draw_labels(tmp_path, 50)
    dataset = LoadImagesAndLabels(images, 64)
    assert len(dataset) == 5 and all(len(labels) == 10 for labels in dataset.labels)
    assert len({tuple(size) for size in dataset.shapes.tolist()}) > 1
    boxes = np.concatenate(list(dataset.labels))[:, 1:]
    assert (boxes[:, :2] - boxes[:, 2:] / 2 >= -1e-6).all() and (boxes[:, :2] + boxes[:, 2:] / 2 <= 1 + 1e-6).all()


def test_a_set_that_would_not_fit_is_left_out(tmp_path):
    curves = measure_sets([20, 100_000_000], LabelSettings(tmp_path, 1, 1e9))
    assert {point.at for one in curves for point in one.points} == {20}
    assert all(one.left_out[0].startswith("from 100,000,000 labels on: ") for one in curves)
    assert not list(tmp_path.rglob("*.jpg"))


def test_workers_that_there_are_no_processors_for_are_left_out(tmp_path):
    counts = [0, 1, (os.cpu_count() or 1) + 1]
    time, memory = measure_loader(counts, tmp_path, images=8, imgsz=64, repeats=1)
    assert [point.at for point in time.points] == [0, 1] and time.left_out[0].startswith(f"{counts[2]}, as there are")
    if private_bytes([os.getpid()]) is not None:
        assert memory.points[0].figure == 0 < memory.points[1].figure


def test_memory_of_processes_is_what_linux_says(tmp_path):
    for pid, size in ((1, 20), (2, 30)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "smaps_rollup").write_text(
            f"Rss: 90 kB\nPrivate_Clean:  {size} kB\nPrivate_Dirty: 1 kB\n"
        )
    assert private_bytes([1, 2], tmp_path) == 1024 * 52
    assert private_bytes([1, 3], tmp_path) is None and private_bytes([], tmp_path) == 0


def test_traced_bytes_are_those_of_arrays():
    taken = traced_bytes(lambda: np.zeros(3_000_000, np.uint8) + np.ones(1, np.uint8))
    assert 3_000_000 <= taken.kept < 3_100_000 and 6_000_000 <= taken.peak < 6_200_000


def test_a_picture_is_drawn_of_whatever_there_is(tmp_path):
    none, single = curve(1, points=()), curve(1, points=(Point(0, 1.0, 1.0),), axis="workers")
    plot_growth([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    plot_growth([none, single, curve(1, kind=MEMORY)], tmp_path / "some.png", "a $ title")
    assert (tmp_path / "some.png").is_file()


@pytest.mark.parametrize(
    "wrong",
    [{"sizes": [100]}, {"imgsz": 32}, {"batches": []}, {"batches": [0]}, {"labels": [15]}, {"labels": [0]},
     {"workers": [-1]}, {"max_memory": 0.0}, {"repeats": 0}, {"images": 0}, {"threads": 5000},
     {"batch_size": 0}, {"cfg": []}],
)  # fmt: skip
def test_impossible_options_are_refused(wrong):
    with pytest.raises(OptionError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
        benchmark.run("growth", **wrong)


def test_quick_changes_only_what_was_not_given():
    settled = GrowthBenchmarkOptions.from_kwargs(quick=True, sizes=[320]).settled()
    assert settled.sizes == [320] and settled.labels == [100, 1000] and settled.repeats == 1
    full = GrowthBenchmarkOptions()
    assert full.settled() == full and full.labels[-1] == 1_000_000


def test_mistakes_show_before_anything_is_measured(tmp_path):
    (tmp_path / "bare.md").write_text("nothing")
    with pytest.raises(ConfigError, match="growth:begin"):
        benchmark.run("growth", docs=str(tmp_path / "bare.md"), project=str(tmp_path), device="cpu")
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        benchmark.run("growth", cfg=["gone.yaml"], project=str(tmp_path), device="cpu")
    with pytest.raises(OptionError, match=r"--sizes 96: yolov5n6 takes multiples of 64 from 128"):
        benchmark.run("growth", cfg=["yolov5n6.yaml"], sizes=[128, 96], project=str(tmp_path), device="cpu")
    assert not (tmp_path / "growth").exists()
