"""Charts of runs: training curves, several runs together, the speed study, from good and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import cut_off, ink, pixels_of

from utils.charts import plot_results, plot_study
from utils.drawing import colors
from utils.errors import ConfigError
from utils.image_io import read_image
from utils.run_charts import plot_comparison, read_results

RNG = np.random.default_rng(5)
HEADER = (
    "epoch, train/box_loss, train/obj_loss, train/cls_loss, metrics/precision, metrics/recall, metrics/mAP_0.5, "
    "metrics/mAP_0.5:0.95, val/box_loss, val/obj_loss, val/cls_loss, x/lr0, x/lr1, x/lr2"
)
ACCENT = (0x1B, 0x6C, 0xA8)


@pytest.fixture
def warnings(heard):
    return lambda: [record.getMessage() for record in heard.records]


def write_results(file: Path, epochs: int, rows: np.ndarray | None = None) -> None:
    lines = [",".join(f"{name.strip():>20}" for name in HEADER.split(","))]
    values = RNG.random((epochs, 13)) if rows is None else rows
    for epoch, row in enumerate(values):
        lines.append(",".join(f"{value:20.5g}" for value in [epoch, *row]))
    file.write_text("\n".join(lines) + "\n")


# -- results -------------------------------------------------------------------------------------------------------


def test_results_beside_their_files(tmp_path):
    write_results(tmp_path / "results.csv", 1)
    plot_results(tmp_path / "results.csv")
    alone = ink(tmp_path / "results.png")
    assert alone > 0.005 and not cut_off(tmp_path / "results.png")
    write_results(tmp_path / "results2.csv", 40)
    (tmp_path / "results3.csv").write_text("epoch, broken\n1, not a number\n")
    (tmp_path / "results4.csv").write_text("")
    plot_results(dir=tmp_path)
    assert ink(tmp_path / "results.png") > alone


def test_results_without_any_row_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"results\*\.csv"):
        plot_results(tmp_path / "results.csv")
    write_results(tmp_path / "results.csv", 0)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        plot_results(tmp_path / "results.csv")


def test_numbers_that_are_none_leave_a_gap_and_no_more(tmp_path):
    """A single NaN must not take the smooth line away, a column of nothing else not the other panels."""
    torn = np.tile(np.linspace(1, 2, 60)[:, None], (1, 13))
    torn[20], torn[30], torn[:, 7] = np.nan, np.inf, np.nan
    write_results(tmp_path / "results.csv", 60, torn)
    plot_results(tmp_path / "results.csv")
    assert pixels_of(read_image(tmp_path / "results.png"), ACCENT) > 3000  # solid: that is the smooth line


def test_epochs_without_a_validation_are_not_drawn_as_zeros(tmp_path):
    rows = np.ones((30, 13))
    rows[:-1, 3:10] = 0  # as --noval writes them
    write_results(tmp_path / "results.csv", 30, rows)
    table = read_results(tmp_path / "results.csv")
    for name, column in table.items():
        measured = 1 if name.startswith(("val/", "metrics/")) else 30
        assert np.isfinite(column).sum() == measured and column[-1] == (29 if name == "epoch" else 1), name
    plot_results(tmp_path / "results.csv")
    shown = read_image(tmp_path / "results.png")
    assert 20 < pixels_of(shown[: shown.shape[0] // 2, shown.shape[1] * 3 // 5 :], ACCENT) < 1000  # a dot a panel


def test_rows_that_were_cut_off_are_left_out(tmp_path, warnings):
    write_results(tmp_path / "results.csv", 3)
    with (tmp_path / "results.csv").open("ab") as stream:
        stream.write(b"       3,     0.2\n\xff\xfe\x00\n 4" + b", 0.5" * 13)
    table = read_results(tmp_path / "results.csv")
    np.testing.assert_array_equal(table["epoch"], [0, 1, 2, 4])
    assert len(warnings()) == 1 and "2 of 6 rows" in warnings()[0]


@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 500, b"epoch\n", b"a,b\n1,2\n", b"epoch,b\nnan,2\n"])
def test_what_is_no_table_is_named(tmp_path, warnings, content):
    (tmp_path / "results.csv").write_bytes(content)
    assert read_results(tmp_path / "results.csv") == {}
    assert len(warnings()) == 1 and "results.csv" in warnings()[0]


# -- comparison ----------------------------------------------------------------------------------------------------


def test_runs_of_any_length_in_one_picture(tmp_path):
    tables = {}
    for name, epochs in (("one", 1), ("三", 40)):
        write_results(tmp_path / "results.csv", epochs)
        tables[name] = read_results(tmp_path / "results.csv")
    tables["empty"] = {**tables["one"], "metrics/mAP_0.5": np.array([np.nan])}
    plot_comparison(tables, tmp_path / "curves.png", "a $title")
    shown = read_image(tmp_path / "curves.png")
    assert not cut_off(tmp_path / "curves.png")
    assert pixels_of(shown, colors(0)) > 20 and pixels_of(shown, colors(1)) > 500


# -- study ---------------------------------------------------------------------------------------------------------


def test_study(tmp_path):
    for letter in "ns":
        np.savetxt(tmp_path / f"study_coco_yolov5{letter}.txt", RNG.random((11, 10)) + 0.01, fmt="%10.4g")
    plot_study(sorted(tmp_path.glob("study_*.txt")), tmp_path / "study.png")
    assert ink(tmp_path / "study.png") > 0.01 and not cut_off(tmp_path / "study.png")
    (tmp_path / "bad.txt").write_text("1 2 3\n")
    for wrong in ("bad.txt", "gone.txt"):
        with pytest.raises(ConfigError, match=wrong):
            plot_study([tmp_path / wrong], tmp_path / "study.png")


@pytest.mark.parametrize("files", [0, 1])
def test_study_of_nothing_or_of_zeros(tmp_path, files):
    np.savetxt(tmp_path / "study_zero.txt", np.zeros((11, 10)))
    plot_study([tmp_path / "study_zero.txt"][:files], tmp_path / "study.png")
    assert (tmp_path / "study.png").exists()
