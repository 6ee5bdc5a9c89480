"""``detect.py --show-routing``: which regions of the image each layer of bi-level routing attention looks at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from torch import nn

from engine.predictor import FrameResult
from engine.sinks import Frame
from models.attention.recording import LayerRouting
from utils.drawing import colors
from utils.log import LOGGER
from utils.routing_chart import RoutingPanel, RoutingView, plot_routing

_MOST_VIEWS = 3  # detections shown by "auto"
_MOST_PANELS = 24  # in one picture, unless a single place needs more


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies in the network's input: both px, input = image * gain + offset."""

    gain: float
    left: float
    top: float

    @classmethod
    def of(cls, input_hw: Sequence[int], image_hw: Sequence[int]) -> Self:
        """The letterbox of :func:`utils.augmentations.letterbox`, as :func:`utils.boxes.scale_boxes` undoes it.

        Args:
            input_hw: height and width of the network's input.
            image_hw: height and width of the image.
        """
        gain = min(boxed / side for boxed, side in zip(input_hw, image_hw, strict=True))
        top, left = ((boxed - side * gain) / 2 for boxed, side in zip(input_hw, image_hw, strict=True))
        return cls(gain, left, top)


def layer_titles(model: nn.Module, names: Sequence[str]) -> dict[str, str]:
    """What to call layers in a picture: number and type of their row in the model's YAML.

    Args:
        model: the network.
        names: paths of the layers in it.

    Returns:
        A title for each path, such as ``19 BiFormerBlock``, counted where a row has several; the path itself where no
        row has it.
    """
    rows = {name: _row_of(model, name) for name in names}
    several = Counter(rows.values())
    seen: Counter[str] = Counter()
    titles = {}
    for name, row in rows.items():
        seen[row] += 1
        titles[name] = f"{row} #{seen[row]}" if several[row] > 1 else row
    return titles


def _row_of(model: nn.Module, name: str) -> str:
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        part = model.get_submodule(".".join(parts[:depth]))
        if hasattr(part, "i") and hasattr(part, "type"):
            return f"{part.i} {str(part.type).split('.')[-1]}"
    return name or type(model).__name__


def panel_of(routing: LayerRouting, place: tuple[float, float], result: FrameResult, title: str) -> RoutingPanel:
    """What a layer does for a place of an image.

    Args:
        routing: of the layer, for this image alone.
        place: x and y, px of the image.
        result: the image, and the size at which the network saw it.
        title: of the layer.
    """
    box = Letterbox.of(result.input_hw, result.image.shape[:2])
    (input_h, input_w), (map_h, map_w), grid = result.input_hw, routing.map_hw, routing.grid
    x, y = place[0] * box.gain + box.left, place[1] * box.gain + box.top
    region = routing.region_at(y * map_h / input_h, x * map_w / input_w)
    shares = np.full(grid.regions, np.nan)
    shares[routing.idx[0, region].cpu().numpy()] = routing.shares(region).cpu().numpy()
    affinity = routing.affinity[0, region].cpu().numpy()

    # Regions that begin beyond the map are padding alone: nothing of the image is there
    rows, columns = math.ceil(map_h / grid.region_h), math.ceil(map_w / grid.region_w)
    row_edges = np.minimum(np.arange(rows + 1) * grid.region_h, map_h) * input_h / map_h
    column_edges = np.minimum(np.arange(columns + 1) * grid.region_w, map_w) * input_w / map_w
    return RoutingPanel(
        f"{title}\n{map_h}x{map_w} map, {rows}x{columns} regions, top {routing.idx.shape[-1]}",
        (row_edges - box.top) / box.gain,
        (column_edges - box.left) / box.gain,
        affinity.reshape(grid.rows, grid.cols)[:rows, :columns],
        shares.reshape(grid.rows, grid.cols)[:rows, :columns],
        (region // grid.cols, region % grid.cols),
    )


def routing_views(
    result: FrameResult, place: tuple[float, float] | None, titles: Mapping[str, str]
) -> list[RoutingView]:
    """What to show of a frame.

    Args:
        result: a frame with its detections and recorded routing.
        place: x and y, px of the image; None for the centres of the most confident detections.
        titles: of the layers.

    Returns:
        Three views at most, fewer where layers are many; none where the place lies outside the image, or nothing was
        detected.
    """
    height, width = result.image.shape[:2]
    if place is not None:
        inside = place[0] < width and place[1] < height
        return [RoutingView(*place, _panels(result, place, titles))] if inside else []
    most = max(1, min(_MOST_VIEWS, _MOST_PANELS // max(len(result.routing), 1)))
    views = []
    for *corners, confidence, number in result.boxes[:most].tolist():
        centre = ((corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2)
        label = f"{result.names.get(int(number), int(number))} {confidence:.2f}"
        panels = _panels(result, centre, titles)
        views.append(RoutingView(*centre, panels, corners, label, colors(int(number), bgr=True)))
    return views


def _panels(result: FrameResult, place: tuple[float, float], titles: Mapping[str, str]) -> list[RoutingPanel]:
    return [panel_of(routing, place, result, titles[routing.name]) for routing in result.routing]


class RoutingSink:
    """``routing/<stem>.png``, in videos ``routing/<stem>_<frame>.png``: a panel a layer and place."""

    def __init__(self, folder: Path, place: tuple[float, float] | None, titles: Mapping[str, str]) -> None:
        """Make the folder.

        Args:
            folder: the run's.
            place: x and y, px of each image; None for the most confident detections.
            titles: of the layers, see :func:`layer_titles`.
        """
        self.folder = folder / "routing"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.place = place
        self.titles = titles

    def write(self, frame: Frame) -> None:
        """Save the picture of one frame, or say why there is none."""
        result = frame.result
        views = routing_views(result, self.place, self.titles)
        if views:
            plot_routing(result.image, views, self.folder / result.subfolder / f"{result.stem}.png")
        elif self.place is None:
            LOGGER.info("%s: no detection, so no routing is shown; --show-routing x,y chooses a point", result.path)
        else:
            height, width = result.image.shape[:2]
            x, y = self.place
            LOGGER.warning(
                "%s: the point %g,%g lies outside of %d x %d px: no routing", result.path, x, y, width, height
            )

    def close(self) -> None:
        """Nothing stays open between frames."""
