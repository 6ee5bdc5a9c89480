"""What :class:`models.autoshape.AutoShape` found: as tensors, tables, text, annotated pictures and crops."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from PIL import Image

from utils.boxes import xyxy2xywh
from utils.drawing import Annotator, colors, save_one_box
from utils.errors import BackendError
from utils.image_io import write_image
from utils.log import LOGGER, at_level, setup_logging
from utils.paths import increment_path, safe_name
from utils.wording import count_classes, describe_speed

if TYPE_CHECKING:
    import supervision

RUN_FOLDER = "runs/detect/exp"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_CENTRE_AND_SIZE = ("xcenter", "ycenter", "width", "height")
_LAST_COLUMNS = ("confidence", "class", "name")


class Detections:
    """Boxes found in each of several pictures; ``len()`` is the number of pictures.

    Attributes:
        ims: (H, W, 3) uint8 RGB arrays; after :meth:`render` those with boxes drawn.
        pred: per picture (n, 6): x1 y1 x2 y2 in px of the picture, confidence 0..1, class; most confident first.
        xyxy: the same as ``pred``.
        xywh: with centre x, centre y, width, height in place of the corners.
        xyxyn: ``xyxy`` with boxes as shares of the picture's width and height.
        xywhn: ``xywh`` likewise.
        names: class index -> name.
        files: a file name for each picture, ending in ``.jpg``.
        n: number of pictures.
        t: ms per picture of pre-processing, inference and NMS.
        s: shape of the network's input, (B, 3, h, w).
    """

    def __init__(
        self,
        ims: Sequence[np.ndarray],
        pred: Sequence[torch.Tensor],
        files: Sequence[str],
        times: Sequence[float] = (0.0, 0.0, 0.0),
        names: Mapping[int, str] | Sequence[str] | None = None,
        shape: Sequence[int] | None = None,
    ) -> None:
        """Take results; see the class for the arguments of these names, ``times`` being ``t`` and ``shape`` ``s``."""
        self.ims = list(ims)
        self._clean = list(ims)
        self.pred = self.xyxy = list(pred)
        self.files = list(files)
        self.names = dict(names if isinstance(names, Mapping) else enumerate(names or ()))
        self.n = len(self.pred)
        self.t = tuple(times)
        self.s = tuple(shape) if shape is not None else (self.n, 3, 0, 0)
        self.xywh = [xyxy2xywh(boxes) for boxes in self.xyxy]
        sizes = [boxes.new_tensor([*im.shape[1::-1]] * 2 + [1, 1]) for im, boxes in zip(ims, self.pred, strict=True)]
        self.xyxyn = [boxes / size for boxes, size in zip(self.xyxy, sizes, strict=True)]
        self.xywhn = [boxes / size for boxes, size in zip(self.xywh, sizes, strict=True)]

    def __len__(self) -> int:
        return self.n

    def __str__(self) -> str:
        if not self.n:
            return "no images"
        lines = []
        for number, (image, boxes) in enumerate(zip(self._clean, self.pred, strict=True), start=1):
            height, width = image.shape[:2]
            found = count_classes(boxes[:, 5].tolist(), self.names)
            lines.append(f"image {number}/{self.n}: {height}x{width} {found}")
        return "\n".join([*lines, describe_speed(self.t, self.s)])

    def __repr__(self) -> str:
        return f"<Detections: {sum(map(len, self.pred))} boxes in {self.n} images>"

    def print(self) -> None:
        """Log the text of :meth:`__str__`, whatever level the logger has."""
        with at_level(logging.INFO):
            setup_logging()
            LOGGER.info(str(self))

    def tolist(self) -> list[Self]:
        """One object for each picture."""
        parts = zip(self._clean, self.pred, self.files, strict=True)
        return [type(self)([im], [boxes], [file], self.t, self.names, self.s) for im, boxes, file in parts]

    # -- pictures ---------------------------------------------------------------------------------------------------

    def render(self, labels: bool = True) -> list[np.ndarray]:
        """Draw the boxes; the given pictures stay clean.

        Args:
            labels: with name and confidence.

        Returns:
            (H, W, 3) uint8 RGB arrays, new ones, which become ``ims``.
        """
        self.ims = [self._draw(number, labels) for number in range(self.n)]
        return self.ims

    def show(self, labels: bool = True) -> None:
        """Show the annotated pictures, in a notebook's cell or in the system's viewer.

        Raises:
            BackendError: when there is nothing here that shows pictures.
        """
        from PIL import ImageShow  # noqa: PLC0415 - its import looks for viewers and for IPython

        for number in range(self.n):
            if not ImageShow.show(Image.fromarray(self._draw(number, labels)), title=self.files[number]):
                raise BackendError("show(): nothing here can show pictures; use save(), and look at the files")

    def save(self, labels: bool = True, save_dir: str | Path = RUN_FOLDER, exist_ok: bool = False) -> Path:
        """Write the annotated pictures under the names in ``files``.

        Args:
            labels: with name and confidence.
            save_dir: folder, counted up when it exists.
            exist_ok: write into it even then.

        Returns:
            The folder.
        """
        folder = increment_path(save_dir, exist_ok, mkdir=True)
        for number, file in enumerate(_distinct(self.files)):
            write_image(folder / file, np.ascontiguousarray(self._draw(number, labels)[..., ::-1]))
        LOGGER.info("%d pictures saved to %s", self.n, folder)
        return folder

    def crop(
        self, save: bool = True, save_dir: str | Path = RUN_FOLDER, exist_ok: bool = False
    ) -> list[dict[str, Any]]:
        """Cut every box out, with a little margin.

        Args:
            save: also write them as ``crops/<class name>/<file>``, counted up.
            save_dir: folder, counted up when it exists.
            exist_ok: write into it even then.

        Returns:
            A mapping for each box: ``box`` (4,) corners in px, ``conf``, ``cls`` (tensors without dimensions),
            ``label`` such as ``person 0.87``, and ``im``, (h, w, 3) uint8 BGR.
        """
        folder = increment_path(save_dir, exist_ok, mkdir=True) / "crops" if save else Path()
        crops = []
        for image, boxes, file in zip(self._clean, self.pred, self.files, strict=True):
            for row in boxes:
                target = folder / safe_name(self._name(row[5])) / file
                cut = save_one_box(row[:4], image, file=target, save=save)
                crops.append({"box": row[:4], "conf": row[4], "cls": row[5], "label": self._label(row), "im": cut})
        if save:
            LOGGER.info("%d crops saved to %s", len(crops), folder)
        return crops

    def _draw(self, number: int, labels: bool) -> np.ndarray:
        """One picture with its boxes, the most confident on top."""
        rows = self.pred[number].flip(0)
        shown = "".join(sorted({self._name(row[5]) for row in rows}))
        annotator = Annotator(np.array(self._clean[number], order="C"), example=shown)
        for row in rows:
            annotator.box_label(row[:4].tolist(), self._label(row) if labels else "", color=colors(int(row[5])))
        return annotator.result()

    def _name(self, kind: torch.Tensor | float) -> str:
        return str(self.names.get(int(kind), int(kind)))

    def _label(self, row: torch.Tensor) -> str:
        return f"{self._name(row[5])} {float(row[4]):.2f}"

    # -- other people's types ---------------------------------------------------------------------------------------

    def pandas(self) -> Self:
        """A copy with a DataFrame in place of each tensor.

        Its columns: ``xmin ymin xmax ymax`` in ``xyxy`` and ``xyxyn``, ``xcenter ycenter width height`` in ``xywh``
        and ``xywhn``, then ``confidence class name``.
        """
        import pandas as pd  # noqa: PLC0415 - slow to import

        tables = copy.copy(self)
        for attribute in ("xyxy", "xyxyn", "xywh", "xywhn"):
            columns = [*(_CORNERS if attribute.startswith("xyxy") else _CENTRE_AND_SIZE), *_LAST_COLUMNS]
            rows = [
                [[*row[:5], int(row[5]), self._name(row[5])] for row in boxes.tolist()]
                for boxes in getattr(self, attribute)
            ]
            setattr(tables, attribute, [pd.DataFrame(part, columns=columns) for part in rows])
        return tables

    def to_supervision(self) -> list[supervision.Detections]:
        """The package supervision's own type, one object for each picture, with ``class_name`` in its data.

        Raises:
            BackendError: when that package is not installed.
        """
        try:
            import supervision  # noqa: PLC0415 - optional
        except ImportError as error:
            raise BackendError("to_supervision(): install the package first: pip install supervision") from error
        converted = []
        for boxes in self.pred:
            rows = boxes.cpu().numpy()
            names = np.array([self._name(kind) for kind in rows[:, 5]], dtype=str)
            converted.append(
                supervision.Detections(
                    xyxy=rows[:, :4], confidence=rows[:, 4], class_id=rows[:, 5].astype(int), data={"class_name": names}
                )
            )
        return converted


def _distinct(files: Sequence[str]) -> list[str]:
    """The names, counted up where pictures of different folders have the same one."""
    taken: list[str] = []
    for file in files:
        name, numbers = file, itertools.count(2)
        while name in taken:
            name = f"{Path(file).stem}{next(numbers)}{Path(file).suffix}"
        taken.append(name)
    return taken
