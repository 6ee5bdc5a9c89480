"""What ``val.py`` does around :func:`engine.evaluator.evaluate`: load, choose the split, write, compare sizes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.callbacks import Callbacks
from engine.evaluator import EvalResult, LossFunction, Thresholds, evaluate
from engine.images import input_size, is_flexible, note_training_size
from engine.options.val import ValOptions
from engine.results import coco_line, evaluation_header, evaluation_table, slice_table, write_slices
from engine.run_plots import EvalPlots, drawing
from engine.val_outputs import COCO_CATEGORY_IDS, CocoJson, LabelFiles, is_coco
from models.backends.choice import kind_of
from models.backends.multi import DetectMultiBackend
from utils.annotations.json_file import is_json
from utils.charts import STUDY_SIZES, plot_study
from utils.coco_eval import coco_figures_of_files
from utils.datasets.batching import create_dataloader
from utils.datasets.config import check_dataset, fetch_dataset
from utils.datasets.json_labels import json_numbers
from utils.devices import select_device
from utils.dist import world_size
from utils.errors import ConfigError, DatasetError, OptionError
from utils.log import LOGGER
from utils.paths import increment_path
from utils.sizes import grid_size, make_divisible
from utils.wording import describe_speed

SPEED = Thresholds(conf=0.25, iou=0.45)
_USUAL_CONF = 0.001  # mAP measured above this confidence misses the curve's tail
_PAD = 0.5  # of a stride around each validation image


@dataclasses.dataclass
class Given:
    """Parts that a caller of ``val.run`` brings along instead of having them made."""

    model: nn.Module | None = None
    loader: Any = None
    save_dir: Path = Path()
    plots: bool = True
    compute_loss: LossFunction | None = None
    listener: Any = None


def validate(options: ValOptions, given: Given | None = None) -> EvalResult:
    """One validation.

    Args:
        options: the command's options.
        given: parts that are there already.

    Returns:
        What was found; figures by pycocotools where COCO's annotations are there.
    """
    parts = given or Given()
    alone = parts.model is None
    if options.download:
        fetch_dataset(options.data)
    data = check_dataset(options.data)
    model, device = _own_model(options, data) if alone else (parts.model, next(parts.model.parameters()).device)
    if alone and parts.plots:  # not for each size of a study
        note_training_size(model.model, options.imgsz)
    loader = parts.loader if parts.loader is not None else _loader(options, model, data)
    save_dir = _new_folder(options) if alone else Path(parts.save_dir)
    nc, names = _classes(options, model, data)
    if options.save_txt or options.save_hybrid or options.save_json:
        _warn_of_equal_names(getattr(getattr(loader, "dataset", None), "im_files", ()))
    outputs = _Outputs(options, data, save_dir, names, plots=parts.plots, unasked=_may_write(alone, save_dir))
    listeners = Callbacks(parts.listener)
    listeners.run("on_val_start")
    result = evaluate(
        model,
        loader,
        device=device,
        nc=nc,
        names=names,
        autocast=torch.float16 if options.half and device.type == "cuda" else None,
        thresholds=_thresholds(options),
        single_cls=options.single_cls,
        augment=options.augment,
        hybrid=options.save_hybrid,
        compute_loss=parts.compute_loss,
        confusion=outputs.plots is not None,
        coco=options.coco_eval,
        slices=options.slices,
        observers=outputs.observers,
        progress=evaluation_header(),
    )
    _report(result, names, options)
    result = outputs.finish(result)
    if alone:
        LOGGER.info(describe_speed(result.speed_ms, (options.batch_size, 3, *_input_hw(options, model))))
        LOGGER.info(f"results in {save_dir}")
    listeners.run("on_val_end", result=result)
    return result


def _report(result: EvalResult, names: dict[int, str], options: ValOptions) -> None:
    """Log the figures."""
    for row in evaluation_table(result, names, every_class=options.verbose):
        LOGGER.info(row)
    for note in result.notes:
        LOGGER.warning(note)
    if result.coco is not None:
        LOGGER.info(coco_line(result.coco, result.metrics))
    for row in slice_table(result.slices or ()):
        LOGGER.info(row)


def run_task(options: ValOptions, study_sizes: Sequence[int] = STUDY_SIZES) -> EvalResult | None:
    """What ``--task`` asks for; the result of the last validation.

    Args:
        options: the command's options.
        study_sizes: image sizes of ``--task study``, px.

    Raises:
        OptionError: in a launch of several processes.
    """
    if world_size() > 1:
        raise OptionError(f"val.py works in a single process, torchrun started {world_size()}: start python val.py")
    if options.task == "speed":
        result = None
        for weights in options.weights:
            speed = dataclasses.replace(options, weights=[weights], conf_thres=SPEED.conf, iou_thres=SPEED.iou)
            result = validate(dataclasses.replace(speed, half=torch.cuda.is_available() and options.device != "cpu"))
        return result
    if options.task == "study":
        return _study(options, study_sizes)
    if options.conf_thres > _USUAL_CONF:
        LOGGER.warning(
            f"--conf-thres {options.conf_thres} cuts the precision-recall curve; mAP is meant for {_USUAL_CONF}"
        )
    return validate(options)


def _study(options: ValOptions, sizes: Sequence[int]) -> EvalResult | None:
    """Validate each checkpoint at each size; a table for each and one chart."""
    tables, result = [], None
    for weights in options.weights:
        if kind_of(weights) != "pt" and not is_flexible(DetectMultiBackend(weights, dnn=options.dnn)):
            raise OptionError(f"--task study: {weights} takes one size alone; give .pt, or export with --dynamic")
        table = Path(f"study_{Path(str(options.data)).stem}_{Path(weights).stem}.txt")
        rows = []
        for number, size in enumerate(sizes, 1):
            LOGGER.info(f"\nstudy of {weights}, {number} of {len(sizes)}: {size} px")
            one = dataclasses.replace(options, weights=[weights], imgsz=size, task="val", save_json=False)
            result = validate(one, Given(plots=False))
            rows.append([*result.summary, *result.speed_ms])
        table.write_text("".join(_study_row(row) for row in rows), encoding="utf-8")
        tables.append(table)
    with drawing(Path("study.png")):
        plot_study(tables, "study.png", sizes=list(sizes))
    LOGGER.info(f"\nfigures of all sizes in {', '.join(map(str, tables))}, drawn in study.png")
    return result


def _study_row(row: Sequence[float]) -> str:
    return " ".join(f"{value:10.4g}" for value in row) + "\n"


def _own_model(options: ValOptions, data: Mapping[str, Any]) -> tuple[DetectMultiBackend, torch.device]:
    device = select_device(options.device, batch_size=options.batch_size)
    yaml = options.data if isinstance(options.data, (str, Path)) else None
    model = DetectMultiBackend(options.weights, device=device, dnn=options.dnn, data=yaml, fp16=options.half)
    _check_classes(options, model, data)
    _check_form(options, model)
    model.eval()
    model.warmup(imgsz=(1, 3, *_input_hw(options, model)))
    return model, device


def _check_form(options: ValOptions, model: DetectMultiBackend) -> None:
    """Refuse files whose form leaves no room for what is asked."""
    file = " ".join(map(str, options.weights))
    if model.hw is not None and model.hw[0] != model.hw[1]:
        raise OptionError(f"--weights {file}: takes {model.hw[0]}x{model.hw[1]} px, val.py measures on square images")
    if model.hw is not None and options.task == "study":
        raise OptionError(f"--task study: {file} takes one size alone; give .pt weights, or export with --dynamic")
    if model.nms and options.save_hybrid:
        raise OptionError(
            f"--save-hybrid: {file} has suppression inside, where labels cannot join; export without --nms"
        )
    if model.nms:
        LOGGER.warning("suppression is inside this file: its own thresholds hold, which lowers mAP")


def _input_hw(options: ValOptions, model: nn.Module) -> tuple[int, int]:
    """Largest height and width of a batch, px."""
    if not is_flexible(model):
        return model.hw
    size = make_divisible(options.imgsz, grid_size(model.stride))
    return size, size


def _new_folder(options: ValOptions) -> Path:
    return increment_path(Path(options.project) / options.name, exist_ok=options.exist_ok, mkdir=True)


def _classes(options: ValOptions, model: nn.Module, data: Mapping[str, Any]) -> tuple[int, dict[int, str]]:
    """Class count, and names as the model knows them; with ``--single-cls`` the one class ``item``."""
    if options.single_cls:
        return 1, {0: "item"}
    names = dict(getattr(model, "names", None) or data["names"])
    return int(data["nc"]), {int(index): name for index, name in names.items()}


def _may_write(alone: bool, save_dir: Path) -> bool:
    """A caller with its own model gets files that it did not ask for only into a folder that it names."""
    return alone or save_dir != Path()


def _check_classes(options: ValOptions, model: DetectMultiBackend, data: Mapping[str, Any]) -> None:
    own = model.nc
    if own != data["nc"] and not options.single_cls:
        raise ConfigError(
            f"--weights {' '.join(map(str, options.weights))} know {own} classes, "
            f"--data {options.data} has {data['nc']}: give weights and data that belong together"
        )


def _split(options: ValOptions) -> str:
    """The part of the data set that is looked at."""
    return options.task if options.task in ("train", "test") else "val"


def _loader(options: ValOptions, model: nn.Module, data: Mapping[str, Any]) -> Any:
    split = _split(options)
    if not data.get(split):
        raise DatasetError(f"--task {options.task}: {options.data} has no `{split}` entry")
    stride = grid_size(model.stride)
    flexible = is_flexible(model) and options.task != "speed"
    loader, _ = create_dataloader(
        data[split],
        input_size(model, (options.imgsz, options.imgsz))[0],
        options.batch_size,
        stride,
        single_cls=options.single_cls,
        pad=_PAD if flexible else 0.0,
        rect=flexible,
        workers=options.workers,
        prefix=f"{split}: ",
        nc=data["nc"],
        names=data["names"],
    )
    return loader


def _thresholds(options: ValOptions) -> Thresholds:
    return Thresholds(options.conf_thres, options.iou_thres, options.max_det)


def _warn_of_equal_names(files: Sequence[str]) -> None:
    """Output files and image numbers bear the images' names without their folders, where two may be alike."""
    stems = Counter(Path(file).stem for file in files)
    alike = [stem for stem, count in stems.items() if count > 1]
    if alike:
        LOGGER.warning(
            f"{len(alike)} file names come more than once, such as {alike[0]}: what is written about these images goes "
            "into one file, or under one number; give them names of their own"
        )


class _Outputs:
    """Everything that one validation writes."""

    def __init__(
        self,
        options: ValOptions,
        data: Mapping[str, Any],
        folder: Path,
        names: dict[int, str],
        *,
        plots: bool,
        unasked: bool,
    ) -> None:
        """Open what is wanted; without ``unasked`` only what an option names, so neither pictures nor COCO's JSON."""
        coco = is_coco(data)
        self.folder = folder
        self.weights = Path(str(options.weights[0])).stem if options.weights else "model"
        named = data.get(_split(options))
        own_json = isinstance(named, str) and is_json(named)
        usual = Path(data.get("path") or "") / "annotations" / "instances_val2017.json"
        self.annotations = Path(named) if own_json else usual
        self.plots = EvalPlots(folder, names) if plots and unasked else None
        implied = unasked and (coco or Path(str(options.data)).name == "coco.yaml")
        wants_json = options.save_json or implied
        self.json = CocoJson(COCO_CATEGORY_IDS if coco else None) if wants_json else None
        if wants_json and own_json:
            numbers = json_numbers(self.annotations, data["names"])
            self.json = CocoJson(numbers.category_ids, numbers.image_ids)
        self.observers: list[Callable] = [observer for observer in (self.plots, self.json) if observer is not None]
        if options.save_conf and not (options.save_txt or options.save_hybrid):
            LOGGER.warning("--save-conf changes nothing without --save-txt")
        if options.save_txt or options.save_hybrid:
            self.observers.append(LabelFiles(folder / "labels", options.save_conf))

    def finish(self, result: EvalResult) -> EvalResult:
        """Draw the curves, write slices and JSON, and let pycocotools have the last word where COCO's files are."""
        if self.plots is not None:
            self.plots.finish(result)
        if result.slices is not None:
            write_slices(self.folder / "slices.csv", result.slices)
            LOGGER.info(f"slices in {self.folder / 'slices.csv'}")
        if self.json is None:
            return result
        path = self.folder / f"{self.weights}_predictions.json"
        self.json.write(path)
        LOGGER.info(f"{len(self.json.rows)} detections in {path}")
        if not self.annotations.is_file():
            return result
        mean, mean50 = coco_figures_of_files(self.annotations, path, self.json.image_ids)
        return dataclasses.replace(result, metrics=dataclasses.replace(result.metrics, map=mean, map50=mean50))
