"""The flags of ``export.py``: one field is one flag and one keyword of ``export.run()``."""

from __future__ import annotations

from dataclasses import dataclass

from engine.options.base import Options, flag
from utils.errors import OptionError

OPSET = 17
DYNAMIC_OPSET = 18  # the least that the exporter for open sizes writes
OPSETS = (12, 23)
INT8_OPSET = 13  # scales per channel exist from here on
FORMATS = ("torchscript", "onnx", "openvino")
ELSEWHERE = ("engine", "coreml", "saved_model", "pb", "tflite", "edgetpu", "tfjs", "paddle")
_LARGEST_SIDE = 16384  # px


@dataclass
class ExportOptions(Options):
    """Options of an export."""

    data: str = flag("data/shapes.yaml", "data set YAML whose training images set the scales of --int8")
    weights: list[str] = flag(["yolov5s.pt"], "one or more checkpoints; each is exported")
    imgsz: list[int] = flag(
        [640, 640], "image size, px: a side, or height and width", names=("--imgsz", "--img", "--img-size")
    )
    batch_size: int = flag(1, "images a call")
    device: str = flag("cpu", "where to trace: cpu, mps, or a GPU's number")
    half: bool = flag(False, "numbers of 16 bits: half the size; OpenVINO keeps them in the file alone")
    int8: bool = flag(False, "whole numbers of 8 bits in the convolutions: a quarter of the size (ONNX, OpenVINO)")
    dynamic: bool = flag(False, "batch, height and width stay open (ONNX, OpenVINO)")
    simplify: bool = flag(False, "let ONNX Runtime fold what is constant before the file is written")
    opset: int = flag(OPSET, "version of ONNX's operations; 18 with --dynamic unless given")
    optimize: bool = flag(False, "TorchScript: freeze the weights into the graph")
    nms: bool = flag(False, "suppression inside the file, which then gives finished detections")
    iou_thres: float = flag(0.45, "with --nms: IoU above which the less confident of two boxes goes, 0 to 1")
    conf_thres: float = flag(0.25, "with --nms: confidence that a detection must have, 0 to 1")
    include: list[str] = flag(["torchscript"], "formats: torchscript onnx openvino")

    def validate(self) -> None:
        """Check values against each other; see :meth:`Options.validate`."""
        super().validate()
        self._require_share("conf_thres", "iou_thres")
        self._require_from(1, "batch_size")
        self._require(
            1 <= min(self.image_size()) <= max(self.image_size()) <= _LARGEST_SIDE, "imgsz", "1 to 16384 each"
        )
        self._require(bool(self.weights) and all(self.weights), "weights", "at least one checkpoint")
        self._require(bool(self.include), "include", f"some of {', '.join(FORMATS)}")
        for name in self.include:
            self._check_format(name)
        self._require(OPSETS[0] <= self.opset <= OPSETS[1], "opset", f"a number from {OPSETS[0]} to {OPSETS[1]}")
        least = DYNAMIC_OPSET if self.dynamic else INT8_OPSET if self.int8 else OPSETS[0]
        self._require(self.settled_opset() >= least, "opset", f"{least} or more with these flags")
        if self.int8 and self.half:
            raise OptionError("--int8 --half: choose one of them")
        if set(self.include) == {"torchscript"} and (self.int8 or self.dynamic):
            raise OptionError("--int8 and --dynamic: TorchScript knows neither; add --include onnx or openvino")

    def _check_format(self, name: str) -> None:
        if name in ELSEWHERE:
            raise OptionError(
                f"--include {name}: is made from ONNX by its own platform's tools: --include onnx, then the command "
                f"for {name} in docs/export.md"
            )
        self._require(name in FORMATS, "include", f"some of {', '.join(FORMATS)}")

    def image_size(self) -> tuple[int, int]:
        """Height and width in px; one number counts for both.

        Raises:
            OptionError: when there are more than two.
        """
        if len(self.imgsz) not in (1, 2):
            raise OptionError(f"--imgsz {' '.join(map(str, self.imgsz))}: expected a side, or height and width")
        return self.imgsz[0], self.imgsz[-1]

    def settled_opset(self) -> int:
        """The opset to write."""
        return DYNAMIC_OPSET if self.dynamic and "opset" not in self.given else self.opset
