"""The flags of ``benchmark.py tiling``: one field is one flag and one keyword of ``benchmark.run("tiling", ...)``."""

from __future__ import annotations

from dataclasses import dataclass

from engine.options.base import flag
from engine.options.benchmark_base import BenchmarkOptions, run_name
from engine.options.detect import LEAST_TILE, MOST_OVERLAP

_STEP = 160  # px by which the sides of drawn images go


@dataclass
class TilingBenchmarkOptions(BenchmarkOptions):
    """Options of ``benchmark.py tiling``."""

    weights: str = flag("runs/demo/exp/train/weights/best.pt", "a checkpoint for data/shapes.yaml, such as make demo's")
    imgsz: int = flag(192, "px that images and tiles are letterboxed to: what the checkpoint was trained at")
    tile: int = flag(192, "side of a tile, px")
    overlap: float = flag(0.2, "share of a tile that neighbours have in common, 0 to 0.9")
    images: int = flag(8, "large images to draw")
    side: int = flag(1280, "their side, px, a multiple of 160")
    device: str = flag("", "cpu or a GPU's number; '' takes the first GPU, else the CPU")
    name: str = run_name("tiling")

    def validate(self) -> None:
        """Check single values; see :meth:`Options.validate`."""
        super().validate()
        self._require_from(1, "imgsz", "images")
        self._require_from(LEAST_TILE, "tile")
        self._require(0 <= self.overlap <= MOST_OVERLAP, "overlap", f"a number from 0 to {MOST_OVERLAP}")
        self._require(self.side >= 2 * _STEP and self.side % _STEP == 0, "side", f"a multiple of {_STEP} from 320")
