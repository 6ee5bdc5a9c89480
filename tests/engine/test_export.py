"""export.py: every format gives what PyTorch gives, in every form that can be asked for, and carries its metadata."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

import onnx
import pytest
import torch
from exported_detector import FILES, NAMES, SIZE, TINY, in_shares, noise, save_awake_detector

import export
from engine.cli import run_command
from engine.exporting.comparing import compare
from engine.exporting.network import load_detector
from engine.options.export import ELSEWHERE, ExportOptions
from models.backends.multi import DetectMultiBackend
from models.graph_nms import DetectorWithNMS, take_finished
from utils.errors import BackendError, CheckpointError, OptionError
from utils.nms import non_max_suppression

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
FLAGS = {"torchscript": "jit", "onnx": "onnx", "openvino": "xml"}
MODELS = sorted(path.name for path in (ROOT / "models").rglob("*.yaml") if "backbone:" in path.read_text())
# px. At 128 px OpenVINO 2026.4 miscomputes attention with as many heads as tokens a region (4 and 2x2): docs/export.md
SIZES = {"yolov5-p7.yaml": 128, **{f"yolov5-biformer-{size}.yaml": 192 for size in "tsb"}}
pytestmark = pytest.mark.usefixtures("logger_as_before")


@pytest.fixture
def weights(exported, tmp_path) -> Path:
    """The checkpoint alone in a folder."""
    return Path(shutil.copyfile(exported / "best.pt", tmp_path / "best.pt"))


@pytest.fixture(scope="module")
def plain(exported) -> DetectMultiBackend:
    """The checkpoint run by PyTorch."""
    return DetectMultiBackend(exported / "best.pt")


def rows_of(backend: DetectMultiBackend, images: torch.Tensor) -> torch.Tensor:
    """Predictions, boxes as shares of the image."""
    with torch.inference_mode():
        found = backend(images)
    return in_shares((found[0] if backend.pt else found).float())


@pytest.mark.parametrize("kind", list(FILES))
def test_a_file_gives_what_pytorch_gives(kind, exported, plain):
    backend = DetectMultiBackend(exported / FILES[kind])
    assert [name for name in ("pt", "jit", "onnx", "xml", "dnn", "engine") if getattr(backend, name)] == [FLAGS[kind]]
    assert (backend.stride, backend.names, backend.hw, backend.nc) == (32, NAMES, (SIZE, SIZE), 2)
    for count in (1, 2, 3):  # the file takes two at a time
        torch.testing.assert_close(rows_of(backend, noise(count)), rows_of(plain, noise(count)), rtol=0, atol=1e-4)
    with pytest.raises(BackendError, match="64x64 px, not 96x64"):
        backend(noise(1, 96))
    with pytest.raises(BackendError, match="--augment"):
        backend(noise(), augment=True)


def test_opencv_gives_what_pytorch_gives(exported, plain):
    backend = DetectMultiBackend(exported / "best.onnx", dnn=True)
    assert (backend.dnn, backend.onnx, backend.names, backend.hw) == (True, False, NAMES, (SIZE, SIZE))
    torch.testing.assert_close(rows_of(backend, noise(2)), rows_of(plain, noise(2)), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_shipped_model(name, tmp_path):
    weights = save_awake_detector(tmp_path / "model.pt", name, nc=3)
    export.run(weights=weights, imgsz=SIZES.get(name, SIZE), include=list(FILES))  # compares, and fails above 1e-4
    assert (tmp_path / "model.onnx").is_file()
    shutil.rmtree(tmp_path)  # pytest keeps it otherwise, and that of all models is many GB


def test_metadata_and_shapes_of_onnx(exported):
    content = onnx.load(str(exported / "best.onnx"))
    assert {entry.key: entry.value for entry in content.metadata_props} == {"stride": "32", "names": str(NAMES)}
    assert [entry.version for entry in content.opset_import if entry.domain == ""] == [17]
    given, found = content.graph.input[0], content.graph.output[0]
    assert (given.name, found.name) == ("images", "output0")
    assert [size.dim_value for size in given.type.tensor_type.shape.dim] == [2, 3, SIZE, SIZE]
    assert [size.dim_value for size in found.type.tensor_type.shape.dim] == [2, 136, 7]
    onnx.checker.check_model(content)


@pytest.mark.parametrize("opset", [14, *(pytest.param(opset, marks=pytest.mark.slow) for opset in range(15, 23))])
def test_the_opset_asked_for_is_written(opset, weights):
    export.run(weights=weights, imgsz=SIZE, include="onnx", opset=opset, simplify=True)
    content = onnx.load(str(weights.with_suffix(".onnx")))
    assert [(entry.domain, entry.version) for entry in content.opset_import] == [("", opset)]
    assert "Identity" not in {node.op_type for node in content.graph.node}  # --simplify leaves none


@pytest.mark.slow
@pytest.mark.parametrize("nms", [False, True])
def test_open_sizes(nms, weights):
    options = {"imgsz": SIZE, "dynamic": True, "nms": nms, "include": ["onnx", "openvino"]}
    export.run(weights=weights, **options)  # compares two shapes of its own
    dims = onnx.load(str(weights.with_suffix(".onnx"))).graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value for size in dims] == ["batch", 3, "height", "width"]
    detector = load_detector(weights, ExportOptions.from_kwargs(**options), CPU)
    for name in ("best.onnx", "best_openvino_model"):
        backend = DetectMultiBackend(weights.with_name(name))
        assert backend.hw is None
        for shape in ((1, SIZE, SIZE), (3, 32, 160)):
            found = backend(noise(*shape))
            if not nms:
                torch.testing.assert_close(found, detector.network(noise(*shape)), rtol=1e-4, atol=1e-3)
            assert found.shape[0] == shape[0]


def test_a_size_off_the_grid_is_rounded_up_and_said(exported, caplog):
    detector = load_detector(exported / "best.pt", ExportOptions(imgsz=[40, 70]), CPU)
    assert "[64, 96] is used" in caplog.text
    assert detector.shape == (1, 3, 64, 96)


def test_openvino_reports_to_nobody(exported):
    """Its import and its ``convert_model`` tell its maker who does what, from a process of its own."""
    assert "openvino" in sys.modules
    assert "openvino_telemetry" not in sys.modules
    sources = [*(ROOT / "engine" / "exporting").glob("*.py"), *(ROOT / "models" / "backends").glob("*.py")]
    words = {node.attr for path in sources for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "attr")}
    assert "read_model" in words
    assert "convert_model" not in words


# -- suppression inside --------------------------------------------------------------------------------------------


def test_suppression_inside_is_that_of_detect():
    torch.manual_seed(1)
    rows = torch.rand(3, 200, 5 + 4) * torch.tensor([200.0, 200, 60, 60, 1, 1, 1, 1, 1])
    rows[2, :, 4] = 0  # nothing in this image
    found = DetectorWithNMS(lambda images: (rows,), 0.3, 0.4)(noise())
    assert found.shape == (3, 300, 6)
    wanted = non_max_suppression(rows, 0.3, 0.4)
    assert len(wanted[0]) > 20
    assert len(wanted[2]) == 0
    for own, other in zip(take_finished(found, 0.3), wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-2)
    (best,) = take_finished(found[:1], 0.5, classes=[1], max_det=2)
    assert len(best) == 2
    assert best[:, 5].tolist() == [1, 1]


@pytest.mark.parametrize("kind", list(FILES))
def test_files_with_suppression_inside(kind, with_suppression, plain):
    backend = DetectMultiBackend(with_suppression / FILES[kind])
    assert (backend.nms, backend.names, backend.nc) == (True, NAMES, 2)
    with torch.inference_mode():
        (wanted,) = non_max_suppression(plain(noise()), 0.3, 0.5)
    assert len(wanted) > 3
    (found,) = take_finished(backend(noise()))
    torch.testing.assert_close(in_shares(found), in_shares(wanted), rtol=0, atol=1e-4)


# -- other numbers ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_half(exported, tmp_path_factory) -> Path:
    """A folder with a file of each format in float16."""
    folder = tmp_path_factory.mktemp("half")
    weights = shutil.copyfile(exported / "best.pt", folder / "best.pt")
    export.run(weights=weights, imgsz=SIZE, half=True, optimize=True, include=list(FILES))
    return folder


@pytest.mark.parametrize("kind", list(FILES))
def test_half_precision(kind, in_half, plain):
    backend = DetectMultiBackend(in_half / FILES[kind])
    assert backend.fp16 == (kind != "openvino")  # whose images stay float32
    torch.testing.assert_close(rows_of(backend, noise()), rows_of(plain, noise()), rtol=0, atol=2e-2)
    if kind == "onnx":
        kinds = {one.data_type for one in onnx.load(str(in_half / FILES[kind])).graph.initializer if one.dims}
        assert onnx.TensorProto.FLOAT16 in kinds


def test_eight_bits(weights, plain, tiny_set):
    options = {"imgsz": SIZE, "int8": True, "data": str(tiny_set)}
    files = export.run(weights=weights, include=["onnx", "openvino"], **options)
    assert [Path(file).name for file in files] == ["best_int8.onnx", "best_int8_openvino_model"]
    nodes = onnx.load(files[0]).graph.node
    makers = {output: node.op_type for node in nodes for output in node.output}
    in_8_bits = [makers.get(node.input[1]) == "DequantizeLinear" for node in nodes if node.op_type == "Conv"]
    assert sum(in_8_bits) >= 5
    assert in_8_bits.count(False) == 2  # the head's
    wanted = rows_of(plain, noise())
    for file in files:
        backend = DetectMultiBackend(file)
        assert (backend.names, backend.stride) == (NAMES, 32)
        difference = (rows_of(backend, noise()) - wanted).abs().mean()
        assert 0 < difference < 0.05


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


def test_an_opset_that_cannot_hold_the_network(weights, capfd):
    with pytest.raises(BackendError, match="at opset 12"):
        export.run(weights=weights, imgsz=SIZE, include="onnx", opset=12)
    assert list(weights.parent.iterdir()) == [weights]
    assert not capfd.readouterr().out  # torch would show the graph


@pytest.mark.parametrize(
    ("package", "include"), [("onnx", "onnx"), ("onnxruntime", "onnx"), ("onnx", "openvino"), ("openvino", "openvino")]
)
def test_a_missing_package_is_named_before_the_work(package, include, weights, monkeypatch):
    monkeypatch.setattr("utils.environment._is_installed", lambda name: False)
    monkeypatch.setitem(sys.modules, package, None)  # Python's own sign for a module that is not to be found
    with pytest.raises(BackendError, match=f"--include {include} needs {package}: pip install {package}$"):
        export.run(weights=weights, imgsz=SIZE, include=["torchscript", include])
    assert list(weights.parent.iterdir()) == [weights]


def test_export_starts_from_a_checkpoint(exported, capsys):
    with pytest.raises(OptionError, match=r"expected the \.pt file"):
        export.run(weights=exported / "best.onnx", imgsz=SIZE)
    assert run_command(lambda: export.main(export.parse_opt(["--weights", "nowhere.pt"]))) == 2
    assert capsys.readouterr().err.startswith("error: nowhere.pt: no such weights file")


def test_only_detectors_of_rgb_images_are_exported(tmp_path):
    weights = save_awake_detector(tmp_path / "grey.pt", {**TINY, "ch": 1})
    with pytest.raises(CheckpointError, match="1 channels"):
        export.run(weights=weights, imgsz=SIZE)


def test_a_file_that_differs_is_an_error(exported, tmp_path):
    other = save_awake_detector(tmp_path / "best.pt", {**TINY, "anchors": [[20, 13, 16, 30], [30, 61, 62, 45]]})
    detector = load_detector(other, ExportOptions(imgsz=[SIZE], batch_size=2), CPU)
    with pytest.raises(BackendError, match=r"best\.onnx: differs from PyTorch by"):
        compare(exported / "best.onnx", detector, half=False, int8=False, dynamic=False)
