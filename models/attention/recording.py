"""Seeing what bi-level routing attention looks at: the regions that each layer of a network chose, and how much.

    with RoutingRecorder(model) as recorder:
        model(image)
    for layer in recorder.take():
        layer.idx                                  # (B, R, topk): the regions that each region looks at, best first
        layer.shares(layer.region_at(row, column)) # how the attention of one region is spread over them

Forward hooks listen while the recorder is open; nothing else is different then, and nothing at all when it is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from models.attention.bra import BiLevelRoutingAttention
from models.attention.ops.regions import RegionGrid, real_tokens
from models.attention.ops.routing import region_affinity
from utils.errors import ConfigError


@dataclass(frozen=True)
class LayerRouting:
    """What one layer of bi-level routing attention did with a batch.

    Attributes:
        name: path of the layer in its network, such as ``model.19.attn``.
        map_hw: height and width of its map, tokens.
        grid: how the map is cut into R regions of T tokens.
        idx: (B, R, topk) int64, the regions that each region looked at, best first: those that the layer used.
        queries_keys: (B, R, T, 2C), queries and keys of each token; what padding holds means nothing.
        num_heads: M, heads of the attention.
        scale: factor on the attention's logits.
        mask_padding: whether padding was kept out of the keys.
    """

    name: str
    map_hw: tuple[int, int]
    grid: RegionGrid
    idx: Tensor
    queries_keys: Tensor
    num_heads: int
    scale: float
    mask_padding: bool

    @property
    def affinity(self) -> Tensor:
        """(B, R, R) float32: what the regions in ``idx`` have the highest of, a row a query region."""
        return region_affinity(self.queries_keys, self.grid)

    def region_at(self, row: float, column: float) -> int:
        """The region that a place on the map lies in.

        Args:
            row: tokens from the top, fractions allowed; what lies outside counts to the nearest token.
            column: tokens from the left, likewise.
        """
        height, width = self.map_hw
        y, x = (min(max(int(place), 0), side - 1) for place, side in ((row, height), (column, width)))
        return y // self.grid.region_h * self.grid.cols + x // self.grid.region_w

    @torch.no_grad()
    def shares(self, region: int, image: int = 0) -> Tensor:
        """How one region spreads its attention over the regions that it looks at.

        Args:
            region: number of the query region, by rows from the top left.
            image: number in the batch.

        Returns:
            (topk,) float32 in the order of ``idx``, together 1: the softmax weights that fall on each region, as the
            mean over the query region's tokens on the map and over heads. Zeros for a region of padding alone.
        """
        chosen = self.idx[image, region]
        q, k = self.queries_keys[image].float().chunk(2, dim=-1)  # (R, T, C) each
        queries = q[region].unflatten(-1, (self.num_heads, -1)).transpose(0, 1)  # (M, T, D)
        keys = k[chosen].flatten(0, 1).unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0)  # (M, D, topk*T)
        logits = self.scale * queries @ keys  # (M, T, topk*T)
        if self.mask_padding and self.grid.is_padded:
            logits = logits.masked_fill(~real_tokens(self.grid, q.device)[chosen].flatten(), float("-inf"))
        spread = logits.softmax(-1).unflatten(-1, (len(chosen), -1)).sum(-1)  # (M, T, topk)
        # With padding="legacy" the grid takes padding for tokens, but what they see is cut off again
        on_map = real_tokens(replace(self.grid, height=self.map_hw[0], width=self.map_hw[1]), q.device)[region]
        return spread[:, on_map].mean(0).sum(0) / max(int(on_map.sum()), 1)


class RoutingRecorder:
    """Listens to the bi-level routing attention of a network while it is open, as a context manager.

    Of several passes the last one counts. The maps' queries and keys are kept until they are taken.
    """

    def __init__(self, model: nn.Module) -> None:
        """Find the layers.

        Args:
            model: any network; the attention may sit anywhere in it.

        Raises:
            ConfigError: when there is none.
        """
        modules = model.named_modules() if isinstance(model, nn.Module) else ()
        self._layers = {name: part for name, part in modules if isinstance(part, BiLevelRoutingAttention)}
        if not self._layers:
            raise ConfigError(
                "this network has no bi-level routing attention that can be watched, so there is no routing to show; "
                "use the .pt file of a model that has, such as one of yolov5s-biformer.yaml"
            )
        self._handles: list[Any] = []
        self._map_hw: dict[str, tuple[int, int]] = {}
        self._records: dict[str, LayerRouting] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Paths of the layers listened to, in the network's order."""
        return tuple(self._layers)

    def __enter__(self) -> Self:
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_pre_hook(self._note_map(name)))
            self._handles.append(layer.router.register_forward_hook(self._keep(name, layer)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def take(self) -> list[LayerRouting]:
        """What the layers did in the last pass, in the network's order; nothing is kept."""
        taken = [self._records[name] for name in self._layers if name in self._records]
        self._records.clear()
        return taken

    def _note_map(self, name: str) -> Callable[[nn.Module, tuple], None]:
        def note(_: nn.Module, inputs: tuple) -> None:
            self._map_hw[name] = tuple(inputs[0].shape[-2:])

        return note

    def _keep(self, name: str, layer: BiLevelRoutingAttention) -> Callable[[nn.Module, tuple, Tensor], None]:
        def keep(_: nn.Module, inputs: tuple, idx: Tensor) -> None:
            qk, grid, _ = inputs
            self._records[name] = LayerRouting(
                name,
                self._map_hw[name],
                grid,
                idx.detach(),
                qk.detach(),
                num_heads=layer.num_heads,
                scale=layer.scale,
                mask_padding=layer.padding != "released",
            )

        return keep
