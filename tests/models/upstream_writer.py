"""Writes checkpoints the way YOLOv5 does: whole modules under its module names. Run in a process of its own.

``python upstream_writer.py FOLDER`` fills a folder with one file per period, and ``expected.pt``: what the network in
each predicts for :func:`picture`. The classes are stand-ins that exist in this process alone, so that reading the files
cannot fall back on them.
"""

from __future__ import annotations

import argparse
import copy
import pathlib
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from golden_formulas import fill_module, golden_json, uniform  # noqa: E402 - needs the path
from models.layers.conv import Conv  # noqa: E402
from models.layers.csp import BottleneckCSP  # noqa: E402
from models.yolo import DetectionModel  # noqa: E402

NAMES = {0: "cat", 1: "狗"}
OLD_YAML = {
    "nc": 2,
    "depth_multiple": 0.33,
    "width_multiple": 0.125,
    "anchors": [[10, 13, 16, 30], [116, 90, 156, 198]],
    "backbone": [
        [-1, 1, "Focus", [64, 3]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 3, "BottleneckCSP", [128]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 1, "SPP", [256, [5, 9, 13]]],
        [-1, 3, "BottleneckCSP", [256, False]],
    ],
    "head": [
        [-1, 1, "Conv", [128, 1, 1]],
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 2], 1, "Concat", [1]],
        [-1, 1, "MixConv2d", [64, [1, 3]]],
        [-1, 1, "CrossConv", [64, 3, 1]],
        [[10, 5], 1, "Detect", ["nc", "anchors"]],
    ],
}
GHOST_YAML = {
    **OLD_YAML,
    "backbone": [
        [-1, 1, "Conv", [64, 6, 2, 2]],
        [-1, 1, "GhostBottleneck", [128, 3, 2]],
        [-1, 3, "C3Ghost", [128]],
        [-1, 1, "DWConv", [128, 3, 2]],
        [-1, 1, "GhostConv", [128, 1, 1]],
        [-1, 1, "SPPF", [256, 5]],
    ],
    "head": [[-1, 3, "C3TR", [256]], [[2, 6], 1, "Detect", ["nc", "anchors"]]],
}
EXPERIMENTAL = ("GhostConv", "GhostBottleneck", "CrossConv", "MixConv2d")


def picture() -> torch.Tensor:
    """(1, 3, 64, 96), the input of the expected predictions."""
    return torch.from_numpy(uniform("upstream picture", (1, 3, 64, 96)))


def stand_in(module: str, name: str) -> type[nn.Module]:
    """The class of that place, made when it is not there yet."""
    home = sys.modules[module]
    if not hasattr(home, name):
        setattr(home, name, type(name, (nn.Module,), {"__module__": module}))
    return getattr(home, name)


def as_upstream(model: DetectionModel, network: str = "DetectionModel", old: bool = False) -> nn.Module:
    """A copy whose modules have the classes and attributes of YOLOv5; ``old`` means up to v5."""
    model = copy.deepcopy(model)
    head, stride, names = model.model[-1], model.stride.clone(), model.names
    if old:
        del head.anchor_grid
        head.register_buffer("anchor_grid", head.anchors.view(head.nl, 1, -1, 1, 1, 2) * stride.view(-1, 1, 1, 1, 1, 1))
        names = list(names.values())
    del head.stride
    head.stride = stride
    head._non_persistent_buffers_set.clear()
    for module in model.modules():
        name, home = type(module).__name__, type(module).__module__
        if home.startswith("models."):
            place = "models.experimental" if old and name in EXPERIMENTAL else "models.common"
            module.__class__ = stand_in("models.yolo" if name in ("Detect", network) else place, name)
        vars(module).pop("default_act", None)
    model.__class__ = stand_in("models.yolo", network)
    vars(model).update(names=names, stride=stride, class_weights=torch.ones(2), nc=len(names))
    model.yaml.pop("yaml_file")
    return model


def state_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict:
    """An optimizer's state after a step, with learning rates as the schedule leaves them: NumPy's numbers."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for group in optimizer.param_groups:
        group["lr"] = np.float64(0.01)
    return optimizer.state_dict()


def new_network(cfg: str | dict, nc: int, salt: str = "golden:", gain: float = 1.5) -> DetectionModel:
    """A network with weights from a formula."""
    model = fill_module(DetectionModel(cfg, nc=nc), salt, gain).eval()
    if nc == len(NAMES):
        model.names = dict(NAMES)
    return model


def old_network() -> DetectionModel:
    """One with the activations and norms of early versions, which its YAML does not tell."""
    model = new_network(OLD_YAML, 2)
    for module in model.modules():
        if isinstance(module, Conv) and not isinstance(module.act, nn.Identity):
            module.act = nn.Hardswish()
        elif isinstance(module, BottleneckCSP) or type(module).__name__ == "MixConv2d":
            module.act = nn.LeakyReLU(0.1, inplace=True)
        elif isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-5, 0.1
    return model


def main(folder: Path) -> None:
    """Write all files."""
    case = golden_json("forward")["cases"]["n_eval"]
    golden = new_network("yolov5n.yaml", 80, case["salt"], case["gain"])
    ghost, tiny = new_network(GHOST_YAML, 2), new_network(OLD_YAML, 2)
    early = old_network()
    with torch.no_grad():
        predictions = {"best": tiny, "v5": ghost, "v3": early, "module": tiny, "parallel": tiny}
        expected = {name: model(picture())[0] for name, model in predictions.items()}
    torch.save(expected, folder / "expected.pt")

    for name in ("models", "models.yolo", "models.common", "models.experimental"):
        sys.modules[name] = types.ModuleType(name)
    stripped = {
        **{"epoch": -1, "best_fitness": None, "ema": None, "updates": None, "optimizer": None},
        "model": as_upstream(tiny).half(),
        "opt": {
            "weights": "yolov5n.pt",
            "imgsz": 320,
            "data": pathlib.PosixPath("/data/coco.yaml"),
            "hyp": {"lr0": 0.01},
        },
        "git": {"remote": "https://example.org/yolov5", "branch": "master", "commit": "abc"},
        "date": "2023-05-01T12:00:00.123456",
    }
    torch.save(stripped, folder / "best.pt")

    average = as_upstream(golden)
    average.hyp = {"lr0": np.float64(0.01), "anchors": 3}
    sides = torch.ones(1, 1, 1, 1, 2).expand(
        1, 2, 8, 12, 2
    )  # as a forward pass leaves them: far more values than stored
    average.model[-1].grid, average.model[-1].anchor_grid = [sides] * 3, [sides] * 3
    raw = copy.deepcopy(average)
    optimizer = torch.optim.SGD(raw.parameters(), 0.01, momentum=0.9, nesterov=True)
    unstripped = {
        **{"epoch": 7, "best_fitness": np.array([0.25]), "updates": 123, "date": "2023-05-01T12:00:00"},
        **{"model": raw, "ema": average, "optimizer": state_of(optimizer, raw), "git": None},
        "opt": argparse.Namespace(imgsz=640, save_dir=pathlib.PurePosixPath("runs") / "exp", freeze=[0], seen={1, 2}),
    }
    torch.save(unstripped, folder / "last.pt")

    v5 = as_upstream(ghost, "Model", old=True)
    whole = torch.optim.Adam(v5.parameters(), 0.001)
    state_of(whole, v5)
    windows = pathlib.PureWindowsPath("C:\\runs") / "exp"
    torch.save(
        {
            **{"epoch": 2, "best_fitness": np.float64(0.5), "training_results": "0/2 1.2G\n", "wandb_id": None},
            **{"model": v5, "ema": (copy.deepcopy(v5), 55), "optimizer": whole, "opt": {"save_dir": windows}},
        },
        folder / "v5.pt",
    )
    torch.save(
        {"epoch": -1, "model": as_upstream(early, "Model", old=True), "optimizer": None},
        folder / "v3.pt",
        _use_new_zipfile_serialization=False,
    )
    torch.save(as_upstream(tiny), folder / "module.pt", pickle_protocol=4)
    torch.save({"model": nn.DataParallel(as_upstream(tiny))}, folder / "parallel.pt")
    refused(tiny, folder)


def refused(network: DetectionModel, folder: Path) -> None:
    """Write networks that would compute something else here, or that cannot be built."""
    changed = {name: as_upstream(network) for name in ("uneven", "dilated", "unadded", "rewired", "pruned", "fused")}
    changed |= {name: as_upstream(network) for name in ("other-kind", "strides", "long", "odd-act", "map")}
    changed |= {name: as_upstream(network) for name in ("unknown", "nameless", "no-yaml", "longer", "cyclic")}
    changed["uneven"].model[1].act = nn.ReLU()
    changed["dilated"].model[3].conv.dilation = (2, 2)
    changed["unadded"].model[2].m[0].add = False
    changed["rewired"].model[8].f = [-1, 3]
    changed["pruned"].model[2].m = nn.Sequential()
    for module in changed["fused"].modules():
        if type(module).__name__ == "Conv":
            module.conv = nn.Conv2d(module.conv.in_channels, module.conv.out_channels, module.conv.kernel_size)
            del module.bn
    changed["other-kind"].model[4].__class__ = stand_in("models.common", "SPPF")
    changed["strides"].stride = torch.ones(1000)
    changed["long"].model[1].conv.dilation = [1] * 1000
    for module in changed["odd-act"].modules():
        if type(module).__name__ == "Conv" and not isinstance(module.act, nn.Identity):
            module.act = nn.LeakyReLU()
            module.act.negative_slope = 1 << 100
    changed["map"].yaml["head"][1][3][1] = 1000
    changed["map"].model[7].scale_factor = 1000.0
    changed["unknown"].model[0].__class__ = stand_in("models.common", "CBAM")
    changed["nameless"].names = ["cat"]
    del changed["no-yaml"].yaml
    changed["longer"].yaml["backbone"][2][1] = 60_000
    changed["cyclic"].model[2].m._modules["0"] = changed["cyclic"].model[2]
    for name, model in changed.items():
        torch.save({"model": model}, folder / f"{name}.pt")
    torch.save({"model": as_upstream(network), "ema": changed["pruned"]}, folder / "other-average.pt")
    torch.save({"model": nn.Linear(2, 2)}, folder / "linear.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of sources that cannot be found for classes made on the spot
    main(Path(sys.argv[1]))
