"""Growth of detectors: a pass of inference and a step of training, by image size and by batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.benchmarks.growth_curves import MEMORY, TIME, Curve, Point
from engine.benchmarks.interleaved import Rounds, interleaved
from engine.benchmarks.memory import free_bytes, peak_bytes
from engine.setup import load_hyperparameters
from models.yolo import DetectionModel
from utils.ema import ModelEMA
from utils.errors import OptionError
from utils.loss import ComputeLoss, scale_gains
from utils.model_info import count_flops
from utils.network_input import memory_format, to_network
from utils.nms import non_max_suppression
from utils.optim import smart_optimizer
from utils.sizes import grid_size

_BOXES = 8  # an image
_KINDS = ("inference", "training")
_CLIP = 10.0


@dataclass(frozen=True)
class Load:
    """Images that go through a network together: how large, px, and how many."""

    side: int
    batch: int

    def images(self, device: torch.device) -> Tensor:
        """(B, 3, side, side) of noise, the same each time, as a network takes them."""
        random = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (self.batch, 3, self.side, self.side), dtype=torch.uint8, generator=random)
        return to_network(pixels, device)

    def targets(self, device: torch.device) -> Tensor:
        """(8 B, 6) boxes anywhere: image, class, x, y, w, h normalised."""
        random = torch.Generator().manual_seed(0)
        numbers = torch.arange(self.batch).repeat_interleave(_BOXES)[:, None]
        boxes = 0.1 + 0.4 * torch.rand(len(numbers), 4, generator=random)
        return torch.cat([numbers, torch.zeros_like(numbers), boxes], 1).to(device)


class Network:
    """A detector that is trained, and a copy of it that detects.

    Args:
        cfg: model YAML.
        device: where it works.
    """

    def __init__(self, cfg: str, device: torch.device) -> None:
        hyp = load_hyperparameters("hyp.scratch-low.yaml")
        model = DetectionModel(cfg)
        self.name, self.device = Path(cfg).stem, device
        self.detector = copy.deepcopy(model).fuse().eval().to(device, memory_format=memory_format(device))
        self.model = model.to(device, memory_format=memory_format(device)).train()
        self.model.hyp = scale_gains(hyp, model.model[-1].nl, model.nc, 640)
        self.loss, self.ema = ComputeLoss(self.model), ModelEMA(self.model)
        self.optimizer = smart_optimizer(self.model, "SGD", hyp["lr0"], hyp["momentum"], hyp["weight_decay"])

    def refuse_unfit(self, flag: str, sides: Iterable[int]) -> None:
        """Raise an OptionError for image sides, px, that this network cannot be trained at."""
        grid = grid_size(self.model.stride)
        for side in sides:
            if side % grid or side < 2 * grid:  # of a single cell no norm layer can take a variance
                raise OptionError(f"{flag} {side}: {self.name} takes multiples of {grid} from {2 * grid}")

    @torch.inference_mode()
    def inference(self, images: Tensor, _: Tensor) -> list[Tensor]:
        """The fused network and NMS, which finds nothing in noise."""
        return non_max_suppression(self.detector(images))

    def training(self, images: Tensor, targets: Tensor) -> None:
        """Forward, loss, backward, the optimizer's step and that of the moving average."""
        loss, _ = self.loss(self.model(images), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=_CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model)

    def work(self, load: Load) -> float:
        """Floating-point operations of a forward pass over all images."""
        return float(load.batch * count_flops(self.model, load.side, load.side))


@dataclass(frozen=True)
class NetworkSettings:
    """How to measure: device, rounds, and the most bytes that a pass may take."""

    device: torch.device
    repeats: int
    most_bytes: float


def measure_networks(
    networks: Sequence[Network], axis: str, loads: Mapping[int, Load], settings: NetworkSettings
) -> list[Curve]:
    """Measure time and memory of detectors along an axis; all points take turns.

    Args:
        networks: what to measure.
        axis: ``size`` or ``batch``.
        loads: by rising place on the axis.
        settings: how.

    Returns:
        For each network and for inference and training a curve of seconds and one of bytes. Where more memory would be
        needed than may be taken, points are left out.
    """
    inputs = {at: (load.images(settings.device), load.targets(settings.device)) for at, load in loads.items()}
    works = {network: {at: network.work(load) for at, load in loads.items()} for network in networks}
    memory: dict[tuple[Network, str], Curve] = {}
    runs: dict[tuple[Network, str, int], Callable[[], object]] = {}
    for network, kind in product(networks, _KINDS):
        steps = {at: partial(getattr(network, kind), *given) for at, given in inputs.items()}
        peaks, left_out = _peaks(steps, works[network], settings)
        points = tuple(Point(at, peak, loads[at].batch * loads[at].side ** 2) for at, peak in peaks.items())
        name = f"{network.name}, {kind}"
        memory[network, kind] = Curve(axis, MEMORY, name, "numbers in its maps", points, left_out)
        runs |= {(network, kind, at): steps[at] for at in peaks}
    times = interleaved(runs, settings.device, Rounds(settings.repeats, settings.repeats, 0.0, settling=1))
    seconds = []
    for (network, kind), known in memory.items():
        points = tuple(
            Point(point.at, times[network, kind, point.at], works[network][point.at]) for point in known.points
        )
        seconds.append(Curve(axis, TIME, known.name, "operations", points, known.left_out))
    return [*seconds, *memory.values()]


def _peaks(
    steps: Mapping[int, Callable[[], object]], works: Mapping[int, float], settings: NetworkSettings
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Bytes that each step needs; a step that would need too many by the one before is left out, as are larger ones."""
    peaks: dict[int, int] = {}
    before: int | None = None
    for at, step in steps.items():
        needed = 0.0 if before is None else peaks[before] * works[at] / works[before]
        free = free_bytes(settings.device)
        if needed > min(settings.most_bytes, settings.most_bytes if free is None else free):
            return peaks, (f"from {at} on, which takes about {needed / 1e9:.1f} GB",)
        step()  # what is made at the first call and kept, such as momenta and cells' places, is not the pass's own
        peaks[at] = peak_bytes(step, settings.device)
        before = at
    return peaks, ()


def sizes_of(sides: Iterable[int], batch: int) -> dict[int, Load]:
    """The same batch at several image sides."""
    return {side: Load(side, batch) for side in sorted(set(sides))}


def batches_of(batches: Iterable[int], side: int) -> dict[int, Load]:
    """Several batches at the same image side."""
    return {batch: Load(side, batch) for batch in sorted(set(batches))}
