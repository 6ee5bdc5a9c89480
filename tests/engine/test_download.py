"""Data sets that are fetched: only when told, only what was meant, and nothing outside of their folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tiny_dataset import NAMES, make_dataset

import train
import val
from stream_server import Camera, serving
from tiny_detector import save_detector
from utils.datasets.archives import unpack
from utils.datasets.config import check_dataset, fetch_dataset
from utils.datasets.download import read_download
from utils.errors import DatasetError
from utils.yaml_io import yaml_save

GOOD = {"url": "https://example.org/a.zip", "sha256": "0" * 64, "bytes": 10}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def server(tmp_path: Path):
    """Serves the files of a folder: the address, and the folder."""
    (tmp_path / "served").mkdir()
    with serving(Camera(files=tmp_path / "served")) as address:
        yield address, tmp_path / "served"


def zip_of(folder: Path, around: str = "") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, around + str(path.relative_to(folder)))
    return stream.getvalue()


@pytest.fixture
def described(server, here: Path) -> Callable[..., Path]:
    """Puts an archive on the server, and writes the YAML that names it."""
    address, served = server

    def write(data: bytes, **changes: Any) -> Path:
        (served / "set.zip").write_bytes(data)
        entry = {"url": f"{address}/set.zip", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **changes}
        content = {"path": "cells", "train": "images/train", "val": "images/val", "names": dict(NAMES)}
        yaml_save("data.yaml", {**content, "download": entry})
        return here / "data.yaml"

    return write


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> bytes:
    """A zip of a small data set."""
    root = tmp_path_factory.mktemp("made") / "set"
    make_dataset(root, train=2, val=2, side=32)
    return zip_of(root)


def test_both_commands_fetch_only_when_told(described, archive: bytes, here: Path, server) -> None:
    file = described(archive)
    weights = save_detector(here / "tiny.pt")
    settings = {"data": str(file), "imgsz": 32, "device": "cpu", "workers": 0, "batch_size": 2}
    for fails in (
        lambda: val.run(weights=weights, plots=False, **settings),
        lambda: train.run(cfg="yolov5n.yaml", weights="", epochs=1, **settings),
    ):
        with pytest.raises(DatasetError, match=r"nothing is downloaded.*--download fetches"):
            fails()
    assert not (here / "cells").exists()
    val.run(weights=weights, plots=False, download=True, **settings)
    assert len(list((here / "cells" / "images").rglob("*.png"))) == 4
    (server[1] / "set.zip").unlink()
    val.run(weights=weights, plots=False, download=True, **settings)  # it is there: nothing is asked for
    other = {**settings, "data": str(_elsewhere(file))}
    with pytest.raises(DatasetError, match="cannot be fetched"):
        train.run(cfg="yolov5n.yaml", weights="", download=True, **other)


def _elsewhere(file: Path) -> Path:
    other = file.with_name("other.yaml")
    other.write_text(file.read_text().replace("path: cells", "path: other"))
    return other


@pytest.mark.parametrize("around", ["", "cells-main/"])
def test_an_archive_with_and_without_a_folder_around_it(around: str, described, tmp_path: Path, here: Path) -> None:
    make_dataset(tmp_path / "set", train=1, val=1, side=32)
    file = described(zip_of(tmp_path / "set", around))
    (here / "cells").mkdir()  # empty is as good as new
    fetch_dataset(file)
    assert check_dataset(file)["path"] == here / "cells"
    assert sorted(path.name for path in here.iterdir()) == ["cells", "data.yaml"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": "0" * 64}, "its checksum is .* it was changed"),
        ({"bytes": 100}, "is larger than the 100 bytes"),
        ({"bytes": 10**6}, "cut or changed"),
        ({"url": "http://127.0.0.1:9/set.zip"}, "cannot be fetched"),
    ],
)
def test_another_file_is_not_unpacked(changes: dict, words: str, described, archive: bytes, here: Path) -> None:
    file = described(archive, **changes)
    with pytest.raises(DatasetError, match=words):
        fetch_dataset(file)
    assert [path.name for path in here.iterdir()] == ["data.yaml"]


def test_what_is_there_stays(described, archive: bytes, here: Path) -> None:
    file = described(archive)
    (here / "cells").mkdir()
    (here / "cells" / "mine.txt").write_text("keep")
    with pytest.raises(DatasetError, match="move it away"):
        fetch_dataset(file)
    assert [path.name for path in (here / "cells").iterdir()] == ["mine.txt"]


def test_an_archive_of_something_else(described, tmp_path: Path, here: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_text("x")
    with pytest.raises(DatasetError, match="1 files, but not the images"):
        fetch_dataset(described(zip_of(tmp_path / "set")))
    assert [path.name for path in here.iterdir()] == ["data.yaml"]


@pytest.mark.parametrize("path", ["/tmp/anywhere", "../here", "~/x", "a/../../b", "..", "", "../datasets/../x"])
def test_a_yaml_cannot_choose_where_files_go(path: str, described, archive: bytes, here: Path) -> None:
    file = described(archive)
    file.write_text(file.read_text().replace("path: cells", f"path: '{path}'"))
    with pytest.raises(DatasetError, match="relative folder without"):
        fetch_dataset(file)
    assert [entry.name for entry in here.parent.iterdir() if entry.name not in ("here", "served")] == []


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("bash data/scripts/get_coco.sh", "holds a program"),
        ("import os\nos.system('id')", "holds a program"),
        ("file:///etc/passwd", "holds a program"),
        ("https://example.org/a.zip", "neither the size nor the checksum"),
        (["https://example.org/a.zip"], "neither the size nor the checksum"),
        ({**GOOD, "url": "file:///etc/passwd"}, "needs a `url`"),
        ({**GOOD, "url": "ftp://example.org/a"}, "needs a `url`"),
        ({**GOOD, "url": "https://example.org/a b\nHost: x"}, "needs a `url`"),
        ({**GOOD, "sha256": "abc"}, "needs the archive's `sha256`"),
        ({**GOOD, "sha256": 10**63}, "needs the archive's `sha256`"),
        ({**GOOD, "bytes": True}, "`bytes`"),
        ({**GOOD, "bytes": "10"}, "`bytes`"),
        ({**GOOD, "bytes": 0}, "`bytes`"),
    ],
)
def test_entries_that_are_refused(entry: Any, words: str) -> None:
    with pytest.raises(DatasetError, match=words) as caught:
        read_download(entry, "data.yaml")
    assert str(caught.value).startswith("data.yaml: ") and "\n" not in str(caught.value)


def test_no_entry_to_fetch(here: Path) -> None:
    with pytest.raises(DatasetError, match="finds no `download:` entry"):
        fetch_dataset({"path": "x", "train": "a", "val": "b", "names": ["a"]})
    fetch_dataset({"path": "x", "train": "a", "val": "b", "names": ["a"], "drawn_by": "shapes"})  # made, not fetched


def test_a_redirect_to_a_file_of_this_machine_is_not_followed(described, archive: bytes, here: Path) -> None:
    class Redirect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirect)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        with pytest.raises(DatasetError, match="cannot be fetched"):
            fetch_dataset(described(archive, url=f"http://127.0.0.1:{server.server_port}/"))
    finally:
        server.shutdown()
        server.server_close()


# -- archives ------------------------------------------------------------------------------------------------------


def _zip(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return stream.getvalue()


def _tar(*entries: tuple[str, bytes, bytes], mode: str = "w") -> bytes:
    """A tar of entries name, type and link target or content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = "" if kind == tarfile.REGTYPE else content.decode()
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _special_zip(name: str, mode: int, data: bytes = b"/etc") -> bytes:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return _zip((info, data))


FILE = tarfile.REGTYPE
ARCHIVES = {
    "zip slip": (_zip(("../out.txt", b"x")), "outside"),
    "zip slip inside": (_zip(("a/../../out.txt", b"x")), "outside"),
    "zip absolute": (_zip(("/tmp/out.txt", b"x")), "outside"),
    "zip backslashes": (_zip(("..\\out.txt", b"x")), "outside"),
    "zip drive": (_zip(("C:/out.txt", b"x")), "outside"),
    "zip control character": (_zip(("a\x1b[2J", b"x")), "outside"),
    "zip link": (_special_zip("link", stat.S_IFLNK | 0o777), "a link or a device"),
    "zip device": (_special_zip("dev", stat.S_IFCHR | 0o666), "a link or a device"),
    "zip pipe": (_special_zip("pipe", stat.S_IFIFO | 0o666), "a link or a device"),
    "zip bomb": (_zip(("a", bytes(5_000_000)), method=zipfile.ZIP_DEFLATED), "more than 1,000,000 bytes"),
    "zip of many": (_zip(*((f"{n}", bytes(400_000)) for n in range(3))), "more than 1,000,000 bytes"),
    "zip in an unusual way": (_zip(("a", b"x"), method=zipfile.ZIP_LZMA), "unusual way"),
    "zip file and folder": (_zip(("a", b"x"), ("a/b", b"x")), "twice, as file and folder"),
    "zip long name": (_zip(("a" * 300, b"x")), "no usable name"),
    "zip cut": (_zip(("a", b"x" * 100))[:-30], "damaged"),
    "tar slip": (_tar(("../out.txt", FILE, b"x")), "outside"),
    "tar absolute": (_tar(("/tmp/out.txt", FILE, b"x")), "outside"),
    "tar symbolic link": (_tar(("a", tarfile.SYMTYPE, b"/etc"), ("a/out.txt", FILE, b"x")), "a link or a device"),
    "tar hard link": (_tar(("a", tarfile.LNKTYPE, b"../../secret")), "a link or a device"),
    "tar device": (_tar(("a", tarfile.BLKTYPE, b"")), "a link or a device"),
    "tar pipe": (_tar(("a", tarfile.FIFOTYPE, b"")), "a link or a device"),
    "tar twice": (_tar(("a", FILE, b"x"), ("a", FILE, b"y")), "twice"),
    "tar.gz bomb": (gzip.compress(_tar(("a", FILE, bytes(5_000_000)))), "more than 1,000,000 bytes"),
    "gz bomb of a header": (gzip.compress(_tar(("a" * 3_000_000, FILE, b""))), "more than 1,000,000 bytes"),
    "tar.gz cut": (gzip.compress(_tar(("a", FILE, b"x" * 5000)))[:-20], "damaged"),
    "tar cut": (_tar(("a", FILE, b"x" * 50_000))[:20_000], "damaged"),
    "gz of something else": (gzip.compress(b"x" * 1000), "damaged"),
    "rar": (b"Rar!\x1a\x07\x00" + bytes(300), "neither"),
    "nothing": (b"", "neither"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_do_harm(name: str, tmp_path: Path) -> None:
    data, words = ARCHIVES[name]
    folder, archive = tmp_path / "outer" / "folder", tmp_path / "archive"
    folder.mkdir(parents=True)
    archive.write_bytes(data)
    with pytest.raises(DatasetError, match=words) as caught:
        unpack(archive, folder, 1_000_000)
    assert str(caught.value).startswith("archive: ") and "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "outer"]
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 1_000_000


@pytest.mark.parametrize("make", [lambda data: data, gzip.compress])
def test_a_good_tar(make, tmp_path: Path) -> None:
    folder, archive = tmp_path / "folder", tmp_path / "archive"
    folder.mkdir()
    archive.write_bytes(make(_tar(("./images", tarfile.DIRTYPE, b""), ("./images/名.txt", FILE, b"x" * 3000))))
    assert unpack(archive, folder, 100_000) == 1
    assert (folder / "images" / "名.txt").read_bytes() == b"x" * 3000
