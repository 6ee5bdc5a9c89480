"""The training loss: box, objectness and class terms as plain functions, and ``ComputeLoss`` to join them.

The terms take explicit tensors and numbers; nothing here looks into a model but the adapter at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from utils.assign import LevelTargets, assign_targets, last_claims
from utils.boxes import bbox_iou

THREE_LEVELS = (4.0, 1.0, 0.4)  # weight of each level's objectness, from the finest
MORE_LEVELS = (4.0, 1.0, 0.25, 0.06, 0.02)
FOCAL_ALPHA = 0.25
BALANCE_RATE = 1e-4  # autobalance: how fast a level's weight follows its loss


@dataclass(frozen=True)
class LossSettings:
    """What the loss needs of a hyperparameter file; gains already scaled to the task.

    Attributes:
        box: weight of the box term.
        obj: weight of the objectness term.
        cls: weight of the class term.
        obj_pw: weight of positive objectness targets.
        cls_pw: weight of positive class targets.
        anchor_t: largest ratio between a target's side and its anchor's.
        fl_gamma: focal loss exponent; 0 = plain cross entropy.
        label_smoothing: positive class targets are 1 - half of this, negative ones half of it.
    """

    box: float
    obj: float
    cls: float
    obj_pw: float = 1.0
    cls_pw: float = 1.0
    anchor_t: float = 4.0
    fl_gamma: float = 0.0
    label_smoothing: float = 0.0

    @classmethod
    def of(cls, hyp: Mapping[str, Any]) -> LossSettings:
        """Pick the loss's entries out of a hyperparameter mapping."""
        return cls(**{name: float(hyp[name]) for name in cls.__dataclass_fields__ if name in hyp})


def scale_gains(hyp: Mapping[str, Any], levels: int, classes: int, imgsz: int) -> dict[str, Any]:
    """Adapt the loss gains, which are written for 3 levels, 80 classes and 640 px, to a task.

    Args:
        hyp: hyperparameters with ``box``, ``cls`` and ``obj``; not changed.
        levels: output levels of the model.
        classes: classes of the data.
        imgsz: training image size in pixels.

    Returns:
        A copy with the three gains scaled.
    """
    share = 3 / levels
    gains = {
        "box": hyp["box"] * share,
        "cls": hyp["cls"] * classes / 80 * share,
        "obj": hyp["obj"] * (imgsz / 640) ** 2 * share,
    }
    return {**hyp, **gains}


def level_weights(levels: int) -> list[float]:
    """Weight of each level's objectness, from the finest level."""
    return list(THREE_LEVELS if levels == 3 else MORE_LEVELS[:levels])


def binary_loss(
    logits: torch.Tensor, targets: torch.Tensor, positive_weight: float = 1.0, gamma: float = 0.0
) -> torch.Tensor:
    """Mean binary cross entropy, as focal loss when ``gamma`` is above 0.

    Args:
        logits: any shape, before the sigmoid.
        targets: same shape, 0..1.
        positive_weight: factor on the positive part.
        gamma: the easier a prediction, the less it counts: its loss is multiplied by its error to this power.
    """
    weight = None if positive_weight == 1 else logits.new_tensor(positive_weight)
    if gamma <= 0:
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none")
    chance = logits.sigmoid()
    error = targets + chance - 2 * targets * chance  # 1 - probability of the target
    share = targets * (2 * FOCAL_ALPHA - 1) + (1 - FOCAL_ALPHA)  # alpha for positives, 1 - alpha for negatives
    return (entropy * share * error**gamma).mean()


def decode_matches(raw: torch.Tensor, anchor_sizes: torch.Tensor) -> torch.Tensor:
    """Boxes that the raw outputs of matched cells stand for.

    Args:
        raw: (M, 4) outputs before the sigmoid.
        anchor_sizes: (M, 2) in cells.

    Returns:
        (M, 4) centre x, y from the cell's corner, width, height; in cells.
    """
    share = raw.sigmoid()
    return torch.cat([share[:, :2] * 2 - 0.5, (share[:, 2:] * 2) ** 2 * anchor_sizes], 1)


def box_loss(raw: torch.Tensor, matches: LevelTargets) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of 1 - CIoU over a level's matches.

    Args:
        raw: (M, 4) box outputs of the matched cells.
        matches: the level's matches, at least one.

    Returns:
        The loss, and CIoU (M,) clamped at 0 and without gradient: what the objectness should be.
    """
    overlap = bbox_iou(decode_matches(raw, matches.anchor_sizes), matches.boxes, CIoU=True)[:, 0]
    return (1 - overlap).mean(), overlap.detach().clamp_min(0)


def class_loss(logits: torch.Tensor, classes: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """Cross entropy over all classes of a level's matches.

    Args:
        logits: (M, K) class outputs.
        classes: (M,) the class of each target.
        settings: positive weight, focal exponent and smoothing.
    """
    low = settings.label_smoothing / 2
    wanted = torch.full_like(logits, low)
    wanted.scatter_(1, classes[:, None], 1 - low)
    return binary_loss(logits, wanted, settings.cls_pw, settings.fl_gamma)


def objectness_targets(shape: Sequence[int], flat_index: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Objectness map of a level: the quality of the match at matched cells, 0 elsewhere.

    Args:
        shape: (B, A, height, width).
        flat_index: (M,) position of each match in the map laid out flat.
        quality: (M,) values; where matches share a position the last one stays, on every device.
    """
    wanted = quality.new_zeros(tuple(shape))
    winners = last_claims(flat_index)
    wanted.view(-1)[flat_index[winners]] = quality[winners]
    return wanted


class ComputeLoss:
    """The loss of a model, for training loops written for YOLOv5.

    Args:
        model: anything with ``hyp`` (a mapping, see :class:`LossSettings`) and a list ``model`` whose last item is
            the head, with ``anchors`` (levels, A, 2) in cells, ``stride`` and ``nc``; may be wrapped in DDP.
        autobalance: let each level's objectness weight follow its loss.
    """

    def __init__(self, model: nn.Module, autobalance: bool = False):
        inner = getattr(model, "module", model)
        self.head = inner.model[-1]
        self.hyp = inner.hyp
        self.settings = LossSettings.of(inner.hyp)
        self.autobalance = autobalance
        strides = [float(stride) for stride in self.head.stride]
        self.balance = level_weights(len(strides))
        self._reference_level = min(range(len(strides)), key=lambda level: abs(strides[level] - 16))

    def __call__(self, predictions: Sequence[torch.Tensor], targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the loss of a batch, in float32 whatever the predictions' precision.

        Args:
            predictions: raw levels (B, A, height, width, 5 + K).
            targets: (T, 6) image index, class, centre x, y, width, height normalised.

        Returns:
            The loss to differentiate, (1,): the terms' sum times the batch size; and the detached terms box,
            objectness, class, (3,).
        """
        settings = self.settings
        total = {name: predictions[0].new_zeros(1, dtype=torch.float32) for name in ("box", "obj", "cls")}
        with torch.autocast(predictions[0].device.type, enabled=False):
            matched = self._assign(predictions, targets)
            for index, (level, matches) in enumerate(zip(predictions, matched, strict=True)):
                objectness = level[..., 4].float()
                if len(matches.image):
                    place = matches.flat_index(*level.shape[1:4])
                    raw = level.flatten(0, 3).index_select(0, place).float()  # (M, 5 + K)
                    box, quality = box_loss(raw[:, :4], matches)
                    total["box"] = total["box"] + box
                    if self.head.nc > 1:
                        total["cls"] = total["cls"] + class_loss(raw[:, 5:], matches.classes, settings)
                    wanted = objectness_targets(level.shape[:4], place, quality)
                else:
                    wanted = torch.zeros_like(objectness)
                found = binary_loss(objectness, wanted, settings.obj_pw, settings.fl_gamma)
                total["obj"] = total["obj"] + found * self.balance[index]
                if self.autobalance:
                    self._follow(index, found.item())
            if self.autobalance:
                anchor = self.balance[self._reference_level]
                self.balance = [weight / anchor for weight in self.balance]
            items = torch.cat([total["box"] * settings.box, total["obj"] * settings.obj, total["cls"] * settings.cls])
            return items.sum(0, keepdim=True) * predictions[0].shape[0], items.detach()

    def build_targets(
        self, predictions: Sequence[torch.Tensor], targets: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], list[tuple[torch.Tensor, ...]], list[torch.Tensor]]:
        """Match targets with cells, in the form that older code unpacks.

        Returns:
            Per level: classes (M,), boxes (M, 4), indices (image, anchor, row, column), anchors (M, 2); boxes and
            anchors in cells, centres from the cell's corner.
        """
        matched = self._assign(predictions, targets)
        return (
            [level.classes for level in matched],
            [level.boxes for level in matched],
            [(level.image, level.anchor, level.row, level.column) for level in matched],
            [level.anchor_sizes for level in matched],
        )

    def _assign(self, predictions: Sequence[torch.Tensor], targets: torch.Tensor) -> list[LevelTargets]:
        device = predictions[0].device
        targets = targets.to(device, torch.float32)
        anchors = self.head.anchors.detach().to(device, torch.float32)
        grids = [(level.shape[2], level.shape[3]) for level in predictions]
        return assign_targets(targets, anchors, grids, self.settings.anchor_t)

    def _follow(self, level: int, found: float) -> None:
        """Move a level's weight a little toward one over its loss."""
        self.balance[level] = self.balance[level] * (1 - BALANCE_RATE) + BALANCE_RATE / max(found, 1e-12)
