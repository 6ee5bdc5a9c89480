"""The detection data set: images with their labels, augmented for training or padded for validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from utils.augmentations import copy_paste, flip, hsv_gains, letterbox, mixup, optional_effects, shift_hsv
from utils.datasets.budget import disk_shortage, memory_shortage, more_than_little
from utils.datasets.cache import SUFFIX, index_path, scan_images
from utils.datasets.columns import Column, PackedImages, PackedTexts
from utils.datasets.images import iter_images
from utils.datasets.items import Item, ItemKey, QuadKey, collate
from utils.datasets.json_labels import JsonLabels
from utils.datasets.label_index import LabelIndex
from utils.datasets.label_view import LabelView
from utils.datasets.mosaic import Mosaic, Tile
from utils.datasets.pixels import DiskStore, for_each
from utils.datasets.quad import collate_quad, join_quad
from utils.datasets.rectangles import rectangle_groups
from utils.dist import all_gather, local_world_size, main_first
from utils.errors import DatasetError
from utils.geometry_warp import Warp, WarpRanges, warp_sample
from utils.image_io import read_image
from utils.log import LOGGER

_FAULTS_SHOWN = 50
_REDUCTIONS = (8, 4, 2)  # what JPEG decoders offer
_SEED_MASK = 0xFFFFFFFF  # NumPy takes no negative seeds


@dataclass(frozen=True)
class AugmentSettings:
    """The augmentation keys of a hyperparameter file; what a file leaves out is off."""

    hsv_h: float = 0.0
    hsv_s: float = 0.0
    hsv_v: float = 0.0
    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.0
    mosaic: float = 0.0
    mixup: float = 0.0
    copy_paste: float = 0.0

    @classmethod
    def of(cls, hyp: Mapping[str, Any] | None) -> AugmentSettings:
        """Take the known keys of a hyperparameter mapping."""
        return cls(**{field.name: float(hyp[field.name]) for field in fields(cls) if hyp and field.name in hyp})

    @property
    def warp(self) -> WarpRanges:
        """The ranges of the random warp."""
        return WarpRanges(self.degrees, self.translate, self.scale, self.shear, self.perspective)


class LoadImagesAndLabels(Dataset):
    """Images and labels of one split.

    An item is ``(image, labels, path, shapes)``: (3, h, w) uint8 RGB; (n, 6) float32 rows 0, class, x, y, w, h,
    normalised by the item's own size; and ``((h0, w0), ((h / h0, w / w0), (pad x, pad y)))``, None after a mosaic.
    Items are asked for by index, by :class:`ItemKey`, or several as one by :class:`QuadKey`. Randomness depends on the
    seed, the epoch and the index alone, and where an epoch draws an image again, on the number of the draw.

    The columns over images are sequences that lie in a few large arrays, mapped from the label index and read-only;
    ``columns.py`` says why.

    Attributes:
        im_files: image paths; ``label_files`` beside them.
        labels: (n, 5) float32 for each image, class x y w h normalised.
        segments: per image one normalised (k, 2) outline per label, (0, 2) for plain boxes; empty without polygons.
        shapes: (N, 2) width and height of each file.
        batch: (N,) batch of each image; ``batch_shapes`` (batches, 2) height and width of each, None unless ``rect``.
        epoch: epoch of items asked for by a plain index.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        img_size: int = 640,
        batch_size: int = 16,
        augment: bool = False,
        hyp: Mapping[str, Any] | None = None,
        rect: bool = False,
        image_weights: bool = False,
        cache_images: bool | str | None = False,
        single_cls: bool = False,
        stride: int = 32,
        pad: float = 0.0,
        min_items: int = 0,
        prefix: str = "",
        *,
        nc: int | None = None,
        names: Mapping[int, str] | None = None,
        seed: int = 0,
        rank: int = -1,
    ):
        """Find the images, check them and their labels, and report what was found.

        Args:
            path: folder, ``.txt`` list, COCO's ``.json``, or a list of these.
            img_size: long side of an image, pixels.
            batch_size: images per batch, for rectangular training batches.
            augment: training: mosaics, warps, colours, flips as ``hyp`` says.
            hyp: hyperparameters; only the augmentation keys are read.
            rect: rectangular batches instead of squares; no mosaics then.
            image_weights: images will be drawn by weight; turns ``rect`` off.
            cache_images: "ram" (or True), "disk", or nothing ("none"); off with a note where there is no room for all.
                "auto" is "ram" for a set that needs little: 1 GB, if that is at most a quarter of what is free.
            single_cls: every class becomes 0.
            stride: sides of rectangles are multiples of it.
            pad: extra strides around rectangles.
            min_items: leave out images with fewer labels.
            prefix: text in front of messages.
            nc: class count; labels beyond it are reported and left out. None does not check.
            names: of the classes, to which those of a ``.json`` belong by name; None takes its own in their order.
            seed: of all randomness.
            rank: of this process among several that make the same data set at the same time; -1 alone.

        Raises:
            DatasetError: when no usable image is left, or a training set has no label at all.
        """
        self.img_size, self.stride, self.pad = img_size, stride, pad
        self.augment, self.hyp = augment, hyp
        self.image_weights, self.rect = image_weights, rect and not image_weights
        self.settings = AugmentSettings.of(hyp)
        self.mosaic = augment and not self.rect
        self.seed, self.epoch, self.prefix, self._rank = seed & _SEED_MASK, 0, prefix, rank

        annotations = JsonLabels(path, names, self._say)
        image_files = PackedTexts(iter_images(path, annotations.images_of))
        source = Path(path if isinstance(path, (str, Path)) else path[0])
        index_file = index_path(source)
        with self._main_first():
            index = annotations.relabelled(scan_images(image_files, index_file, prefix, quiet=not self._speaks))
        objects = self._adopt(index, LabelView(index, nc, single_cls), min_items, batch_size)
        if annotations.files:
            self.label_files = PackedTexts(annotations.label_files(self.im_files))
        if augment and not objects:
            example = self.label_files[0]
            raise DatasetError(f"{source}: not one label for training; the first was looked for at {example}")
        self._ram: PackedImages | None = None
        self._disk: DiskStore | None = None
        self._keep_pixels({True: "ram", False: "none", None: "none"}.get(cache_images, cache_images), index_file)
        if augment:
            optional_effects()  # any warning about it belongs here, not into each worker

    # -- set-up ----------------------------------------------------------------------------------------------------

    @property
    def _speaks(self) -> bool:
        """Whether this process reports: of several only one."""
        return self._rank <= 0

    def _say(self, text: str) -> None:
        if self._speaks:
            LOGGER.warning(f"{self.prefix}{text}")

    def _main_first(self) -> AbstractContextManager[None]:
        return main_first() if self._rank >= 0 else nullcontext()

    def _adopt(self, index: LabelIndex, view: LabelView, min_items: int, batch_size: int) -> int:
        """Take over the usable images, in the order of their batches, and report the rest; returns the labels."""
        counts = view.counts()
        rows = np.flatnonzero(index.sizes_wh[:, 0])
        self._report(view, len(index), counts[rows])
        if not len(rows):
            raise DatasetError(f"{self.prefix}none of {len(index)} images can be used; first: {index[0].fault}")
        rows = rows[counts[rows] >= min_items]
        if not len(rows):
            raise DatasetError(f"{self.prefix}no image has the {min_items} labels asked for")
        self.n = len(rows)
        self.indices = range(self.n)
        sizes_wh = index.sizes_wh[rows].astype(np.int64)
        order = self._arrange(sizes_wh, batch_size)
        self.shapes = sizes_wh[order]  # (N, 2) width, height
        rows = rows[order].astype(np.int32)  # a worker that is not forked has a copy
        self.im_files, self.label_files = Column(index.image_file, rows), Column(index.label_file, rows)
        self.labels, self.segments = Column(view.labels_of, rows), Column(view.outlines_of, rows)
        return int(counts[rows].sum())

    def _report(self, view: LabelView, images: int, counts: np.ndarray) -> None:
        """Log every fault, up to a limit, and one line about the split, given the labels of each usable image."""
        if not self._speaks:
            return
        faults, shown = view.faults(_FAULTS_SHOWN)
        for fault in shown:
            LOGGER.warning(f"{self.prefix}{fault}")
        if faults > _FAULTS_SHOWN:
            LOGGER.warning(f"{self.prefix}... and {faults - _FAULTS_SHOWN} more faults")
        left_out = f", {images - len(counts)} left out" if len(counts) < images else ""
        LOGGER.info(
            f"{self.prefix}{len(counts)} images{left_out}, {counts.sum()} objects, {(counts == 0).sum()} backgrounds, "
            f"{faults} faults"
        )

    def _arrange(self, sizes_wh: np.ndarray, batch_size: int) -> np.ndarray:
        """Assign images to batches, and return the order they then have.

        Rectangular sets are sorted by aspect ratio, and each batch has its shape. Validation: images of equal shape
        share a batch, so no result depends on the batch size. Training: neighbours in the order share one.
        """
        if not self.rect:
            self.batch, self.batch_shapes = np.arange(self.n) // batch_size, None
            return np.arange(self.n)
        order, self.batch, self.batch_shapes = rectangle_groups(
            sizes_wh, batch_size, self.img_size, self.stride, self.pad, own_shapes=not self.augment
        )
        return order

    def _keep_pixels(self, kind: str, index_file: Path) -> None:
        """Decode everything once, where asked for and possible."""
        if kind == "none":
            return
        if kind not in ("auto", "ram", "disk"):
            raise DatasetError(f"--cache {kind}: expected ram, disk or none")
        sizes_hw = np.stack(self._resized_hw(self.shapes.T[::-1]), axis=1)
        needed = 3 * sizes_hw.prod(axis=1)  # bytes of each image
        if kind in ("auto", "ram"):
            copies = local_world_size() if self._rank >= 0 else 1
            shortage = (memory_shortage if kind == "ram" else more_than_little)(int(needed.sum()), copies)
            if self._has_room(kind, shortage):
                self._ram = PackedImages(sizes_hw)
                for_each(self._into_memory, self.n, f"{self.prefix}caching images in memory", not self._speaks)
                if self._speaks:
                    LOGGER.info(f"{self.prefix}decoded images stay in memory, {needed.sum() / 1e9:.2f} GB")
            return
        manner = "train" if self.augment else "val"
        split = index_file.name.removesuffix(SUFFIX)
        store = DiskStore(index_file.with_name(f"{split}.pixels-{self.img_size}-{manner}"))
        missing = [not store.path(file).exists() for file in self.im_files]
        if self._has_room(kind, disk_shortage(int(needed[missing].sum()), store.folder)):
            self._disk = store
            with self._main_first():
                for_each(self._from_disk, self.n, f"{self.prefix}caching images on disk", not self._speaks)

    def _has_room(self, kind: str, shortage: str) -> bool:
        """Whether nothing is short; several processes decide alike, and by the one that is worst off."""
        if self._rank >= 0:
            shortage = next(filter(None, all_gather(shortage)), "")
        if shortage and self._speaks and kind != "auto":
            LOGGER.warning(f"{self.prefix}--cache {kind} is off: {shortage}")
        return not shortage

    # -- pixels ----------------------------------------------------------------------------------------------------

    def _resized_hw(self, original_hw: Sequence[int] | np.ndarray) -> tuple:
        """Height and width, or arrays of them, once the long side is the image size; whole numbers, rounded up."""
        longer = np.maximum(*original_hw)
        height, width = (-(-side * self.img_size // longer) for side in original_hw)
        return height, width

    def _decode(self, index: int) -> np.ndarray:
        reduction = self._reduction(index)
        image = read_image(self.im_files[index], reduction)
        width, height = self.shapes[index].tolist()
        decoded_hw = original_hw = image.shape[:2]
        if decoded_hw == (height // reduction, width // reduction):  # else no JPEG, or changed since it was listed
            original_hw = (height, width)
        wanted_hw = self._resized_hw(original_hw)
        if wanted_hw == decoded_hw:
            return image
        shrinks = self.img_size < max(original_hw)
        manner = cv2.INTER_AREA if shrinks and not self.augment else cv2.INTER_LINEAR
        return cv2.resize(image, wanted_hw[::-1], interpolation=manner)

    def _reduction(self, index: int) -> int:
        """By what a JPEG's sides are divided while it is decoded, which saves most of the time for large ones.

        It must not get smaller than it has to be, and sides that do not divide would shift what is in it. Validation
        decodes in full, so that its figures are those of any other tool.
        """
        sides = self.shapes[index].tolist()
        fitting = (
            part
            for part in _REDUCTIONS
            if max(sides) >= part * self.img_size and not any(side % part for side in sides)
        )
        return next(fitting, 1) if self.augment else 1

    def _into_memory(self, index: int) -> None:
        image = self._decode(index)
        expected = self._ram[index].shape
        if image.shape != expected:
            raise DatasetError(
                f"{self.im_files[index]}: expected {expected[1]}x{expected[0]} px at training size, decoded "
                f"{image.shape[1]}x{image.shape[0]}: it changed while it was read; start again"
            )
        self._ram[index][...] = image

    def _from_disk(self, index: int) -> np.ndarray:
        path = self._disk.path(self.im_files[index])
        image = self._disk.read(path)
        if image is None:
            image = self._decode(index)
            self._disk.write(path, image)
        return image

    def load_tile(self, index: int) -> Tile:
        """An image at training size with its labels; its pixels must not be changed in place."""
        if self._ram is not None:
            image = self._ram[index]
        else:
            image = self._from_disk(index) if self._disk is not None else self._decode(index)
        width, height = self.shapes[index].tolist()
        return Tile(image, self.labels[index], self.segments[index], (height, width))

    # -- items -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, key: int | ItemKey | QuadKey) -> Item:
        if isinstance(key, QuadKey):
            return join_quad([self[member] for member in key.members])
        index, epoch, draw = ItemKey(*key) if isinstance(key, tuple) else ItemKey(int(key), self.epoch)
        index = range(self.n)[index]  # negative ones count from the end, others beyond it raise
        shapes = None
        if self.augment:
            rng = np.random.default_rng((self.seed, epoch, index, draw))
            if self.mosaic and rng.random() < self.settings.mosaic:
                image, targets = self._mosaic_sample(index, rng)
            else:
                image, targets, shapes = self._single_sample(index)
                outlines = self._placed_outlines(index, shapes)
                image, targets = warp_sample(image, targets, outlines, self.settings.warp, (0, 0), rng)
            image, targets = self._finish(image, targets, rng)
        else:
            image, targets, shapes = self._single_sample(index)
        return _to_tensor(image), _to_rows(targets, image.shape[:2]), self.im_files[index], shapes

    def _single_sample(self, index: int) -> tuple[np.ndarray, np.ndarray, tuple]:
        """One image, letterboxed to its batch's shape or to a square."""
        tile = self.load_tile(index)
        shape = self.img_size if self.batch_shapes is None else self.batch_shapes[self.batch[index]].tolist()
        image, ratio_wh, pad_wh = letterbox(tile.image, shape, auto=False, scaleup=self.augment)
        targets, _ = tile.placed(ratio_wh, pad_wh)
        ratio_hw = tuple(
            side * ratio / original
            for side, ratio, original in zip(tile.image.shape[:2], ratio_wh[::-1], tile.original_hw, strict=True)
        )
        return image, targets, (tile.original_hw, (ratio_hw, pad_wh))

    def _placed_outlines(self, index: int, shapes: tuple) -> list[np.ndarray]:
        (height, width), (ratio_hw, pad_wh) = shapes
        scale = np.array([width * ratio_hw[1], height * ratio_hw[0]], np.float32)
        return [outline * scale + np.array(pad_wh, np.float32) for outline in self.segments[index]]

    def _mosaic_sample(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A mosaic around an image, at times mixed with a second one around another."""
        image, targets = self._one_mosaic(index, rng)
        if rng.random() < self.settings.mixup:
            other, other_targets = self._one_mosaic(int(rng.integers(self.n)), rng)
            image, targets = mixup(image, targets, other, other_targets, rng)
        return image, targets

    def _one_mosaic(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Four images on a canvas, copied and pasted, warped and cut back to one image's size; four channels."""
        members = rng.permutation([*rng.integers(self.n, size=3).tolist(), index]).tolist()
        half = self.img_size // 2
        centre_xy = tuple(rng.integers(half, 2 * self.img_size - half + 1, size=2).tolist())
        tiles = [self.load_tile(member) for member in members]
        mosaic = Mosaic.around(centre_xy, tiles, self.img_size)
        targets, outlines = mosaic.labels()
        canvas = None
        if self.settings.copy_paste:  # copies come from anywhere on the canvas
            canvas, targets, outlines = copy_paste(mosaic.paint(), targets, outlines, self.settings.copy_paste, rng)
        warp = Warp.sample(self.settings.warp, (mosaic.side, mosaic.side), (-half, -half), rng)
        if canvas is None:
            canvas = mosaic.paint(warp.seen())
        return warp.image(canvas), warp.labels(targets, outlines)

    def _finish(
        self, image: np.ndarray, targets: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Effects, colours and flips."""
        effects = optional_effects()
        if effects is not None:
            image = effects(np.ascontiguousarray(image[..., :3]), int(rng.integers(2**31)))
        gains = (self.settings.hsv_h, self.settings.hsv_s, self.settings.hsv_v)
        if any(gains):
            image = shift_hsv(image, hsv_gains(*gains, rng))
        upside_down, mirrored = rng.random(2) < (self.settings.flipud, self.settings.fliplr)
        return flip(image, targets, bool(upside_down), bool(mirrored))

    collate_fn = staticmethod(collate)
    collate_fn4 = staticmethod(collate_quad)


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    """BGR (H, W, 3), or (H, W, 4) with one channel that nobody reads, to RGB (3, H, W)."""
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.mixChannels([image], list(planes), [2, 0, 1, 1, 0, 2])  # into their places, without a copy
    return torch.from_numpy(planes)


def _to_rows(targets: np.ndarray, shape_hw: tuple[int, int]) -> torch.Tensor:
    """(n, 5) class and corners in pixels to (n, 6) rows 0, class, x, y, w, h, normalised."""
    height, width = shape_hw
    rows = np.zeros((len(targets), 6), np.float32)
    low, high = targets[:, 1:3], targets[:, 3:5]
    rows[:, 1] = targets[:, 0]
    rows[:, 2:4] = (low + high) / 2 / (width, height)
    rows[:, 4:6] = (high - low) / (width, height)
    return torch.from_numpy(rows)
