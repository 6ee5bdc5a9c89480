"""The flags of ``detect.py``: one field is one flag and one keyword of ``detect.run()``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.options.base import Options, flag
from utils.errors import OptionError

SAVE_FORMATS = (0, 1)
ROUTING_AUTO = "auto"
LEAST_TILE = 32  # px
MOST_OVERLAP = 0.9  # tiles multiply quickly beyond


@dataclass
class DetectOptions(Options):
    """Options of a detection run."""

    weights: list[str] = flag(["yolov5s.pt"], "one or more checkpoints, which vote together; or an exported file")
    source: str = flag(
        "data/images",
        "picture, video, folder, pattern, .txt list of paths, .streams list, camera number, URL, or "
        "'screen [number] [left top width height]'",
    )
    recursive: bool = flag(False, "look into the folders below a folder too, and keep them apart in the results")
    data: str = flag("", "data set YAML with the class names, for weights that have none")
    imgsz: list[int] = flag(
        [640], "image size, px: a side, or height and width", names=("--imgsz", "--img", "--img-size")
    )
    batch_size: int = flag(1, "pictures or video frames that go through the network together")
    conf_thres: float = flag(0.25, "confidence that a detection must have, 0 to 1")
    iou_thres: float = flag(0.45, "IoU above which the less confident of two boxes goes, 0 to 1")
    max_det: int = flag(1000, "detections kept per image")
    device: str = flag("", "cpu, mps, or a GPU's number; '' takes the first GPU, else the CPU")
    view_img: bool = flag(False, "show the annotated pictures in a window")
    save_txt: bool = flag(False, "write detections as label files")
    save_format: int = flag(0, "their boxes: 0 for centre and size, 1 for two corners", choices=SAVE_FORMATS)
    save_csv: bool = flag(False, "write detections into predictions.csv")
    save_json: bool = flag(False, "write detections into predictions.json, in COCO's result form")
    save_conf: bool = flag(False, "add the confidence to the label files")
    save_crop: bool = flag(False, "save a picture of each detection, by class")
    nosave: bool = flag(False, "do not save annotated pictures and videos")
    classes: list[int] | None = flag(None, "keep these class numbers only", nargs="+", type=int)
    agnostic_nms: bool = flag(False, "let boxes of different classes suppress each other")
    augment: bool = flag(False, "test-time augmentation")
    visualize: bool = flag(False, "save a picture and an array of each layer's feature maps")
    show_routing: str = flag(
        "", "draw which regions routed attention looks at from a point x,y (px), or from the best detections: auto"
    )
    tile: int = flag(0, "cut pictures into tiles of this side, px, for small objects in large pictures; 0 for not")
    overlap: float = flag(0.2, "share of a tile that neighbours have in common, 0 to 0.9")
    tile_only: bool = flag(False, "with --tile: do not look at the picture as a whole as well")
    update: bool = flag(False, "strip the weights files of what only training needs, in place")
    project: str = flag("runs/detect", "folder of the runs")
    name: str = flag("exp", "name of this run, counted up when it exists")
    exist_ok: bool = flag(False, "write into the run folder even when it exists")
    line_thickness: int = flag(3, "width of the boxes' lines, px")
    hide_labels: bool = flag(False, "draw boxes without labels")
    hide_conf: bool = flag(False, "leave the confidence out of the labels")
    half: bool = flag(False, "half precision (CUDA)")
    dnn: bool = flag(False, "run an .onnx file by OpenCV instead of ONNX Runtime")
    vid_stride: int = flag(1, "take every n-th frame of a video")
    verbose: bool = flag(False, "log a line for every frame, however many there are")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_share("conf_thres", "iou_thres")
        self._require_from(1, "batch_size", "max_det", "line_thickness", "vid_stride")
        self._require(self.save_format in SAVE_FORMATS, "save_format", "0 or 1")
        self._require(min(self.image_size()) >= 1, "imgsz", "numbers from 1")
        self._require(bool(self.weight_files()), "weights", "at least one file")
        self._require(self.tile == 0 or self.tile >= LEAST_TILE, "tile", f"0, or a side from {LEAST_TILE} px")
        self._require(0 <= self.overlap <= MOST_OVERLAP, "overlap", f"a number from 0 to {MOST_OVERLAP}")
        self._require(bool(self.tile) or not self.tile_only, "tile_only", "a size by --tile beside it")
        self._require(not (self.tile and self.visualize), "visualize", "no --tile beside it")
        if self.show_routing:
            self.routing_place()
            self._require(not self.tile, "show_routing", "no --tile beside it")
            self._require(not self.augment, "show_routing", "no --augment beside it, which makes several passes")

    def image_size(self) -> tuple[int, int]:
        """Height and width in px; one number counts for both.

        Raises:
            OptionError: when there are more than two.
        """
        sides = [self.imgsz] if isinstance(self.imgsz, int) else list(self.imgsz)
        if len(sides) not in (1, 2):
            raise OptionError(f"--imgsz {' '.join(map(str, sides))}: expected a side, or height and width")
        return sides[0], sides[-1]

    def routing_place(self) -> tuple[float, float] | None:
        """The point of ``--show-routing``, x and y in px of the image; None for ``auto``.

        Raises:
            OptionError: when it is neither.
        """
        if self.show_routing.strip().lower() == ROUTING_AUTO:
            return None
        try:
            x, y = map(float, self.show_routing.split(","))
        except ValueError:
            x = y = math.nan
        usable = math.isfinite(x) and math.isfinite(y) and min(x, y) >= 0
        self._require(usable, "show_routing", f"{ROUTING_AUTO}, or a point x,y in px of the image such as 320,200")
        return x, y

    def weight_files(self) -> list[str]:
        """The weights as a list, which callers of ``run`` may give as a single path."""
        return [str(file) for file in (self.weights if isinstance(self.weights, (list, tuple)) else [self.weights])]
