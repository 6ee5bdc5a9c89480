"""A detection run: source, detector and sinks put together as the options say."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.features import FeatureTap
from engine.images import input_size, is_flexible, note_training_size
from engine.options.detect import DetectOptions
from engine.predictor import FrameResult, Predictor, Selection, Stopwatches
from engine.sinks import CropSink, CsvSink, DrawingStyle, FeatureSink, Frame, MediaSink, Sink, TextSink, WindowSink
from models.backends.multi import DetectMultiBackend
from utils.datasets.sources import LoadImages, find_files
from utils.devices import select_device
from utils.errors import OptionError
from utils.log import LOGGER
from utils.paths import PROJECT_ROOT, find_weights, increment_path
from utils.stripping import strip_optimizer
from utils.wording import count_classes, counted, describe_speed

_STREAM_SCHEMES = ("rtsp://", "rtmp://", "tcp://", "udp://", "http://", "https://")


@dataclass(frozen=True)
class DetectionSummary:
    """What a run did.

    Attributes:
        save_dir: the run's folder; None when nothing was to be saved.
        frames: pictures and video frames looked at.
        detections: boxes found.
        unreadable: what went wrong with each file passed over.
    """

    save_dir: Path | None
    frames: int
    detections: int
    unreadable: tuple[str, ...]


def run_detection(options: DetectOptions) -> DetectionSummary:
    """Detect in everything that ``--source`` means.

    Raises:
        ProjectError: when an option, the source or the weights cannot be used. Single files that cannot be read are
            passed over and listed in the result.
    """
    files = find_files(resolve_source(options.source))  # before the model, which takes longer to load
    backend = load_detector(options)
    height, width = input_size(backend, options.image_size())
    found = 0
    with ExitStack() as stack:
        tap = stack.enter_context(FeatureTap(backend.model)) if options.visualize else None
        save_dir = make_run_folder(options)
        sinks = open_sinks(options, save_dir, stack)
        source = stack.enter_context(
            LoadImages(files, (height, width), backend.stride, auto=is_flexible(backend), vid_stride=options.vid_stride)
        )
        predictor = Predictor(backend, selection_of(options), augment=options.augment, tap=tap)
        backend.warmup((1, 3, height, width))
        style = DrawingStyle(options.line_thickness, options.hide_labels, options.hide_conf)
        for result in predictor.stream(source):
            frame = Frame(result, style)
            for sink in sinks:
                sink.write(frame)
            found += len(result.boxes)
            LOGGER.info(describe(result))
    summary = DetectionSummary(save_dir, predictor.watches.frames, found, tuple(source.unreadable))
    _report(summary, predictor.watches, sinks, (height, width))
    if options.update:
        strip_weights(options)
    return summary


def resolve_source(source: str | Path) -> str:
    """A source that is a path or pattern; what is not here is looked for beside the project.

    Raises:
        OptionError: when it is a camera, a stream, the screen or a URL.
    """
    text = str(source)
    if not text.strip():
        raise OptionError("--source '': expected a picture, video, folder, pattern, or .txt list of paths")
    if text.isdigit():
        raise OptionError(f"--source {text}: reading from a webcam is not available yet")
    if text.lower().startswith(_STREAM_SCHEMES):
        raise OptionError(f"--source {text}: reading from the network is not available yet; download the file first")
    if text.lower().endswith(".streams"):
        raise OptionError(f"--source {text}: reading from streams is not available yet")
    if text.lower().split()[:1] == ["screen"] and not Path(text).exists():
        raise OptionError(f"--source {text}: reading from the screen is not available yet")
    beside = PROJECT_ROOT / text
    return str(beside) if not Path(text).exists() and beside.exists() else text


def load_detector(options: DetectOptions) -> DetectMultiBackend:
    """Load the weights onto the device, and check ``--classes`` against them.

    Raises:
        OptionError: when the detector has no such class.
    """
    device: torch.device = select_device(options.device)
    backend = DetectMultiBackend(
        options.weight_files(), device=device, dnn=options.dnn, data=options.data or None, fp16=options.half
    )
    unknown = sorted({number for number in options.classes or () if number not in backend.names})
    if unknown:
        raise OptionError(
            f"--classes {' '.join(map(str, unknown))}: the model's classes are 0 to {len(backend.names) - 1}"
        )
    note_training_size(backend.model, max(options.imgsz))
    return backend


def selection_of(options: DetectOptions) -> Selection:
    """The part of the options that decides which predictions count."""
    return Selection(
        options.conf_thres, options.iou_thres, options.classes or None, options.agnostic_nms, options.max_det
    )


def make_run_folder(options: DetectOptions) -> Path | None:
    """Make the run's folder, or none when nothing is to be saved."""
    saves = (options.save_txt, options.save_csv, options.save_crop, options.visualize, not options.nosave)
    if not any(saves):
        return None
    return increment_path(Path(options.project) / options.name, exist_ok=options.exist_ok, mkdir=True)


def open_sinks(options: DetectOptions, save_dir: Path | None, stack: ExitStack) -> list[Sink]:
    """Open what the options ask for; the stack closes it again."""
    wanted = [
        (options.view_img, WindowSink),
        (not options.nosave, lambda: MediaSink(save_dir)),
        (options.save_txt, lambda: TextSink(save_dir, options.save_format == 1, options.save_conf)),
        (options.save_csv, lambda: CsvSink(save_dir)),
        (options.save_crop, lambda: CropSink(save_dir)),
        (options.visualize, lambda: FeatureSink(save_dir)),
    ]
    if options.save_conf and not options.save_txt:
        LOGGER.warning("--save-conf changes nothing without --save-txt")
    return [stack.enter_context(closing(open_sink())) for asked, open_sink in wanted if asked]


def describe(result: FrameResult) -> str:
    """The log line of one frame."""
    height, width = result.input_hw
    counts = count_classes(result.boxes[:, 5], result.names)
    return f"{result.title}{height}x{width} {counts}, {1e3 * result.seconds:.1f}ms"


def _report(summary: DetectionSummary, watches: Stopwatches, sinks: list[Sink], size_hw: tuple[int, int]) -> None:
    """What it took, where it is, and what is missing."""
    if summary.frames:
        LOGGER.info(describe_speed(watches.milliseconds(), (1, 3, *size_hw)))
    if summary.save_dir:
        LOGGER.info(f"results in {summary.save_dir}")
    for sink in sinks:
        if isinstance(sink, TextSink):
            LOGGER.info(f"{counted(sink.count, 'label file')} in {sink.folder}")
    if summary.unreadable:
        LOGGER.warning("%s could not be read:", counted(len(summary.unreadable), "file"))
        for reason in summary.unreadable:
            LOGGER.warning("  %s", reason)


def strip_weights(options: DetectOptions) -> None:
    """Take what only training needs out of the weights files, in place."""
    for name in options.weight_files():
        path = find_weights(name)
        strip_optimizer(path)
        LOGGER.info("%s: stripped to %.1f MB", path, path.stat().st_size / 1e6)
