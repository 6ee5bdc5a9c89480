"""export.py: each format gives what PyTorch gives, carries its metadata, and is run by detect.py and val.py."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from tiny_dataset import NAMES, make_dataset

import detect
import export
import hubconf
import val
from engine.cli import run_command
from engine.exporting.comparing import compare
from engine.exporting.network import load_detector
from engine.options.export import ELSEWHERE, ExportOptions
from engine.predictor import Selection
from engine.tiling import Tiling, detect_tiled
from models.autoshape import AutoShape
from models.backends.multi import DetectMultiBackend
from models.checkpoint import Checkpoint, ModelMeta, write_checkpoint
from models.graph_nms import DetectorWithNMS, take_finished
from models.yolo import DetectionModel
from utils.errors import BackendError, OptionError
from utils.nms import non_max_suppression

ROOT = Path(__file__).resolve().parents[2]
SIZE = 64  # px
pytestmark = pytest.mark.usefixtures("logger_as_before")
TINY = """
nc: 2
depth_multiple: 1.0
width_multiple: 1.0
anchors: [[10, 13, 16, 30], [30, 61, 62, 45]]
backbone:
  - [-1, 1, Conv, [8, 6, 2, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, BiFormerBlock, [2, 3, 2, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [[3, 5], 1, Detect, [nc, anchors]]
"""
FILES = {"torchscript": "tiny.torchscript", "onnx": "tiny.onnx", "openvino": "tiny_openvino_model"}
QUICK_FIRST = [pytest.param(kind, marks=pytest.mark.slow if kind == "openvino" else []) for kind in FILES]
FLAGS = {"torchscript": "jit", "onnx": "onnx", "openvino": "xml"}
MODELS = sorted(path.name for path in (ROOT / "models").rglob("*.yaml") if "backbone:" in path.read_text())
# px. At 128 px OpenVINO 2026.4 miscomputes attention with as many heads as tokens a region (4 and 2x2): docs/export.md
SIZES = {"yolov5-p7.yaml": 128, **{f"yolov5-biformer-{size}.yaml": 192 for size in "tsb"}}


def awake(model: DetectionModel) -> DetectionModel:
    """Scales that start at zero get a value, so that attention takes part, and objects are believed in."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                parameter.fill_(0.3)
        for layer in model.model[-1].m:
            layer.weight.normal_(0, 0.3)
            layer.bias.view(model.model[-1].na, -1)[:, 4] = 1
    return model


def save(path: Path, cfg: object, nc: int = 2) -> Path:
    torch.manual_seed(0)
    model = awake(DetectionModel(cfg, nc=nc))
    model.names = dict(NAMES) if nc == 2 else {number: f"kind {number}" for number in range(nc)}
    write_checkpoint(path, Checkpoint(model.state_dict(), ModelMeta.of(model)))
    return path


def images(batch: int = 1, height: int = SIZE, width: int = SIZE) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(3))


def scaled(rows: torch.Tensor) -> torch.Tensor:
    """Boxes as shares of the image."""
    return rows / rows.new_tensor([SIZE] * 4 + [1] * (rows.shape[-1] - 4))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A folder with ``tiny.pt`` and a file of each format, for batches of 2 images of 64 x 64 px."""
    folder = tmp_path_factory.mktemp("exported")
    weights = save(folder / "tiny.pt", yaml.safe_load(TINY))
    written = export.run(weights=weights, imgsz=SIZE, batch_size=2, include=list(FILES))
    assert written == [str(folder / name) for name in FILES.values()]
    assert sorted(path.name for path in folder.iterdir()) == sorted(["tiny.pt", *FILES.values()])
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "set", train=4, val=3, side=SIZE)


@pytest.mark.parametrize("kind", list(FILES))
def test_a_file_gives_what_pytorch_gives(kind, exported):
    backend = DetectMultiBackend(exported / FILES[kind])
    assert [name for name in ("pt", "jit", "onnx", "xml", "dnn", "engine") if getattr(backend, name)] == [FLAGS[kind]]
    assert (backend.stride, backend.names, backend.hw, backend.nc) == (32, NAMES, (SIZE, SIZE), 2)
    reference = DetectMultiBackend(exported / "tiny.pt")
    for count in (1, 2, 3):  # the file takes two at a time
        with torch.inference_mode():
            found, wanted = backend(images(count)), reference(images(count))[0]
        torch.testing.assert_close(scaled(found), scaled(wanted), rtol=0, atol=1e-4)
    with pytest.raises(BackendError, match="64x64 px, not 96x64"):
        backend(images(1, 96))
    with pytest.raises(BackendError, match="--augment"):
        backend(images(), augment=True)


def test_opencv_gives_what_pytorch_gives(exported):
    backend = DetectMultiBackend(exported / "tiny.onnx", dnn=True)
    assert (backend.dnn, backend.onnx, backend.names, backend.hw) == (True, False, NAMES, (SIZE, SIZE))
    with torch.inference_mode():
        wanted = DetectMultiBackend(exported / "tiny.pt")(images(2))[0]
    torch.testing.assert_close(scaled(backend(images(2))), scaled(wanted), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in MODELS])
def test_every_shipped_model(name, tmp_path):
    options = ExportOptions(imgsz=[SIZES.get(name, SIZE)])
    weights = save(tmp_path / "model.pt", name, nc=3)
    export.run(weights=weights, imgsz=options.imgsz, include=list(FILES))  # compares, and fails above 1e-4
    assert (tmp_path / "model.onnx").is_file()


def test_metadata_and_shapes_of_onnx(exported):
    content = onnx.load(str(exported / "tiny.onnx"))
    assert {entry.key: entry.value for entry in content.metadata_props} == {"stride": "32", "names": str(NAMES)}
    assert [entry.version for entry in content.opset_import if entry.domain == ""] == [17]
    given, found = content.graph.input[0], content.graph.output[0]
    assert (given.name, found.name) == ("images", "output0")
    assert [size.dim_value for size in given.type.tensor_type.shape.dim] == [2, 3, SIZE, SIZE]
    assert [size.dim_value for size in found.type.tensor_type.shape.dim] == [2, 136, 7]
    onnx.checker.check_model(content)


@pytest.mark.parametrize("opset", [14, 20])
def test_the_opset_asked_for_is_written(opset, tmp_path):
    weights = save(tmp_path / "tiny.pt", yaml.safe_load(TINY))
    export.run(weights=weights, imgsz=SIZE, include="onnx", opset=opset, simplify=True)
    content = onnx.load(str(tmp_path / "tiny.onnx"))
    assert [(entry.domain, entry.version) for entry in content.opset_import] == [("", opset)]
    assert "Identity" not in {node.op_type for node in content.graph.node}  # --simplify leaves none


@pytest.mark.slow
@pytest.mark.parametrize("nms", [False, True])
def test_open_sizes(nms, tmp_path):
    weights = save(tmp_path / "tiny.pt", yaml.safe_load(TINY))
    options = {"imgsz": SIZE, "dynamic": True, "nms": nms, "include": ["onnx", "openvino"]}
    export.run(weights=weights, **options)  # compares two shapes of its own
    dims = onnx.load(str(tmp_path / "tiny.onnx")).graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value for size in dims] == ["batch", 3, "height", "width"]
    detector = load_detector(weights, ExportOptions.from_kwargs(**options), torch.device("cpu"))
    for name in ("tiny.onnx", "tiny_openvino_model"):
        backend = DetectMultiBackend(tmp_path / name)
        assert backend.hw is None
        for shape in ((1, SIZE, SIZE), (3, 32, 160)):
            found = backend(images(*shape))
            if not nms:
                torch.testing.assert_close(found, detector.network(images(*shape)), rtol=1e-4, atol=1e-3)
            assert found.shape[0] == shape[0]


# -- suppression inside --------------------------------------------------------------------------------------------


def test_suppression_inside_is_that_of_detect():
    torch.manual_seed(1)
    rows = torch.rand(3, 200, 5 + 4) * torch.tensor([200.0, 200, 60, 60, 1, 1, 1, 1, 1])
    rows[2, :, 4] = 0  # nothing in this image
    found = DetectorWithNMS(lambda images: (rows,), 0.3, 0.4)(images())
    assert found.shape == (3, 300, 6)
    wanted = non_max_suppression(rows, 0.3, 0.4)
    assert len(wanted[0]) > 20
    assert len(wanted[2]) == 0
    for own, other in zip(take_finished(found, 0.3), wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-2)
    (best,) = take_finished(found[:1], 0.5, classes=[1], max_det=2)
    assert len(best) == 2
    assert best[:, 5].tolist() == [1, 1]


@pytest.mark.parametrize("kind", QUICK_FIRST)
def test_files_with_suppression_inside(kind, exported, tmp_path, data):
    weights = save(tmp_path / "tiny.pt", yaml.safe_load(TINY))
    options = {"imgsz": SIZE, "nms": True, "conf_thres": 0.3, "iou_thres": 0.5}
    export.run(weights=weights, include=kind, optimize=True, **options)
    backend, plain = DetectMultiBackend(tmp_path / FILES[kind]), DetectMultiBackend(exported / "tiny.pt")
    assert (backend.nms, backend.names) == (True, NAMES)
    with torch.inference_mode():
        (wanted,) = non_max_suppression(plain(images()), 0.3, 0.5)
    assert len(wanted) > 3
    (found,) = take_finished(backend(images()))
    torch.testing.assert_close(scaled(found), scaled(wanted), rtol=0, atol=1e-4)
    runs = {"imgsz": SIZE, "device": "cpu", "project": str(tmp_path / "runs")}
    detect.run(weights=tmp_path / FILES[kind], source=str(data.parent / "images" / "val"), save_txt=True, **runs)
    assert list((tmp_path / "runs" / "exp" / "labels").glob("*.txt"))
    with pytest.raises(OptionError, match="--save-hybrid"):
        val.run(data, tmp_path / FILES[kind], save_hybrid=True, workers=0, **runs)
    _check_pictures_and_tiles(backend, plain)


def _check_pictures_and_tiles(backend: DetectMultiBackend, plain: DetectMultiBackend) -> None:
    """A file with suppression inside finds in pictures and tiles what a plain one finds at the same thresholds."""
    pixels = (255 * images()[0].permute(1, 2, 0)).byte().numpy()
    model, reference = AutoShape(backend), AutoShape(plain)
    reference.conf, reference.iou = 0.3, 0.5
    (found,), (wanted,) = model(pixels).xyxy, reference(pixels, size=SIZE).xyxy
    assert len(wanted) > 3
    torch.testing.assert_close(scaled(found), scaled(wanted), rtol=0, atol=1e-4)
    whole, selection = Tiling(SIZE), Selection(conf_thres=0.3, iou_thres=0.5)
    tiles = [detect_tiled(one, pixels, whole, imgsz=SIZE, selection=selection) for one in (backend, plain)]
    np.testing.assert_allclose(*tiles, atol=1.01)  # boxes are in whole px


# -- other numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", QUICK_FIRST)
def test_half_precision(kind, exported, tmp_path):
    weights = save(tmp_path / "tiny.pt", yaml.safe_load(TINY))
    export.run(weights=weights, imgsz=SIZE, half=True, include=kind)
    with torch.inference_mode():
        wanted = DetectMultiBackend(exported / "tiny.pt")(images())[0]
    backend = DetectMultiBackend(tmp_path / FILES[kind])
    assert backend.fp16 == (kind != "openvino")  # whose images stay float32
    torch.testing.assert_close(scaled(backend(images()).float()), scaled(wanted), rtol=0, atol=2e-2)
    if kind == "onnx":
        kinds = {one.data_type for one in onnx.load(str(tmp_path / FILES[kind])).graph.initializer if one.dims}
        assert onnx.TensorProto.FLOAT16 in kinds


@pytest.mark.slow
def test_eight_bits_by_openvino(exported, tmp_path, data):
    weights = save(tmp_path / "tiny.pt", yaml.safe_load(TINY))
    (file,) = export.run(weights=weights, imgsz=SIZE, int8=True, data=str(data), include="openvino")
    assert Path(file).name == "tiny_int8_openvino_model"
    with torch.inference_mode():
        wanted = DetectMultiBackend(exported / "tiny.pt")(images())[0]
    assert (scaled(DetectMultiBackend(file)(images())) - scaled(wanted)).abs().mean() < 0.05


def test_eight_bits(tmp_path, data):
    weights = save(tmp_path / "tiny.pt", yaml.safe_load(TINY))
    files = export.run(weights=weights, imgsz=SIZE, int8=True, data=str(data), include="onnx")
    assert [Path(file).name for file in files] == ["tiny_int8.onnx"]
    nodes = onnx.load(files[0]).graph.node
    makers = {output: node.op_type for node in nodes for output in node.output}
    in_8_bits = [makers.get(node.input[1]) == "DequantizeLinear" for node in nodes if node.op_type == "Conv"]
    assert sum(in_8_bits) >= 5
    assert in_8_bits.count(False) == 2  # the head's
    backend = DetectMultiBackend(files[0])
    assert (backend.names, backend.stride) == (NAMES, 32)


# -- the commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*FILES, "opencv"])
def test_detect_and_val_take_the_file(kind, exported, data, tmp_path):
    file = exported / FILES.get(kind, "tiny.onnx")
    settings = {"imgsz": 96, "device": "cpu", "dnn": kind == "opencv", "conf_thres": 0.3}  # the file's size counts
    text = {}
    for weights in (file, exported / "tiny.pt"):
        name = weights.name.replace(".", "_")
        own = {"imgsz": SIZE, "dnn": False} if weights.suffix == ".pt" else {}
        source = str(data.parent / "images" / "val" / "000.png")
        run = {**settings, **own, "project": str(tmp_path), "name": name}
        detect.run(weights=weights, source=source, nosave=True, save_txt=True, **run)
        text[weights] = np.loadtxt(tmp_path / name / "labels" / "000.txt", ndmin=2)
    ours, pytorch = text.values()
    assert ours.shape == pytorch.shape
    np.testing.assert_allclose(ours[np.lexsort(ours.T)], pytorch[np.lexsort(pytorch.T)], atol=2 / SIZE)
    summary, maps, _ = val.run(data, file, workers=0, plots=False, project=str(tmp_path), **{**settings, "half": False})
    assert len(summary) == 7
    assert summary[4:] == (0, 0, 0)
    assert len(maps) == 2


@pytest.mark.parametrize("kind", list(FILES))
def test_a_program_and_tiles_take_the_file(kind, exported):
    pixels = np.random.default_rng(5).integers(0, 256, (SIZE, 3 * SIZE, 3), np.uint8)
    pictures = [pixels[:, :50], pixels[:40, SIZE : 2 * SIZE], pixels[:, 2 * SIZE :]]  # the file takes two at a time
    tiles, boxes = [], []
    for path in (exported / FILES[kind], exported / "tiny.pt"):
        model = hubconf.custom(path, device="cpu", _verbose=False)
        boxes.append([one.xyxy[0] for picture in pictures for one in model(picture, size=SIZE).tolist()])
        settings = {"imgsz": SIZE, "selection": Selection(conf_thres=0.3)}
        tiles.append(detect_tiled(DetectMultiBackend(path), pixels, Tiling(SIZE, 0.0, whole=False), **settings))
    model = hubconf.custom(exported / FILES[kind], device="cpu", _verbose=False).half()
    ours = model(pictures)  # of the file's size, not 640 px, and in its precision
    assert min(map(len, boxes[1])) > 2
    for own, alone, wanted in zip(ours.xyxy, *boxes, strict=True):
        torch.testing.assert_close(alone, wanted, rtol=0, atol=1e-2)
        torch.testing.assert_close(own, wanted, rtol=0, atol=1e-2)
    assert len(tiles[1]) > 5
    np.testing.assert_allclose(*tiles, atol=1.01)  # boxes are in whole px


@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_batches_of_any_size_go_through_a_file_of_two(kind, exported, data, tmp_path):
    found = {}
    for name, batch_size in (("single", 1), ("all", 5)):
        run = {"imgsz": SIZE, "device": "cpu", "conf_thres": 0.3, "project": str(tmp_path), "name": name}
        source = str(data.parent / "images" / "val")
        detect.run(weights=exported / FILES[kind], source=source, batch_size=batch_size, save_txt=True, **run)
        found[name] = [file.read_text() for file in sorted((tmp_path / name / "labels").glob("*.txt"))]
    assert len(found["all"]) == 3
    assert found["all"] == found["single"]


@pytest.mark.parametrize("wrong", ["augment", "update", "visualize", "show_routing"])
@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_what_only_checkpoints_can_is_refused_before_the_run(kind, wrong, exported, data, tmp_path):
    asked = {wrong: "auto" if wrong == "show_routing" else True}
    source = data.parent / "images" / "val"
    with pytest.raises(OptionError, match=f"--{wrong.replace('_', '-')}.*pt"):
        detect.run(weights=exported / FILES[kind], source=str(source), project=str(tmp_path), **asked)
    assert not list(tmp_path.iterdir())


def documented_commands() -> list:
    pages = ("README.md", "docs/export.md")
    lines = [line for page in pages for line in (ROOT / page).read_text(encoding="utf-8").splitlines()]
    commands = {line.partition(" #")[0].strip() for line in lines if line.startswith("python ")}
    exports = sorted(command for command in commands if command.startswith("python export.py"))
    others = sorted(command for command in commands if re.search(r"--weights best(\.onnx|_\w+_model)", command))
    return [*(pytest.param(command, marks=pytest.mark.slow) for command in exports), *others]


def test_commands_are_found():
    assert len(documented_commands()) > 3


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_run(command, exported, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, script, *words = command.split()
    shutil.copyfile(exported / "tiny.pt", "best.pt")
    if script != "export.py":
        shutil.copyfile(exported / FILES["onnx"], "best.onnx")
        shutil.copytree(exported / FILES["openvino"], "best_openvino_model")
    shutil.copytree(data.parent, "mydata")
    shutil.copytree(data.parent / "images" / "val", "some/folder")
    before = set(tmp_path.rglob("*"))
    smaller = ["--workers", "0"] if script == "val.py" else ["--img", str(SIZE)]
    monkeypatch.setattr("sys.argv", [script, *words, "--device", "cpu", *smaller])
    program = {"export.py": export, "detect.py": detect, "val.py": val}[script]
    program.main(program.parse_opt())
    assert set(tmp_path.rglob("*")) > before


# -- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ELSEWHERE)
def test_formats_of_other_platforms_name_the_page(name):
    with pytest.raises(OptionError, match=r"--include onnx.*docs/export\.md"):
        ExportOptions.from_kwargs(include=name)
    assert f"`{name}`" in (ROOT / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"include": "onnxx"}, "--include"),
        ({"include": []}, "--include"),
        ({"opset": 11}, "--opset 11"),
        ({"opset": 17, "dynamic": True, "include": "onnx"}, "--opset 17"),
        ({"opset": 12, "int8": True, "include": "onnx"}, "--opset 12"),
        ({"imgsz": [64, 64, 64]}, "height and width"),
        ({"imgsz": 0}, "--imgsz"),
        ({"batch_size": 0}, "--batch-size"),
        ({"int8": True, "half": True, "include": "onnx"}, "choose one"),
        ({"int8": True}, "TorchScript knows neither"),
        ({"iou_thres": 2.0}, "--iou-thres"),
        ({"weights": ""}, "--weights"),
    ],
)
def test_options_that_cannot_be(words, expected):
    with pytest.raises(OptionError, match=expected) as raised:
        ExportOptions.from_kwargs(**words)
    assert "\n" not in str(raised.value)


def test_an_opset_that_cannot_hold_the_network(tmp_path):
    weights = save(tmp_path / "tiny.pt", yaml.safe_load(TINY))
    with pytest.raises(BackendError, match="at opset 12"):
        export.run(weights=weights, imgsz=SIZE, include="onnx", opset=12)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.pt"]


def test_a_size_off_the_grid_is_rounded_up_and_said(tmp_path, caplog):
    weights = save(tmp_path / "tiny.pt", yaml.safe_load(TINY))
    export.run(weights=weights, imgsz=[40, 70], include="torchscript")
    assert "[64, 96] is used" in caplog.text
    assert DetectMultiBackend(tmp_path / "tiny.torchscript").hw == (64, 96)


@pytest.mark.parametrize(
    ("package", "include", "install"),
    [("onnx", "onnx", "pip install onnx"), ("openvino", "openvino", "pip install openvino")],
)
def test_a_missing_package_is_named(package, include, install, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.environment._is_installed", lambda name: False)
    monkeypatch.setitem(sys.modules, package, None)  # Python's own sign for a module that is not to be found
    weights = save(tmp_path / "tiny.pt", yaml.safe_load(TINY))
    with pytest.raises(BackendError, match=install):
        export.run(weights=weights, imgsz=SIZE, include=include)


@pytest.mark.parametrize(("package", "file"), [("onnxruntime", "tiny.onnx"), ("openvino", "tiny_openvino_model")])
def test_a_missing_runtime_is_named(package, file, exported, monkeypatch):
    monkeypatch.setattr("utils.environment._is_installed", lambda name: False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendError, match=f"pip install {package}"):
        DetectMultiBackend(exported / file)


@pytest.mark.parametrize("name", ["tiny.onnx", "tiny.torchscript", "tiny_openvino_model"])
def test_a_damaged_file_is_one_line(name, exported, tmp_path):
    whole = exported / name
    broken = tmp_path / name
    if whole.is_dir():
        broken.mkdir()
        (broken / "tiny.xml").write_text((whole / "tiny.xml").read_text()[:3000])
    else:
        broken.write_bytes(whole.read_bytes()[:3000])
    for dnn in {False, name.endswith(".onnx")}:
        with pytest.raises(BackendError, match=f"{name}.*damaged") as raised:
            DetectMultiBackend(broken, dnn=dnn)
        assert "\n" not in str(raised.value)


def test_export_starts_from_a_checkpoint(exported, capsys):
    with pytest.raises(OptionError, match=r"expected the \.pt file"):
        export.run(weights=exported / "tiny.onnx", imgsz=SIZE)
    assert run_command(lambda: export.main(export.parse_opt(["--weights", "nowhere.pt"]))) == 2
    assert capsys.readouterr().err.startswith("error: nowhere.pt: no such weights file")


def test_a_file_that_differs_is_an_error(exported, tmp_path):
    other = save(tmp_path / "tiny.pt", {**yaml.safe_load(TINY), "anchors": [[20, 13, 16, 30], [30, 61, 62, 45]]})
    detector = load_detector(other, ExportOptions(imgsz=[SIZE], batch_size=2), torch.device("cpu"))
    with pytest.raises(BackendError, match=r"tiny\.onnx: differs from PyTorch by"):
        compare(exported / "tiny.onnx", detector, half=False, int8=False, dynamic=False)
