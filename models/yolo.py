"""The detector: layers built from a YAML, run in order, with a head that knows its strides."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from models.augmented import predict_augmented
from models.builder import build_layers, find_head, parse_model
from models.config import ModelConfig, load_model_yaml, parse_config
from models.fuse import fuse_convs_
from models.heads import Detect
from utils.autoanchor import check_anchor_order
from utils.errors import ConfigError, first_line
from utils.log import LOGGER
from utils.model_info import model_info
from utils.profiling import time_sync

__all__ = ["BaseModel", "Detect", "DetectionModel", "Model", "parse_model"]

PROBE_SIDE = 256  # px of the image that strides are measured with
MOST_VALUES = 1 << 26  # of a map in that measurement; the largest of yolov5x has 1.3 million


class BaseModel(nn.Module):
    """Runs the layers of ``self.model`` in order, keeping the outputs listed in ``self.save``."""

    model: nn.Sequential
    save: list[int]

    def forward(self, x: torch.Tensor, profile: bool = False, visualize: bool | str | Path = False) -> Any:
        """One pass: (B, C, H, W) in 0..1 -> what the last layer gives; ``visualize`` as in :class:`DetectionModel`."""
        return self._forward_once(x, profile)

    def _forward_once(self, x: torch.Tensor, profile: bool = False) -> Any:
        inputs = self._run_layers(x, profile)
        return self.model[-1](inputs)

    def _run_layers(self, x: torch.Tensor, profile: bool = False) -> Any:
        """What the last layer reads: run every layer before it."""
        outputs: dict[int, torch.Tensor] = {}
        for layer in self.model[:-1]:
            x = self._gather(layer, x, outputs)
            x = _timed(layer, x) if profile else layer(x)
            if layer.i in self.save:
                outputs[layer.i] = x
        return self._gather(self.model[-1], x, outputs)

    @staticmethod
    def _gather(layer: nn.Module, last: torch.Tensor, outputs: dict[int, torch.Tensor]) -> Any:
        """The inputs of a layer, by its ``f``: one map, or a list of them."""
        if layer.f == -1:
            return last

        def pick(source: int) -> torch.Tensor:
            return last if source == -1 else outputs[source if source >= 0 else layer.i + source]

        return [pick(source) for source in layer.f] if isinstance(layer.f, list) else pick(layer.f)

    def fuse(self) -> Self:
        """Fold batch norms into their convolutions, in place, for inference."""
        fuse_convs_(self)
        return self

    def info(self, verbose: bool = False, img_size: int | list[int] = 640) -> None:
        """Log a summary line; ``verbose`` adds a line per parameter."""
        model_info(self, verbose, img_size)


class DetectionModel(BaseModel):
    """YOLOv5-style detector from a YAML file or dict.

    Args:
        cfg: path, name or content of a model YAML.
        ch: channels of the image; the YAML's ``ch`` wins.
        nc: number of classes, in place of the YAML's.
        anchors: that many anchors per level (rounded), as placeholders until AutoAnchor has run.

    Attributes:
        model: the layers; ``model[-1]`` is the head.
        save: sorted indices of the layers whose output is kept during a pass.
        yaml: content of the YAML with the overrides applied.
        stride: px of the input per cell, a level each.
        names: class index -> name; the numbers as texts until training sets it.
        hyp: hyperparameters of the training, when there was one.
        anchors_from: checkpoint that a new training has its anchors from; "" for those of the YAML.
    """

    def __init__(self, cfg: str | Path | Mapping[str, Any] = "yolov5s.yaml", ch: int = 3, nc=None, anchors=None):
        super().__init__()
        content, name = load_model_yaml(cfg)
        self.yaml_file = name
        self.yaml = {**copy.deepcopy(content), "yaml_file": name}
        self.yaml.setdefault("ch", ch)
        if nc is not None and nc != self.yaml.get("nc"):
            LOGGER.info("%s: nc=%s in place of the file's %s", name, nc, self.yaml.get("nc"))
            self.yaml["nc"] = nc
        if anchors is not None:
            LOGGER.info("%s: %s anchors per level, to be found from the data", name, round(anchors))
            self.yaml["anchors"] = round(anchors)
        config = parse_config(self.yaml, name)
        self.model, self.save = build_layers(config)
        self.inplace = config.inplace
        self.nc = config.nc
        self.names = {index: str(index) for index in range(config.nc)}
        self.hyp: dict[str, Any] | None = None
        self.anchors_from = ""
        head = find_head(self.model, config)
        head.inplace = config.inplace
        head.stride.copy_(self._measure_strides(config))
        check_anchor_order(head)  # while they are in pixels: placeholders then tie, and stay as they are
        head.anchors /= head.stride.view(-1, 1, 1)
        if not head.m[0].bias.is_meta:
            head.initialize_biases()

    @property
    def stride(self) -> torch.Tensor:
        """(levels,): px of the input per cell."""
        return self.model[-1].stride

    def forward(
        self,
        x: torch.Tensor,
        augment: bool = False,
        profile: bool = False,
        visualize: bool | str | Path = False,
    ) -> Any:
        """Detect.

        Args:
            x: (B, C, H, W) in 0..1; H and W multiples of the largest stride.
            augment: test-time augmentation.
            profile: log each layer's time.
            visualize: accepted for callers of old; feature maps are drawn by the detect command.

        Returns:
            In training the raw levels, in evaluation (predictions, raw levels), with ``augment`` (predictions, None);
            see :class:`models.heads.Detect`.
        """
        if not augment:
            return self._forward_once(x, profile)
        head = self.model[-1]
        multiple = int(head.stride.max())
        return predict_augmented(lambda image: self._forward_once(image)[0], x, multiple, head.nl), None

    def _measure_strides(self, config: ModelConfig) -> torch.Tensor:
        """Strides of the levels, from the shapes that a black image leaves."""
        was_training = self.training
        self.eval()
        parameter = next(self.parameters())
        image = torch.zeros(1, config.ch, PROBE_SIDE, PROBE_SIDE, device=parameter.device, dtype=parameter.dtype)
        started: list[nn.Module] = []
        hooks = [module.register_forward_hook(_refuse_huge) for module in self.model.modules()]
        hooks += [layer.register_forward_pre_hook(lambda module, _: started.append(module)) for layer in self.model]
        try:
            with torch.no_grad():
                levels = self._run_layers(image)
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
            row = config.rows[started[-1].i if started else 0]
            raise ConfigError(f"{row.where}: does not fit its input ({first_line(error)})") from error
        finally:
            for hook in hooks:
                hook.remove()
            self.train(was_training)
        if not all(level.shape[-2] for level in levels):
            raise ConfigError(f"{config.name}: a level of {PROBE_SIDE} px vanishes; the strides are too large")
        return torch.tensor([PROBE_SIDE / level.shape[-2] for level in levels], device="cpu")


def _refuse_huge(module: nn.Module, _: Any, output: Any) -> None:
    if isinstance(output, torch.Tensor) and output.numel() > MOST_VALUES:
        raise ValueError(f"{type(module).__name__} makes a map of size {tuple(output.shape)}")


def _timed(layer: nn.Module, x: Any) -> Any:
    """Run a layer and log how long it took."""
    start = time_sync()
    y = layer(x)
    LOGGER.info("%10.2f ms  %10d parameters  %s", (time_sync() - start) * 1e3, layer.np, layer.type)
    return y


Model = DetectionModel  # the name in files and scripts of YOLOv5 up to v6
