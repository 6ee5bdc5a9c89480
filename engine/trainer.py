"""Training: set-up, epoch, step. What is written and drawn is reported to others (run_files, run_plots, results)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from engine.autobatch import choose_batch_size
from engine.evaluator import EvalResult, evaluate
from engine.images import memory_format, resize_to, to_network
from engine.options.train import TrainOptions
from engine.precision import amp_works
from engine.results import (
    ResultsCsv,
    evaluation_header,
    evaluation_table,
    training_header,
    training_line,
)
from engine.run_files import RunFolder, timestamp
from engine.run_plots import TrainPlots
from engine.setup import (
    Loaders,
    Names,
    build_loaders,
    build_model,
    fit_anchors,
    freeze_layers,
    is_finite,
    training_size,
)
from models.checkpoint import Checkpoint, ModelMeta
from utils.class_weights import labels_to_class_weights
from utils.devices import memory_text
from utils.ema import EarlyStopping, ModelEMA
from utils.errors import TrainingError
from utils.log import LOGGER
from utils.loss import ComputeLoss, scale_gains
from utils.metrics import fitness
from utils.optim import WarmupSchedule, smart_optimizer
from utils.seeding import init_seeds, random_state
from utils.sizes import grid_size

_MAX_GRADIENT_NORM = 10.0
_SIZE_DRAWS = 0x5123  # keeps the draws of --multi-scale apart from those of the data


@dataclass
class Progress:
    """Where a run stands; what a checkpoint has to remember besides tensors."""

    epoch: int = 0
    last_step: int = -1  # iteration of the last optimizer step
    best_fitness: float | None = None
    losses: tuple[float, float, float] = (0.0, 0.0, 0.0)
    figures: tuple[float, ...] = (0.0,) * 7  # of the last evaluation, as in EvalResult.summary


class Trainer:
    """One training run.

    ``build()`` makes the model, ``prepare()`` everything else, ``fit()`` runs the epochs. After the first two, all
    parts are plain attributes: ``model ema optimizer schedule loaders loss``.

    Args:
        options: the command's options.
        hyp: hyperparameters as in the file.
        data: a checked data set.
        device: where to train.
        folder: where files go.
    """

    def __init__(
        self,
        options: TrainOptions,
        hyp: Mapping[str, float],
        data: Mapping[str, Any],
        device: torch.device,
        folder: RunFolder,
    ) -> None:
        self.options, self.hyp, self.data, self.device, self.folder = options, dict(hyp), data, device, folder
        self.listeners: list[Any] = []  # each is called as run(event, **facts) after every epoch
        self.classes = Names.of(data, options.single_cls)
        self.plots = TrainPlots(folder.root, self.classes.names, enabled=not options.noplots)
        self.csv = ResultsCsv(folder.csv)
        self.progress = Progress()
        self.stopper = EarlyStopping(patience=options.patience)

    # Set-up ----------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Seed everything and make the model, which shows most mistakes in the settings."""
        init_seeds(self.options.seed, deterministic=True)
        model = build_model(self.options, self.classes, self.hyp)
        self.model = model.to(self.device, memory_format=memory_format(self.device))
        freeze_layers(self.model, self.options.freeze)
        self.imgsz = training_size(self.model, self.options.imgsz)

    def prepare(self) -> None:
        """Make loaders, optimizer and the rest."""
        self.amp = amp_works(self.model, self.device, self.imgsz)
        self.batch_size = self._batch_size()
        self.loaders = self._loaders()
        fit_anchors(self.model, self.loaders.dataset, self.hyp, self.imgsz, not self.options.noautoanchor)
        self._describe_model()
        self._prepare_optimizer()
        if self.options.sync_bn:
            LOGGER.warning("--sync-bn has no effect in a single process")

    def _batch_size(self) -> int:
        if self.options.batch_size != -1:
            return self.options.batch_size
        return choose_batch_size(self.model, self.imgsz, self.device, self.amp)

    def _loaders(self) -> Loaders:
        loaders = build_loaders(
            self.options,
            self.data,
            self.hyp,
            imgsz=self.imgsz,
            stride=grid_size(self.model.stride),
            batch_size=self.batch_size,
        )
        self.plots.labels(loaders.dataset.labels)
        return loaders

    def _describe_model(self) -> None:
        """Put on the model what users of its weights may ask for, and what the loss reads."""
        gains = scale_gains(self.hyp, self.model.model[-1].nl, self.classes.nc, self.imgsz)
        self.model.hyp = {**gains, "label_smoothing": self.options.label_smoothing}
        self.model.nc = self.classes.nc
        weights = labels_to_class_weights(self.loaders.dataset.labels, self.classes.nc)
        self.model.class_weights = weights.to(self.device) * self.classes.nc

    def _prepare_optimizer(self) -> None:
        self.schedule = WarmupSchedule(
            self.hyp,
            self.options.epochs,
            len(self.loaders.train),
            self.batch_size,
            self.options.cos_lr,
            nominal_batch=self.options.nbs,
        )
        self.optimizer = smart_optimizer(
            self.model, self.options.optimizer, self.hyp["lr0"], self.hyp["momentum"], self.schedule.weight_decay
        )
        self.ema = ModelEMA(self.model)
        self.loss = ComputeLoss(self.model)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp)

    # Epochs ----------------------------------------------------------------------------------------------------------

    def fit(self) -> EvalResult | None:
        """Train to the last epoch, or until patience runs out.

        Returns:
            The last evaluation.
        """
        LOGGER.info(
            f"image size {self.imgsz}, {self.loaders.train.num_workers} loader processes, "
            f"epochs {self.progress.epoch} to {self.options.epochs - 1}, results in {self.folder.root}"
        )
        result = None
        for epoch in range(self.progress.epoch, self.options.epochs):
            self.progress.epoch = epoch
            self.progress.losses = self.train_epoch(epoch)
            final = epoch + 1 == self.options.epochs or self.stopper.possible_stop
            improved = stop = False
            if final or not self.options.noval:
                result = self.evaluate()
                reached = float(fitness(np.array(result.summary, dtype=np.float64)[None])[0])
                improved = self._is_best(reached)
                stop = self.stopper(epoch=epoch, fitness=reached)
            self._record(epoch)
            self._save(best=improved, final=final or stop)
            if stop:
                best = self.stopper.best_epoch
                LOGGER.info(f"--patience {self.options.patience}: no better fitness since epoch {best}, training ends")
                break
        self.plots.results(self.folder.csv)
        return result

    def train_epoch(self, epoch: int) -> tuple[float, float, float]:
        """One pass over the training images; returns the mean box, obj and cls loss.

        Raises:
            TrainingError: when the losses are no numbers any more.
        """
        self.model.train()
        loader = self.loaders.train
        loader.set_epoch(epoch)
        LOGGER.info(f"\n{training_header()}")
        sums = torch.zeros(3, device=self.device)
        title = f"{epoch}/{self.options.epochs - 1}"
        with tqdm(enumerate(loader), total=len(loader), dynamic_ncols=True) as bar:
            for index, (images, targets, paths, _) in bar:
                iteration = epoch * len(loader) + index
                batch = self._inputs(images, epoch, index)
                sums += self.step(batch, targets.to(self.device), iteration)
                self.plots.batch(iteration, batch, targets, paths)
                means = (sums / (index + 1)).tolist()
                memory = memory_text(self.device)
                bar.set_description(training_line(title, memory, means, len(targets), batch.shape[-1]), refresh=False)
        if not is_finite(means):
            raise TrainingError(
                f"the losses of epoch {epoch} are {means}: lower lr0, or look for odd labels"
                + (f"; {self.folder.last} is still that of the epoch before" if self.folder.last.exists() else "")
            )
        return tuple(means)

    def _inputs(self, images: torch.Tensor, epoch: int, index: int) -> torch.Tensor:
        """A batch as the network takes it, with ``--multi-scale`` in a size of its own."""
        batch = to_network(images, self.device)
        if not self.options.multi_scale:
            return batch
        stride = grid_size(self.model.stride)
        rng = np.random.default_rng([_SIZE_DRAWS, self.options.seed, epoch, index])
        drawn = int(rng.integers(int(0.5 * self.imgsz), int(1.5 * self.imgsz) + stride))
        return resize_to(batch, drawn // stride * stride, stride)

    def step(self, images: torch.Tensor, targets: torch.Tensor, iteration: int) -> torch.Tensor:
        """Forward, backward, and an optimizer step when enough batches have come together.

        Args:
            images: (B, 3, H, W) in 0..1.
            targets: (n, 6) image, class, x, y, w, h normalised.
            iteration: batches since the start of training.

        Returns:
            (3,) detached box, obj and cls loss.
        """
        settings = self.schedule.apply(self.optimizer, iteration)
        with torch.autocast(self.device.type, torch.float16, enabled=self.amp):
            levels = self.model(images)
            loss, items = self.loss(levels, targets)
        self.scaler.scale(loss).backward()
        if iteration - self.progress.last_step >= settings.accumulate:
            self._update()
            self.progress.last_step = iteration
        return items

    def _update(self) -> None:
        """Clip, step, forget the gradients, and let the EMA follow."""
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=_MAX_GRADIENT_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model)

    # After an epoch --------------------------------------------------------------------------------------------------

    def evaluate(self) -> EvalResult:
        """Measure the EMA on the validation images."""
        result = evaluate(
            self.ema.ema,
            self.loaders.val,
            device=self.device,
            nc=self.classes.nc,
            names=self.classes.names,
            half=self.amp,
            single_cls=self.options.single_cls,
            compute_loss=self.loss,
            progress=evaluation_header(),
        )
        LOGGER.info(evaluation_table(result, self.classes.names)[0])
        for note in result.notes:
            LOGGER.warning(note)
        self.progress.figures = result.summary
        return result

    def _is_best(self, reached: float) -> bool:
        """Whether this is the best fitness so far; a tie counts."""
        best = self.progress.best_fitness
        if best is not None and reached < best:
            return False
        self.progress.best_fitness = reached
        return True

    def _record(self, epoch: int) -> None:
        rates = [group["lr"] for group in self.optimizer.param_groups]
        values = [*self.progress.losses, *self.progress.figures, *rates]
        self.csv.append(epoch, values)
        for listener in self.listeners:
            listener.run("on_fit_epoch_end", epoch=epoch, values=values, fitness=self.progress.best_fitness)

    def _save(self, best: bool, final: bool) -> None:
        if self.options.nosave and not final:
            return
        self.folder.write_epoch(self.checkpoint(), best=best, period=self.options.save_period)

    def checkpoint(self) -> Checkpoint:
        """All that is needed to go on after the current epoch as if nothing had happened."""
        return Checkpoint(
            model=self.model.state_dict(),
            meta=ModelMeta.of(self.model),
            ema=self.ema.ema.state_dict(),
            epoch=self.progress.epoch,
            best_fitness=self.progress.best_fitness,
            updates=self.ema.updates,
            optimizer=self.optimizer.state_dict(),
            opt={**self.options.to_dict(), "save_dir": str(self.folder.root)},
            date=timestamp(),
            extra=self._extra(),
        )

    def _extra(self) -> dict[str, Any]:
        """State that an exact continuation needs besides the weights."""
        return {
            "last_step": self.progress.last_step,
            "best_epoch": self.stopper.best_epoch,
            "scaler": self.scaler.state_dict(),
            "random": random_state(),
            "pending_gradients": self._pending_gradients(),
        }

    def _pending_gradients(self) -> dict[str, torch.Tensor]:
        """Gradients that wait for their step when an epoch ends between two."""
        return {name: parameter.grad for name, parameter in self.model.named_parameters() if parameter.grad is not None}
