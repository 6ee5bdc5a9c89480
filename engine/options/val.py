"""The flags of ``val.py``: one field is one flag and one keyword of ``val.run()``."""

from __future__ import annotations

from dataclasses import dataclass

from engine.options.base import Options, flag

_LARGEST_SIDE = 16384  # px
TASKS = ("val", "train", "test", "speed", "study")


@dataclass
class ValOptions(Options):
    """Options of a validation run."""

    data: str = flag("data/shapes.yaml", "data set YAML")
    download: bool = flag(
        False, "fetch the archive that the data set YAML's `download` entry names, when its images are not there"
    )
    weights: list[str] = flag(["yolov5s.pt"], "one or more checkpoints, which vote together; or an exported file")
    batch_size: int = flag(32, "images a batch")
    imgsz: int = flag(640, "image size, px", names=("--imgsz", "--img", "--img-size"))
    conf_thres: float = flag(0.001, "confidence that a detection must have, 0 to 1")
    iou_thres: float = flag(0.6, "IoU above which the less confident of two boxes goes, 0 to 1")
    max_det: int = flag(300, "detections kept per image")
    task: str = flag("val", "split to validate on, or speed, or study (all sizes)", choices=TASKS)
    device: str = flag("", "cpu, mps, or a GPU's number; '' takes the first GPU, else the CPU")
    workers: int = flag(8, "processes that load images")
    single_cls: bool = flag(False, "treat all classes as one")
    augment: bool = flag(False, "test-time augmentation")
    verbose: bool = flag(False, "a table row for every class, however many")
    save_txt: bool = flag(False, "write detections as label files")
    save_hybrid: bool = flag(False, "as --save-txt, with the labels among the detections at confidence 1")
    save_conf: bool = flag(False, "add the confidence to the label files")
    save_json: bool = flag(False, "write detections as COCO JSON")
    coco_eval: bool = flag(False, "compare the mAP with pycocotools', on any data set")
    slices: bool = flag(False, "AP of small, medium, large; crowded, sparse; occluded, free: a table and slices.csv")
    project: str = flag("runs/val", "folder of the runs")
    name: str = flag("exp", "name of this run, counted up when it exists")
    exist_ok: bool = flag(False, "write into the run folder even when it exists")
    half: bool = flag(False, "half precision; needs a GPU, the CPU keeps to float32 with a warning")
    dnn: bool = flag(False, "run an .onnx file by OpenCV instead of ONNX Runtime")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_share("conf_thres", "iou_thres")
        self._require_from(1, "batch_size", "imgsz", "max_det")
        self._require_from(0, "workers")
        self._require(self.imgsz <= _LARGEST_SIDE, "imgsz", f"a number up to {_LARGEST_SIDE}")
        self._require(any(self.weights) or not self.weights, "weights", "the path of a checkpoint")
        for text in ("data", "project", "name"):
            self._require(bool(getattr(self, text)), text, "something behind it")
        self._require(self.task in TASKS, "task", f"one of {', '.join(TASKS)}")
