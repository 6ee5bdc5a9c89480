"""A detection run: source, detector and sinks put together as the options say."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.features import FeatureTap
from engine.images import input_size, is_flexible, note_training_size
from engine.options.detect import DetectOptions
from engine.pipeline import ReadAhead, WriteBehind, write_frame
from engine.predictor import Predictor, Selection, Stopwatches
from engine.progress import Progress
from engine.routing import RoutingSink, layer_titles
from engine.sinks import (
    CropSink,
    CsvSink,
    DrawingStyle,
    FeatureSink,
    Frame,
    JsonSink,
    MediaSink,
    Sink,
    TextSink,
    WindowSink,
)
from engine.sources import find_source
from engine.tiling import TiledPredictor, Tiling
from models.attention.recording import RoutingRecorder
from models.backends.multi import DetectMultiBackend
from utils.datasets.frames import FrameSource
from utils.devices import select_device
from utils.errors import ConfigError, OptionError
from utils.log import LOGGER
from utils.paths import find_weights, increment_path
from utils.stripping import strip_optimizer
from utils.wording import counted, describe_speed


@dataclass(frozen=True)
class DetectionSummary:
    """What a run did.

    Attributes:
        save_dir: the run's folder; None when nothing was to be saved.
        frames: pictures and video frames looked at.
        detections: boxes found.
        unreadable: what went wrong with each file, stream or part of a video passed over.
    """

    save_dir: Path | None
    frames: int
    detections: int
    unreadable: tuple[str, ...]


def run_detection(options: DetectOptions) -> DetectionSummary:
    """Detect in everything that ``--source`` means.

    Raises:
        ProjectError: when an option, the source or the weights cannot be used. Single files and frames that cannot be
            read are passed over and listed in the result.
        KeyboardInterrupt: after the files being written are finished.
    """
    open_source = find_source(options.source, options.recursive)  # before the model, which takes longer to load
    backend = load_detector(options)
    size_hw = input_size(backend, options.image_size())
    with ExitStack() as stack:
        tap = stack.enter_context(FeatureTap(backend.model)) if options.visualize else None
        recorder = stack.enter_context(open_recorder(backend)) if options.show_routing else None
        source = stack.enter_context(
            closing(
                open_source(
                    img_size=size_hw,
                    stride=backend.stride,
                    auto=is_flexible(backend),
                    vid_stride=options.vid_stride,
                )
            )
        )
        save_dir = make_run_folder(options)
        sinks = open_sinks(options, save_dir, stack)
        if recorder is not None:
            titles = layer_titles(backend.model, recorder.names)
            sinks.append(RoutingSink(save_dir, options.routing_place(), titles))
        batch_size = batch_size_for(options, source)
        settings = {"augment": options.augment, "batch_size": batch_size}
        workers = 1 if source.live else network_workers(backend)
        predictor = (
            TiledPredictor(backend, tiling_of(options), size_hw, selection_of(options), **settings)
            if options.tile
            else Predictor(backend, selection_of(options), tap=tap, recorder=recorder, workers=workers, **settings)
        )
        backend.warmup((batch_size, 3, *size_hw))
        style = DrawingStyle(options.line_thickness, options.hide_labels, options.hide_conf)
        progress = Progress(source.expected_frames(), every_frame=options.verbose)
        try:
            with progress:
                # a window belongs to the main thread
                detect_frames(source, predictor, sinks, style, progress, overlap=not options.view_img)
        finally:
            summary = DetectionSummary(save_dir, progress.frames, progress.detections, tuple(source.unreadable))
            _report(summary, predictor.watches, sinks, (batch_size, 3, *size_hw))
    if options.update:
        strip_weights(options)
    return summary


def detect_frames(
    source: FrameSource,
    predictor: Predictor,
    sinks: Sequence[Sink],
    style: DrawingStyle,
    progress: Progress | None = None,
    *,
    overlap: bool = True,
) -> None:
    """Read, detect and write every frame of a source.

    Args:
        source: where frames come from.
        predictor: what looks at them.
        sinks: where results go; with ``overlap`` they are closed at the end, after an error too.
        style: how boxes look.
        progress: told of each result.
        overlap: read, detect and write at the same time instead of in turns. A live source is read by threads of its
            own in any case, which keep the newest frame only.
    """
    depth = 2 * predictor.batch_size
    with ExitStack() as stack:
        behind = stack.enter_context(WriteBehind(sinks, depth)) if overlap else None
        frames = source.iter_frames()
        if overlap and not source.live:
            frames = stack.enter_context(ReadAhead(frames, depth))
        for result in stack.enter_context(closing(predictor.stream(frames))):
            frame = Frame(result, style)
            if behind is not None:
                behind.write(frame)
            else:
                write_frame(frame, sinks)
            if progress is not None:
                progress.show(result)


def network_workers(backend: DetectMultiBackend) -> int:
    """Batches that go through a network at the same time: two on a CPU, where the network is ours, else one."""
    return 2 if backend.pt and backend.device.type == "cpu" and torch.get_num_threads() > 1 else 1


def batch_size_for(options: DetectOptions, source: FrameSource) -> int:
    """Frames that go through the network together, with a word where that is not what was asked for."""
    if options.batch_size > 1 and (source.live or options.visualize or options.show_routing):
        reason = "a live source" if source.live else "--visualize" if options.visualize else "--show-routing"
        LOGGER.warning("--batch-size %d: left out, frames go one by one with %s", options.batch_size, reason)
        return 1
    return options.batch_size


def load_detector(options: DetectOptions) -> DetectMultiBackend:
    """Load the weights onto the device, and check options against them.

    Raises:
        OptionError: when the detector has no such class, or an exported file is to do what only ``.pt`` can.
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
    for flag, asked in (("--augment", options.augment), ("--update", options.update)):
        if asked and not backend.pt:
            raise OptionError(f"{flag}: needs .pt weights, {' '.join(options.weight_files())} is an exported file")
    note_training_size(backend.model, max(options.imgsz))
    return backend


def selection_of(options: DetectOptions) -> Selection:
    """The part of the options that decides which predictions count."""
    return Selection(
        options.conf_thres, options.iou_thres, options.classes or None, options.agnostic_nms, options.max_det
    )


def open_recorder(backend: DetectMultiBackend) -> RoutingRecorder:
    """What listens to the detector's routed attention.

    Raises:
        OptionError: when it has none.
    """
    try:
        return RoutingRecorder(backend.model)
    except ConfigError as error:
        raise OptionError(f"--show-routing: {error}") from error


def tiling_of(options: DetectOptions) -> Tiling:
    """The part of the options that says how to cut frames into tiles."""
    return Tiling(options.tile, options.overlap, not options.tile_only)


def make_run_folder(options: DetectOptions) -> Path | None:
    """Make the run's folder, or none when nothing is to be saved."""
    files = (
        options.save_txt,
        options.save_csv,
        options.save_json,
        options.save_crop,
        options.visualize,
        options.show_routing,
    )
    if options.nosave and not any(files):
        return None
    return increment_path(Path(options.project) / options.name, exist_ok=options.exist_ok, mkdir=True)


def open_sinks(options: DetectOptions, save_dir: Path | None, stack: ExitStack) -> list[Sink]:
    """Open what the options ask for; the stack closes it again."""
    wanted = [
        (options.view_img, WindowSink),
        (not options.nosave, lambda: MediaSink(save_dir)),
        (options.save_txt, lambda: TextSink(save_dir, options.save_format == 1, options.save_conf)),
        (options.save_csv, lambda: CsvSink(save_dir)),
        (options.save_json, lambda: JsonSink(save_dir)),
        (options.save_crop, lambda: CropSink(save_dir)),
        (options.visualize, lambda: FeatureSink(save_dir)),
    ]
    if options.save_conf and not options.save_txt:
        LOGGER.warning("--save-conf changes nothing without --save-txt")
    return [stack.enter_context(closing(open_sink())) for asked, open_sink in wanted if asked]


def _report(summary: DetectionSummary, watches: Stopwatches, sinks: list[Sink], shape: Sequence[int]) -> None:
    """What it took, where it is, and what is missing."""
    if summary.frames:
        LOGGER.info(describe_speed(watches.milliseconds(), shape))
    if summary.save_dir:
        LOGGER.info(f"results in {summary.save_dir}")
    for sink in sinks:
        if isinstance(sink, TextSink):
            LOGGER.info(f"{counted(sink.count, 'label file')} in {sink.folder}")
    if summary.unreadable:
        LOGGER.warning("%s could not be read in full:", counted(len(summary.unreadable), "source"))
        for reason in summary.unreadable:
            LOGGER.warning("  %s", reason)


def strip_weights(options: DetectOptions) -> None:
    """Take what only training needs out of the weights files, in place."""
    for name in options.weight_files():
        path = find_weights(name)
        strip_optimizer(path)
        LOGGER.info("%s: stripped to %.1f MB", path, path.stat().st_size / 1e6)
