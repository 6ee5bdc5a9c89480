"""From float32 to 8 bits: ONNX Runtime's static quantisation of the convolutions.

Only convolutions change. The head's last ones, the decoding of boxes and attention stay as they are: a box is a number
of up to some thousand px, of which 256 steps are far too coarse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.exporting.graph import nodes_behind_convolutions
from engine.exporting.quiet import quiet
from models.backends.onnx_runtime import import_runtime
from utils.datasets.config import check_dataset
from utils.datasets.images import list_images
from utils.datasets.sources import LoadImages
from utils.environment import import_optional
from utils.errors import DatasetError
from utils.log import LOGGER

MOST_IMAGES = 128  # that scales are found from; more change little


def calibration_images(data: str | Mapping[str, Any], shape: Sequence[int], stride: int) -> Iterator[np.ndarray]:
    """Training images of a data set as the network gets them, spread evenly over the set.

    Args:
        data: data set YAML, or its content.
        shape: (B, 3, H, W) of the input.
        stride: px.

    Yields:
        (B, 3, H, W) float32 in 0..1.

    Raises:
        DatasetError: when there is none.
    """
    files = list_images(check_dataset(data)["train"])
    chosen = [
        files[place] for place in np.linspace(0, len(files) - 1, min(MOST_IMAGES, len(files))).round().astype(int)
    ]
    batch: list[np.ndarray] = []
    with LoadImages(chosen, tuple(shape[2:]), stride, auto=False) as source:
        for _, pixels, *_ in source:
            batch.append(pixels)
            if len(batch) == shape[0]:
                yield np.stack(batch).astype(np.float32) / 255
                batch = []
    if batch:
        yield np.stack((batch * shape[0])[: shape[0]]).astype(np.float32) / 255


def quantise(source: Path, target: Path, batches: Iterable[np.ndarray]) -> None:
    """Write an ONNX file whose convolutions compute in 8 bits.

    Args:
        source: float32.
        target: where to write; metadata comes along.
        batches: images (B, 3, H, W) float32 in 0..1 as they will come, to find the range of every map from.

    Raises:
        BackendError: when a package is missing.
        DatasetError: when there are no images.
    """
    onnx = import_optional("onnx", "--int8")
    import_runtime("--int8")
    tools = import_optional("onnxruntime.quantization", "--int8")
    content = onnx.load(str(source))
    kept = {entry.key: entry.value for entry in content.metadata_props}
    reader = _reader(tools, batches)
    LOGGER.info("int8: finding the range of every map from images")
    with quiet():
        tools.quantize_static(
            content,
            str(target),
            reader,
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            nodes_to_exclude=nodes_behind_convolutions(content.graph)[1],
        )
    if not reader.count:
        raise DatasetError("--int8: no training image of --data could be read; scales are found from them")
    LOGGER.info("int8: ranges found from %d batches", reader.count)
    written = onnx.load(str(target))
    for key, value in kept.items():
        if key not in {entry.key for entry in written.metadata_props}:
            written.metadata_props.add(key=key, value=value)
    onnx.save(written, str(target))


def _reader(tools: Any, batches: Iterable[np.ndarray]) -> Any:
    """The batches in the form in which ONNX Runtime asks for them."""

    class Reader(tools.CalibrationDataReader):
        count = 0

        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            self.count += batch is not None
            return None if batch is None else {"images": batch}

    return Reader()
