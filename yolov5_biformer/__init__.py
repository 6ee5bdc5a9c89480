"""The project as an installed package; a clone works without it.

    model = yolov5_biformer.load("best.pt")         # what torch.hub's `custom` gives
    yolov5_biformer.add_to_path()                   # then: from models.common import ..., as in a clone's folder

The project's packages are called ``models``, ``utils`` and ``engine``, names that YOLOv5's users import and that many
programs have too. So they are installed inside this package, where they replace nothing, and come into view on demand.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

PACKAGES = ("models", "utils", "engine")


def project_folder() -> Path:
    """The folder of ``models/``, ``utils/``, ``data/`` and the scripts: this package's, or the clone's around it."""
    here = Path(__file__).resolve().parent
    return here if (here / "models").is_dir() else here.parent


def add_to_path() -> Path:
    """Put the project's folder first in ``sys.path``, and return it.

    Raises:
        ImportError: when this program has loaded another package of the same name.
    """
    folder = project_folder()
    for name in PACKAGES:
        loaded = sys.modules.get(name)
        places = [Path(place).resolve() for place in getattr(loaded, "__path__", [])]
        if loaded is not None and folder / name not in places:
            where = getattr(loaded, "__file__", None) or ", ".join(map(str, places)) or "from no file"
            raise ImportError(
                f"this program has another package `{name}` loaded ({where}); yolov5-biformer's cannot stand beside "
                "it: rename that one, or run the detector in a process of its own (yolov5-biformer detect ...)"
            )
    sys.path[:] = [str(folder), *(place for place in sys.path if place != str(folder))]
    return folder


def load(path: Any, autoshape: bool = True, verbose: bool = True, device: Any = None) -> Any:
    """Load weights for pictures in any form; adds the project to ``sys.path``.

    Args:
        path: a weights file of this project or of YOLOv5, or a list of them for an ensemble.
        autoshape: take files, arrays and Pillow images of any size; False gives the bare DetectMultiBackend.
        verbose: log what is loaded.
        device: "cpu", 0, "cuda:0", a torch.device; None for the first GPU, else the CPU.

    Raises:
        ImportError: see :func:`add_to_path`.
        utils.errors.ProjectError: when the file or the device cannot be used.
    """
    add_to_path()
    import hubconf  # noqa: PLC0415 - found since the line above

    return hubconf.custom(path, autoshape, verbose, device)
