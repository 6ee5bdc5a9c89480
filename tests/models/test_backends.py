"""Files of other programs as weights: what is found out about them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from models.backends.multi import DetectMultiBackend
from utils.errors import BackendError, ProjectError

SIZE = 64  # px


def plain_onnx(path: Path, columns: int, **metadata: str) -> Path:
    """An ONNX file of another program: a reshape, with metadata of its own."""
    make = onnx.helper
    shape = make.make_tensor("shape", onnx.TensorProto.INT64, [3], [1, 3 * SIZE * SIZE // columns, columns])
    graph = make.make_graph(
        [make.make_node("Reshape", ["x", "shape"], ["y"])],
        "other",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3 * SIZE * SIZE // columns, columns])],
        [shape],
    )
    content = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    make.set_model_props(content, metadata)
    onnx.save(content, str(path))
    return path


def test_a_file_of_another_program(tmp_path):
    without = DetectMultiBackend(plain_onnx(tmp_path / "a.onnx", 8))
    assert not without.training
    assert (without.names, without.stride) == ({0: "class0", 1: "class1", 2: "class2"}, 32)
    (tmp_path / "data.yaml").write_text("names: [a, b, c]")
    assert DetectMultiBackend(tmp_path / "a.onnx", data=tmp_path / "data.yaml").names == {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize(
    ("columns", "metadata", "expected"),
    [
        (4, {}, "rows have 4 numbers"),
        (8, {"names": "{0: 'a'}"}, "names 1 classes, its output has 3"),
        (8, {"names": "__import__('os')"}, "metadata `names` cannot be read"),
        (8, {"names": "(" * 9999}, "metadata `names` cannot be read"),
        (8, {"names": "{1: 'a'}"}, "metadata `names` is"),
        (8, {"stride": "'far'"}, "metadata says stride"),
    ],
)
def test_metadata_that_makes_no_sense(columns, metadata, expected, tmp_path):
    file = plain_onnx(tmp_path / "other.onnx", columns, **metadata)
    for dnn in (False, True):
        with pytest.raises(BackendError, match=expected):
            DetectMultiBackend(file, dnn=dnn)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("model.engine", "TensorRT"),
        ("model.tflite", "TensorFlow Lite"),
        ("model.bin", "no weights file by its name"),
        (["a.pt", "b.onnx"], "only .pt files can vote together"),
        ("nowhere.onnx", "no such weights file"),
    ],
)
def test_files_that_are_not_run_here(weights, expected):
    with pytest.raises(ProjectError, match=expected):
        DetectMultiBackend(weights)


def test_opencv_takes_no_suppression_inside(tmp_path):
    file = plain_onnx(tmp_path / "other.onnx", 6, nms="True")
    assert DetectMultiBackend(file).nms
    with pytest.raises(BackendError, match="without --dynamic, --nms and --half"):
        DetectMultiBackend(file, dnn=True)
