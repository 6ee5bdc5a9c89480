"""One picture of several runs' mAP."""

import numpy as np
import pytest

from tools.compare_runs import compare_runs, main
from utils.errors import ConfigError
from utils.image_io import read_image

HEADER = "epoch, metrics/mAP_0.5, metrics/mAP_0.5:0.95"


def write_run(folder, epochs, header=HEADER):
    folder.mkdir(parents=True)
    rows = [f"{epoch}, {1 - 0.9**epoch}, {0.5 - 0.5 * 0.9**epoch}" for epoch in range(epochs)]
    (folder / "results.csv").write_text("\n".join([header, *rows]))
    return folder


def test_a_picture_of_runs_by_folder_and_by_file(tmp_path, capsys):
    first, second = write_run(tmp_path / "a" / "exp", 30), write_run(tmp_path / "b" / "exp", 5)
    out = tmp_path / "new" / "curves.png"
    assert main([str(first), str(second / "results.csv"), "--out", str(out), "--title", "两 runs"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    shown = read_image(out)
    assert (np.abs(shown.astype(int) - 255).max(2) > 40).mean() > 0.01


def test_the_names_are_in_the_picture(tmp_path):
    runs = [write_run(tmp_path / name, 3) for name in ("a", "b")]
    for names in (None, ["x", "a much longer name"]):
        compare_runs(runs, tmp_path / f"{bool(names)}.png", names)
    assert (read_image(tmp_path / "False.png") != read_image(tmp_path / "True.png")).any()


def test_mistakes_are_named(tmp_path, capsys):
    run = write_run(tmp_path / "run", 2)
    other = write_run(tmp_path / "other", 2, header="epoch, a, b")
    for runs, names, words in (
        ([tmp_path / "gone"], None, "gone: expected a run folder"),
        ([tmp_path], None, "expected a run folder with results.csv"),
        ([run, run], ["x"], "expected 2 different names"),
        ([run, run], ["x", "x"], "different names"),
        ([run, other], None, "other.*no column metrics/mAP_0.5,"),
    ):
        with pytest.raises(ConfigError, match=words):
            compare_runs(runs, tmp_path / "curves.png", names)
    assert main([str(tmp_path / "gone")]) == 2
    assert "gone" in capsys.readouterr().err
    assert not (tmp_path / "curves.png").exists()
