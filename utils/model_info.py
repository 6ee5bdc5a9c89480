"""What a network weighs and costs: layers, parameters, gradients, floating-point operations."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from utils.log import LOGGER


def count_flops(model: nn.Module, height: int = 640, width: int = 640, channels: int = 3) -> int:
    """Floating-point operations for one image: twice the multiply-adds of convolutions and matrix products.

    The network runs on shapes alone (torch's meta device), so neither time nor memory is spent, and attention is
    counted through its plain matrix products, whichever backend would run.

    Args:
        model: any module that takes (B, C, H, W); not changed.
        height: image height, px.
        width: image width, px.
        channels: of the image.
    """
    shapes = {name: tensor.to("meta") for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    image = torch.empty(1, channels, height, width, device="meta", dtype=next(iter(shapes.values())).dtype)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        torch.func.functional_call(model, shapes, (image,))
    return counter.get_total_flops()


def model_info(model: nn.Module, verbose: bool = False, imgsz: int | list[int] = 640) -> None:
    """Log one summary line: name, layers, parameters, gradients, GFLOPs.

    Args:
        model: the network; ``yaml`` and ``yaml_file`` are read for its name where present.
        verbose: also log each parameter's name, shape, mean and deviation.
        imgsz: image side, or (height, width), in px, for the GFLOPs.
    """
    height, width = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    if verbose:
        for name, parameter in model.named_parameters():
            values = parameter.detach().float()
            deviation = values.std().item() if values.numel() > 1 else 0.0
            LOGGER.info("%-50s %-22s %10.3g %10.3g", name, list(parameter.shape), values.mean().item(), deviation)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    gradients = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    channels = getattr(model, "yaml", {}).get("ch", 3)
    gflops = count_flops(model, height, width, channels) / 1e9
    name = getattr(model, "yaml_file", None) or type(model).__name__
    layers = sum(1 for _ in model.modules())
    LOGGER.info(
        f"{name} summary: {layers} layers, {parameters:,} parameters, {gradients:,} gradients, {gflops:.1f} GFLOPs"
    )
