"""Entry points for ``torch.hub``; nothing is downloaded, and importing this file runs nothing.

model = torch.hub.load("path/to/this/folder", "custom", path="best.pt", source="local")
model = torch.hub.load("path/to/this/folder", "yolov5s", source="local")                       # its yolov5s.pt
model = torch.hub.load("path/to/this/folder", "yolov5n-biformer", source="local", pretrained=False)
"""

from __future__ import annotations

from collections.abc import Callable as _Callable
from typing import Any as _Any

dependencies = ["cv2", "numpy", "torch", "torchvision", "yaml"]  # torch.hub looks whether they are installed


def custom(path: _Any, autoshape: bool = True, _verbose: bool = True, device: _Any = None) -> _Any:
    """Weights of one's own, of this project or of YOLOv5.

    Args:
        path: a weights file, or a list of them for an ensemble.
        autoshape: take files, arrays and Pillow images of any size; False gives the bare DetectMultiBackend.
        _verbose: log what is loaded.
        device: "cpu", 0, "cuda:0", a torch.device; None for the first GPU, else the CPU.
    """
    from models.hub_models import load_custom  # noqa: PLC0415 - torch.hub imports this file to list what is in it
    from utils.log import setup_logging  # noqa: PLC0415 - as above

    setup_logging(_verbose)
    return load_custom(path, autoshape, device)


def _entry_point(name: str) -> _Callable[..., _Any]:
    """A function that loads or builds the model of a YAML."""

    def load(
        pretrained: bool = True,
        channels: int = 3,
        classes: int = 80,
        autoshape: bool = True,
        _verbose: bool = True,
        device: _Any = None,
    ) -> _Any:
        from models.hub_models import Build, load_named  # noqa: PLC0415 - as in custom
        from utils.log import setup_logging  # noqa: PLC0415 - as in custom

        setup_logging(_verbose)
        return load_named(name, Build(pretrained, channels, classes), autoshape, device)

    load.__name__ = load.__qualname__ = name.replace("-", "_")
    load.__doc__ = f"""{name}, with the weights of a local {name}.pt.

    Args:
        pretrained: False builds it untrained. Of weights for other channels or classes what fits is loaded.
        channels: of the pictures.
        classes: their number.
        autoshape: take files, arrays and Pillow images of any size; False gives the bare network.
        _verbose: log what is loaded.
        device: "cpu", 0, "cuda:0", a torch.device; None for the first GPU, else the CPU.
    """
    return load


yolov5n = _entry_point("yolov5n")
yolov5s = _entry_point("yolov5s")
yolov5m = _entry_point("yolov5m")
yolov5l = _entry_point("yolov5l")
yolov5x = _entry_point("yolov5x")
yolov5n6 = _entry_point("yolov5n6")
yolov5s6 = _entry_point("yolov5s6")
yolov5m6 = _entry_point("yolov5m6")
yolov5l6 = _entry_point("yolov5l6")
yolov5x6 = _entry_point("yolov5x6")
yolov5n_biformer = _entry_point("yolov5n-biformer")
yolov5s_biformer = _entry_point("yolov5s-biformer")
yolov5m_biformer = _entry_point("yolov5m-biformer")
yolov5l_biformer = _entry_point("yolov5l-biformer")
yolov5x_biformer = _entry_point("yolov5x-biformer")
# torch.hub looks names up as texts, so the YAMLs' own work too
globals().update({f"yolov5{_size}-biformer": globals()[f"yolov5{_size}_biformer"] for _size in "nsmlx"})
