"""benchmark.py: that what it measures with is right, and what it leaves behind; no figure has to be a certain one."""

from __future__ import annotations

import csv
import math
import shlex
from pathlib import Path

import pytest
import torch

import benchmark
from engine.benchmarks.attention import measure_place, settings_of
from engine.benchmarks.attention_cases import FULL, REFERENCE, Place, usual_backend, variants_for
from engine.benchmarks.attention_tables import csv_text, geometric_mean, report
from engine.benchmarks.attention_versus import (
    LARGE_SHAPE,
    SPEED_SHAPES,
    Comparison,
    Shape,
    compare,
    compare_forward,
    dense_runs,
    shapes_for,
)
from engine.benchmarks.attention_work import Settings
from engine.benchmarks.interleaved import Rounds
from engine.benchmarks.page import replace_section
from engine.options.benchmark import AttentionBenchmarkOptions, FormatsBenchmarkOptions
from utils.errors import ConfigError, OptionError
from utils.image_io import read_image

CPU = torch.device("cpu")
ONE_ROUND = Rounds(least=1, most=1, seconds=0)
QUICK = {"sizes": [64, 128], "levels": ["P3"], "quick": True, "device": "cpu", "threads": 1}
MARKED = "# Costs\n\nBefore.\r\n<!-- attention:begin -->\nold | table\n<!-- attention:end -->\nAfter, with a tab\t.\n"


def is_drawn(file: Path) -> bool:
    """Whether a picture has something in it, and an edge that nothing reaches."""
    dark = read_image(file).min(2) < 200
    return bool(dark.mean() > 0.005 and not (dark[:2].any() or dark[-2:].any() or dark[:, :2].any()))


def settings(**changes) -> Settings:
    given = {"device": CPU, "dtype": torch.float32, "batch": 1, "rounds": ONE_ROUND, "max_gflops": 100.0}
    return Settings(**{**given, **changes})


# -- measuring -----------------------------------------------------------------------------------------------------


def test_geometric_mean():
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)


def test_a_place_is_measured_by_all_variants_of_the_device():
    assert usual_backend(CPU, torch.float32) == "sdpa"
    variants = variants_for(CPU, torch.float32)
    rows = measure_place(Place("P3", 64), variants, settings())
    assert [row.name for row in rows] == [variant.name for variant in variants]
    assert {FULL, REFERENCE, "BRA", "BRA, S growing", "BRA, naive"} <= {row.name for row in rows}
    for row in rows:
        assert row.left_out is None
        assert row.counted == row.cost.total
        assert row.forward > 0 and row.training > 0 and row.peak > 0
        layer = next(variant for variant in variants if variant.name == row.name).build(row.place)
        assert row.parameters == sum(parameter.numel() for parameter in layer.parameters())


def test_half_precision_is_measured_too():
    variants = variants_for(CPU, torch.bfloat16)
    place = Place("P3", 64)
    for row in measure_place(place, variants, settings(dtype=torch.bfloat16, batch=2)):
        assert row.left_out is None and row.forward > 0 and row.training > 0


def test_what_is_left_out_says_why():
    variants = variants_for(CPU, torch.float32)
    chosen = [variant for variant in variants if variant.name in (FULL, "axial", "BRA, naive")]
    rows = {row.name: row for row in measure_place(Place("P4", 160), chosen, settings(max_gflops=0.06))}
    assert rows[FULL].left_out == "0.0631 GFLOP, above --max-gflops 0.06" and rows[FULL].forward is None
    assert rows[FULL].counted == rows[FULL].cost.total
    assert rows["BRA, naive"].left_out == "8 regions a side do not divide 10 x 10"
    assert rows["axial"].left_out is None and rows["axial"].peak > 0


def test_more_than_the_memory_is_not_tried():
    variants = variants_for(CPU, torch.float32)
    naive = [variant for variant in variants if variant.name in ("BRA, naive", REFERENCE)]
    for row in measure_place(Place("P3", 320), naive, settings(batch=10**6)):
        assert row.left_out.startswith("takes about ") and row.left_out.endswith(" GiB")


def test_the_layer_against_the_naive_one():
    shape = Shape(32, 8, 1, 4, 2, 2)
    found = compare(shape, settings(), compare_forward(shape, settings()))
    assert all(seconds > 0 for pair in (found.forward, found.training) for seconds in pair)
    assert min(found.peak) > 0
    assert (found.dense_forward, found.dense_training) == (None, None)  # compared on a GPU
    assert compare_forward(Shape(32, 8, 1, 4, 2, 2, times=False), settings()) is None
    assert list(shapes_for(CPU)) == [*SPEED_SHAPES, LARGE_SHAPE]
    assert list(shapes_for(torch.device("cuda")))[-1].times


def test_on_a_gpu_dense_attention_is_compared_as_well():
    # the runs work on any device, and what is said about them needs none
    shape = Shape(32, 8, 2, 4, 2, 3)
    runs = dense_runs(shape, settings())
    assert set(runs) == {(f"dense_{kind}", who) for kind in ("forward", "training") for who in ("ours", "dense")}
    assert runs["dense_forward", "ours"]().shape == (3, 16, 4, 32)
    assert runs["dense_forward", "dense"]().shape == (3, 2, 64, 16)
    assert [part.shape for part in runs["dense_training", "dense"]()[1:]] == [(3, 2, 8, 16)] * 2
    assert runs["dense_training", "ours"]()[0].shape == (3, 16, 4, 96)

    found = Comparison(LARGE_SHAPE, (0.009, 0.003), (0.08, 0.02), (100, 30), (0.002, 0.0025), (0.004, 0.006))
    text = report([], [found], settings(device=torch.device("cuda")), machine="GPU", command="c", usual="triton")
    said = " ".join(text.split())
    assert "**3.00** times as fast forward and **4.00** in training (goal: 3 each)" in said
    assert "**1.25** and **1.50** times as long as dense" in said
    assert "**0.30** of naive" in said
    assert "9.00 -> 3.00" in said and "80.0 -> 20.0" in said


# -- the command ---------------------------------------------------------------------------------------------------


def test_quick_run_writes_tables_and_picture(tmp_path):
    page = tmp_path / "page.md"
    page.write_bytes(MARKED.encode())
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    threads = torch.get_num_threads()
    result = benchmark.run("attention", **QUICK, project=tmp_path / "runs", name="mine", docs=page)
    assert torch.get_num_threads() == threads
    assert result.folder == tmp_path / "runs" / "mine2"  # counted up
    text = (result.folder / "attention.md").read_text(encoding="utf-8")
    assert text == result.text
    assert text.startswith("Measured on ") and "1 thread, torch" in text.splitlines()[0]
    assert "python benchmark.py attention --sizes 64 128 --levels P3 --device cpu --threads 1 --quick" in text
    assert "**(H W)^2**" in " ".join(text.split()) and "**(H W)^(4/3)**" in " ".join(text.split())
    with (result.folder / "attention.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(result.rows) == 2 * len(variants_for(CPU, torch.float32))
    assert {row["image_px"] for row in rows} == {"64", "128"}
    assert all(float(row["forward_s"]) > 0 and row["flops_formula"] == row["flops_counted"] for row in rows)
    assert is_drawn(result.folder / "attention.png")

    written = page.read_bytes().decode()
    before, _, rest = written.partition("<!-- attention:begin -->")
    inside, _, after = rest.partition("<!-- attention:end -->")
    assert (before, after) == ("# Costs\n\nBefore.\r\n", "\nAfter, with a tab\t.\n")
    assert result.text in inside and "old | table" not in inside
    assert "(images/attention-cost.png)" in inside and is_drawn(tmp_path / "images" / "attention-cost.png")


def test_a_page_with_the_line_ends_of_windows_keeps_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_bytes(b"Top\r\n<!-- part:begin -->\r\n<!-- part:end -->\r\n")
    replace_section(page, "part", "one\ntwo\n")
    assert page.read_bytes() == (b"Top\r\n<!-- part:begin -->\r\n\r\none\r\ntwo\r\n\r\n<!-- part:end -->\r\n")


def test_a_folder_that_exists_is_written_into_when_told_so(tmp_path):
    (tmp_path / "mine").mkdir()
    result = benchmark.run(**{**QUICK, "sizes": 64, "levels": "P5"}, project=tmp_path, name="mine", exist_ok=True)
    assert result.folder == tmp_path / "mine"
    assert {file.name for file in result.folder.iterdir()} == {"attention.md", "attention.csv", "attention.png"}


def test_options_become_settings():
    found = settings_of(AttentionBenchmarkOptions(batch_size=3, repeats=2, seconds=1.5, max_gflops=7), CPU)
    assert found == settings(batch=3, rounds=Rounds(least=2, most=2, seconds=1.5, settling=1), max_gflops=7)
    cuda = torch.device("cuda")
    assert settings_of(AttentionBenchmarkOptions(), cuda).dtype == torch.bfloat16
    assert settings_of(AttentionBenchmarkOptions(precision="float16"), cuda).dtype == torch.float16


def test_a_table_row_has_the_figures_of_its_row():
    variants = variants_for(CPU, torch.float32)
    row = measure_place(Place("P3", 64), variants[:1], settings())[0]
    line = csv_text([row]).splitlines()[1].split(",")
    assert line[:6] == ["P3", "64", "64", "128", "full", "67328"]
    assert math.isclose(float(line[12]), row.forward)
    assert line[-2:] == [str(row.peak), ""]


@pytest.mark.parametrize("text", ["", MARKED.replace("begin", "start"), MARKED + MARKED, "<!-- attention:end -->"])
def test_a_page_without_a_place_for_the_result_is_refused_before_measuring(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_bytes(text.encode())
    with pytest.raises(ConfigError, match="attention:begin"):
        benchmark.run("attention", docs=page, device="cpu", project=tmp_path / "runs")
    assert page.read_bytes() == text.encode()
    assert not (tmp_path / "runs").exists()


def test_replacing_twice_changes_nothing_more(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(MARKED, encoding="utf-8")
    replace_section(page, "attention", "| a |\n")
    once = page.read_text()
    replace_section(page, "attention", "| a |\n")
    assert page.read_text() == once
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


def test_the_project_has_a_page_for_the_result():
    page = Path(benchmark.__file__).parent / "docs" / "benchmarks.md"
    text = page.read_text(encoding="utf-8")
    for section in ("attention", "attention-cuda"):
        assert text.count(f"<!-- {section}:begin -->") == text.count(f"<!-- {section}:end -->") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"sizes": [100]},
        {"sizes": []},
        {"levels": ["P6"]},
        {"precision": "int8"},
        {"repeats": 0},
        {"threads": 0},
        {"batch_size": 0},
        {"max_gflops": -1},
        {"seconds": -1.0},
    ],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(OptionError, match=f"--{next(iter(wrong)).replace('_', '-')} "):
        benchmark.run("attention", **wrong)


def test_an_unknown_benchmark_is_refused(capsys):
    with pytest.raises(OptionError, match="expected one of attention"):
        benchmark.run("everything")
    with pytest.raises(SystemExit) as stop:
        benchmark.parse_opt(["everything"])
    assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        benchmark.parse_opt(["attention", "--sizes", "100"])
    assert stop.value.code == 2
    assert " attention: error: --sizes [100]: expected multiples of 32\n" in capsys.readouterr().err


def test_quick_changes_only_what_was_not_given():
    assert AttentionBenchmarkOptions.parse(["--quick"]).settled().sizes == [160, 320]
    chosen = AttentionBenchmarkOptions.parse(["--quick", "--sizes", "64", "--docs"]).settled()
    assert (chosen.sizes, chosen.repeats, chosen.docs) == ([64], 1, "docs/benchmarks.md")
    assert AttentionBenchmarkOptions().settled() == AttentionBenchmarkOptions()


def test_the_command_shown_gives_the_same_options():
    given = AttentionBenchmarkOptions.parse(["--sizes", "64", "96", "--quick", "--device", "cpu", "--name", "a b"])
    words = given.command()
    assert words == "python benchmark.py attention --sizes 64 96 --device cpu --quick --name 'a b'"
    assert AttentionBenchmarkOptions().command() == "python benchmark.py attention"


def test_the_command_shown_has_no_places_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = [str(tmp_path / "a.pt"), "b.pt", "/elsewhere/c.pt"]
    given = FormatsBenchmarkOptions(
        weights=weights, project=str(tmp_path / "runs/benchmark"), docs=str(tmp_path / "p.md")
    )
    assert given.settled().weights == ["a.pt", "b.pt", "/elsewhere/c.pt"]
    shown = "python benchmark.py formats --weights a.pt b.pt /elsewhere/c.pt"
    assert given.command() == shown  # which leaves this project's page alone
    given.docs = str(tmp_path / "docs" / "benchmarks.md")
    assert given.command() == f"{shown} --docs"
    again = FormatsBenchmarkOptions.parse(shlex.split(given.command())[3:])
    assert (again.docs, again.project) == ("docs/benchmarks.md", "runs/benchmark")
