"""How much memory or disk may be taken for images, by what the kernel's files say."""

import shutil
from pathlib import Path

import pytest
from drawn_split import draw_split

from utils.datasets.budget import MemoryFiles, disk_shortage, memory_shortage, more_than_little, read_memory
from utils.datasets.detection import LoadImagesAndLabels

MB = 1 << 20
UNLIMITED_V1 = 9223372036854771712


@pytest.fixture
def files(tmp_path):
    """A machine with 1000 MB, 800 of them free, and no container."""
    system = tmp_path / "meminfo"
    system.write_text(f"MemTotal: {1000 * 1024} kB\nMemFree: 5 kB\nMemAvailable: {800 * 1024} kB\nHugePages_Total: 0\n")
    (tmp_path / "cgroup").write_text("")
    return MemoryFiles(system, tmp_path / "cgroup", tmp_path / "groups")


def group(folder: Path, limit, used, reclaimable=(0, 0), version=2) -> Path:
    """The files of one control group, sizes in MB."""
    folder.mkdir(parents=True, exist_ok=True)
    limits, use = (
        ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    prefix = "" if version == 2 else "total_"
    (folder / limits).write_text(f"{limit * MB if isinstance(limit, int) else limit}\n")
    (folder / use).write_text(f"{used * MB}\n")
    active, inactive = (size * MB for size in reclaimable)
    rows = (f"{prefix}active_file {active}", f"{prefix}inactive_file {inactive}", f"{prefix}shmem {7 * MB}")
    (folder / "memory.stat").write_text("\n".join(rows))
    return folder


def figures(files):
    memory = read_memory(files)
    return memory.available / MB, memory.total / MB, memory.limit


def test_without_a_container(files):
    assert figures(files) == (800, 1000, "")


def test_this_machine_tells_too():
    memory = read_memory()
    assert 0 < memory.available <= memory.total


@pytest.mark.parametrize(
    ("path", "groups", "expected"),
    [
        # the container's own group, mounted as the root, as with a namespace of its own
        ("/", {"": (400, 100)}, (300, 400, "")),
        # pages of files that were read count as free
        ("/", {"": (400, 390, (40, 50))}, (100, 400, "")),
        # a group inside: its own limit, and then that of the group above it, which is full
        ("/a/b", {"a": (900, 50), "a/b": (500, 20)}, (480, 500, "a/b")),
        ("/a/b", {"a": (600, 590), "a/b": (500, 20)}, (10, 500, "a")),
        # the path is one of the machine outside; only the root is there
        ("/docker/0123", {"": (300, 10)}, (290, 300, "")),
        # no limit, or one above all memory there is
        ("/a", {"a": ("max", 100)}, (800, 1000, None)),
        ("/a", {"a": (5000, 100)}, (800, 1000, None)),
        # less than the limit is free on the machine itself, but a tenth of the limit is what is spared
        ("/a", {"a": (900, 20)}, (800, 900, None)),
        ("/a", {"a": (100, 200)}, (0, 100, "a")),
    ],
)
def test_limits_of_version_2(files, path, groups, expected):
    files.membership.write_text(f"1:name=systemd:/elsewhere\n0::{path}\n")
    for name, sizes in groups.items():
        group(files.groups / name, *sizes)
    available, total, limited_by = expected
    limit = "" if limited_by is None else str(files.groups / limited_by / "memory.max")
    assert figures(files) == (available, total, limit)


def test_the_soft_limit_of_version_2_counts(files):
    files.membership.write_text("0::/a\n")
    (group(files.groups / "a", "max", 50) / "memory.high").write_text(str(250 * MB))
    assert figures(files) == (200, 250, str(files.groups / "a" / "memory.high"))


@pytest.mark.parametrize("mixed", [False, True])
def test_limits_of_version_1(files, mixed):
    files.membership.write_text("5:cpu,cpuacct:/a\n4:memory:/docker/x\n0::/\n" if mixed else "4:memory:/docker/x\n")
    root = files.groups / "memory"
    group(root, UNLIMITED_V1 // MB, 700, version=1)
    (root / "memory.limit_in_bytes").write_text(str(UNLIMITED_V1))
    assert figures(files) == (800, 1000, "")
    group(root / "docker/x", 200, 150, (10, 20), version=1)
    assert figures(files) == (80, 200, str(root / "docker/x/memory.limit_in_bytes"))


def test_a_group_without_further_files(files):
    files.membership.write_text("0::/a\nnonsense\n")
    folder = files.groups / "a"
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text(str(300 * MB))
    assert figures(files) == (300, 300, str(folder / "memory.max"))


def test_what_fits_and_what_is_short(files):
    assert memory_shortage(700 * MB, files=files) == ""  # a tenth of 1000 stays free
    text = memory_shortage(701 * MB, files=files)
    assert text == "the images need 0.74 GB, 0.84 GB are free and 10% of 1.05 GB is spared"
    assert memory_shortage(350 * MB, 2, files) == ""
    text = memory_shortage(351 * MB, 2, files)
    assert text.startswith("the images need 0.74 GB (0.37 GB in each of 2 processes), 0.84 GB are free and")
    files.membership.write_text("0::/a\n")
    group(files.groups / "a", 400, 100)
    assert memory_shortage(260 * MB, files=files) == ""
    assert f"0.31 GB are free under the limit in {files.groups / 'a' / 'memory.max'} and" in memory_shortage(
        261 * MB, files=files
    )


def test_what_is_kept_unasked(files):
    for count, copies in ((0, 1), (200, 1), (100, 2)):  # a quarter of 800
        assert more_than_little(count * MB, copies, files) == ""
    assert "0.21 GB" in more_than_little(201 * MB, 1, files)
    assert more_than_little(101 * MB, 2, files)
    files.system.write_text(f"MemTotal: {64 << 20} kB\nMemAvailable: {60 << 20} kB\n")
    assert more_than_little(10**9, 1, files) == ""
    assert more_than_little(10**9 + 1, 1, files)
    files.system.write_text("")
    assert more_than_little(1, 1, files)  # nobody knows how much there is


def test_room_on_the_disk(tmp_path):
    usage = shutil.disk_usage(tmp_path)
    assert disk_shortage(0, tmp_path / "pixels") == ""
    assert (tmp_path / "pixels").is_dir()
    text = disk_shortage(usage.free, tmp_path / "other")
    assert text.startswith(f"the images need {usage.free / 1e9:.2f} GB more, ")
    assert not (tmp_path / "other").exists()  # nothing is left where nothing is kept
    (tmp_path / "file").write_text("")
    assert "cannot be written" in disk_shortage(1, tmp_path / "file" / "pixels")
    assert "cannot be written" in disk_shortage(1, tmp_path / "file")


@pytest.mark.parametrize(
    ("total", "free", "fits"),
    [
        (20, 6, 4),  # a tenth of a small disk stays free
        (270, 21.7, 16.7),  # of a large one that is nearly full 5 GB
        (270, 5, 0),
    ],
)
def test_what_stays_free_on_a_disk(tmp_path, monkeypatch, total, free, fits):
    usage = type(shutil.disk_usage(tmp_path))(int(total * 1e9), int((total - free) * 1e9), int(free * 1e9))
    monkeypatch.setattr("utils.datasets.budget.shutil.disk_usage", lambda folder: usage)
    assert disk_shortage(int(fits * 1e9), tmp_path / "pixels") == ""
    text = disk_shortage(int(fits * 1e9) + 10**7, tmp_path / "pixels")
    assert text.startswith(f"the images need {fits + 0.01:.2f} GB more, {free:.2f} GB are free and")


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_too_large_a_set_is_read_as_before_and_says_why(tmp_path, kind, heard):
    # 20 million px a side: six images of which nothing but their sizes is ever looked at
    dataset = LoadImagesAndLabels(draw_split(tmp_path), 20_000_000, cache_images=kind, prefix="train: ")
    assert f"train: --cache {kind} is off: the images need " in heard.text
    assert len(dataset) == 6
    assert not list(tmp_path.rglob("*.npy"))


def test_too_large_a_set_for_memory_unasked_is_read_without_a_word(tmp_path, heard):
    dataset = LoadImagesAndLabels(draw_split(tmp_path), 20_000_000, cache_images="auto")
    assert dataset._ram is None
    assert "cache" not in heard.text


def test_pixels_that_are_there_need_no_room(tmp_path, monkeypatch, heard):
    split = draw_split(tmp_path)
    LoadImagesAndLabels(split, 64, cache_images="disk")
    usage = shutil.disk_usage(tmp_path)
    full = type(usage)(usage.total, usage.total, 0)
    monkeypatch.setattr("utils.datasets.budget.shutil.disk_usage", lambda folder: full)
    dataset = LoadImagesAndLabels(split, 64, cache_images="disk")
    monkeypatch.setattr(dataset, "_decode", None)
    assert dataset[0][0].shape == (3, 64, 64)
    assert "is off" not in heard.text
    next((tmp_path / "labels").glob("*pixels*/*.npy")).unlink()
    LoadImagesAndLabels(split, 64, cache_images="disk")
    assert "--cache disk is off" in heard.text
