"""``detect.py --tile``: detecting in large images, tile by tile, so that small objects keep their size.

backend = DetectMultiBackend("best.pt")
boxes = detect_tiled(backend, image, Tiling(size=640, overlap=0.2), imgsz=640)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.images import input_size, is_flexible
from engine.predictor import Predictor, Selection
from models.backends.multi import DetectMultiBackend
from utils.augmentations import letterbox
from utils.boxes import scale_boxes
from utils.datasets.frames import SourceFrame
from utils.network_input import to_network
from utils.tiles import merge_tiles, plan_tiles

_BATCH = 8  # tiles that go through the network together; a file made for fewer takes them in portions


@dataclass(frozen=True)
class Tiling:
    """How to cut images.

    Attributes:
        size: side of a tile, px of the image.
        overlap: share of a side that neighbours have in common at least, 0 to 0.9; best no less than the largest
            object that only tiles can find.
        whole: look at the image as a whole once, too: for objects that are larger than a tile.
    """

    size: int
    overlap: float = 0.2
    whole: bool = True


class TiledPredictor(Predictor):
    """A predictor that cuts each frame into tiles and puts together what is found in them."""

    def __init__(
        self,
        backend: DetectMultiBackend,
        tiling: Tiling,
        imgsz: Sequence[int],
        selection: Selection | None = None,
        *,
        augment: bool = False,
        batch_size: int = 1,
    ) -> None:
        """Bind a detector to its settings.

        Args:
            backend: the loaded detector.
            tiling: how to cut.
            imgsz: height and width that each tile is letterboxed to, px; what the detector was trained at.
            selection: which predictions count, in each tile and in the whole.
            augment: test-time augmentation.
            batch_size: frames that are read before they are looked at; how many tiles go through the network together
                does not depend on it.
        """
        super().__init__(backend, selection, augment=augment, batch_size=batch_size)
        self.tiling = tiling
        self.imgsz = tuple(imgsz)

    def detect_frames(self, frames: Sequence[SourceFrame]) -> list[np.ndarray]:
        """Detect in frames one by one, each tile by tile; see :class:`engine.predictor.Predictor`."""
        return [self.detect_image(frame.image) for frame in frames]

    def detect_image(self, image: np.ndarray) -> np.ndarray:
        """Detect in one image, tile by tile.

        Args:
            image: (H, W, 3) uint8 BGR.

        Returns:
            Boxes as in :class:`engine.predictor.FrameResult`.
        """
        image_hw = image.shape[:2]
        tiles = plan_tiles(image_hw, self.tiling.size, self.tiling.overlap)
        found = [boxes for some in tiles.split(_BATCH) for boxes in self._detect_in(image, some.tolist())]
        if self.tiling.whole and len(tiles) > 1:
            whole = [0, 0, image_hw[1], image_hw[0]]
            found += self._detect_in(image, [whole])
            tiles = torch.cat([tiles, torch.tensor([whole])])
        wanted = self.selection
        with self.watches.select, torch.inference_mode():
            merged = merge_tiles(
                found,
                tiles,
                image_hw,
                iou_thres=wanted.iou_thres,
                agnostic=wanted.agnostic,
                max_det=wanted.max_det,
            )
            merged[:, :4] = merged[:, :4].round()
        self.watches.frames += 1
        return merged.numpy()

    def _detect_in(self, image: np.ndarray, tiles: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Boxes of tiles of one size, each (n, 6) in px of the image."""
        with self.watches.prepare, torch.inference_mode():
            parts = [image[top:bottom, left:right] for left, top, right, bottom in tiles]
            auto = is_flexible(self.backend)
            boxed = [letterbox(part, self.imgsz, stride=self.backend.stride, auto=auto)[0] for part in parts]
            pixels = np.ascontiguousarray(np.stack(boxed)[..., ::-1].transpose(0, 3, 1, 2))  # BGR to RGB
            batch = to_network(torch.from_numpy(pixels), self.backend.device, self.backend.fp16)
        with self.watches.infer, torch.inference_mode():
            predictions = self.backend(batch, augment=self.augment)
        with self.watches.select, torch.inference_mode():
            return [
                _placed(boxes, batch.shape[2:], part.shape[:2], tile)
                for boxes, part, tile in zip(self._suppress(predictions), parts, tiles, strict=True)
            ]


def _placed(boxes: torch.Tensor, input_hw: Sequence[int], tile_hw: Sequence[int], tile: Sequence[int]) -> torch.Tensor:
    """Boxes (n, 6) in px of a letterboxed tile, in px of the image."""
    corners = scale_boxes(input_hw, boxes[:, :4].clone(), tile_hw)
    return torch.cat([corners + corners.new_tensor([*tile[:2], *tile[:2]]), boxes[:, 4:6]], 1)


def detect_tiled(
    backend: DetectMultiBackend,
    image: np.ndarray,
    tiling: Tiling,
    *,
    imgsz: int | Sequence[int] = 640,
    selection: Selection | None = None,
) -> np.ndarray:
    """Detect in one large image, tile by tile; see :class:`TiledPredictor`.

    Args:
        backend: the loaded detector.
        image: (H, W, 3) uint8 BGR.
        tiling: how to cut.
        imgsz: px that each tile is letterboxed to: a side, or height and width; of a file of fixed sizes its own.
        selection: which predictions count.

    Returns:
        (n, 6) float32 x1 y1 x2 y2 in whole px of the image, confidence, class; most confident first.
    """
    sides = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    return TiledPredictor(backend, tiling, input_size(backend, sides), selection).detect_image(image)
