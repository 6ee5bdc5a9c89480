"""Training: set-up, epoch, step. What is written and drawn is reported to others (run_files, run_plots, results).

In a launch of several processes each of them runs this on its share of the images. All take part in every epoch and
every evaluation, all come to the same figures and decisions; the main process alone writes and speaks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from engine.autobatch import choose_batch_size
from engine.callbacks import Callbacks
from engine.evaluator import EvalResult, EvaluatedBatch, evaluate
from engine.images import resize_to
from engine.lockstep import Trouble, fetch, shared_trouble
from engine.network import synchronise_norms, wrap_network
from engine.options.train import TrainOptions
from engine.precision import Precision
from engine.results import (
    ResultsCsv,
    evaluation_header,
    evaluation_table,
    training_header,
    training_line,
)
from engine.run_files import RunFolder, locked
from engine.run_plots import TrainPlots
from engine.run_state import capture, precision_of, restore
from engine.setup import (
    Loaders,
    Names,
    build_loaders,
    build_model,
    fit_anchors,
    freeze_layers,
    image_weights,
    is_finite,
    nominal_batch,
    optimizer_name,
    training_size,
)
from engine.stopping import StopRequest
from models.checkpoint import Checkpoint
from utils.class_weights import labels_to_class_weights
from utils.datasets.quad_group import GROUP
from utils.devices import memory_text
from utils.dist import all_gather, connected, is_main, rank, tensors_from_main, world_size
from utils.doctor.quick import warn_of_data
from utils.ema import EarlyStopping, ModelEMA
from utils.errors import ProjectError, TrainingError
from utils.log import LOGGER
from utils.loss import ComputeLoss, scale_gains
from utils.metrics import fitness
from utils.network_input import memory_format, to_network
from utils.optim import WarmupSchedule, smart_optimizer
from utils.seeding import init_seeds, set_determinism
from utils.sizes import grid_size

_MAX_GRADIENT_NORM = 10.0
_SIZE_DRAWS = 0x5123  # keeps the draws of --multi-scale apart from those of the data
_FEW_STEPS = 8  # optimizer steps an epoch, below which a recipe for small data trains better


@dataclass
class Progress:
    """Where a run stands; what a checkpoint has to remember besides tensors."""

    epoch: int = 0
    last_step: int = -1  # iteration of the last optimizer step
    best_fitness: float | None = None
    losses: tuple[float, float, float] = (0.0, 0.0, 0.0)
    figures: tuple[float, ...] = (0.0,) * 7  # of the last evaluation, as in EvalResult.summary
    batches: int = 0  # of this epoch that are done; 0 again when the epoch is
    sums: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of their box, obj and cls losses in this process
    class_map: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (nc,) mAP of each class then

    def end_epoch(self) -> None:
        """Forget the batches of the epoch that is done; without it, the next one would count as done, too."""
        self.batches, self.sums = 0, (0.0, 0.0, 0.0)


class Trainer:
    """One training run.

    ``build()`` makes the model, ``prepare()`` everything else, ``fit()`` runs the epochs. After the first two, all
    parts are plain attributes: ``model ema optimizer schedule loaders loss``, and ``network``, which is the model with
    whatever is around it for several processes or compilation.

    Args:
        options: the command's options.
        hyp: hyperparameters as in the file.
        data: a checked data set.
        device: where to train.
        folder: where files go.
        resumed: state to go on from.
    """

    def __init__(
        self,
        options: TrainOptions,
        hyp: Mapping[str, float],
        data: Mapping[str, Any],
        device: torch.device,
        folder: RunFolder,
        *,
        resumed: Checkpoint | None = None,
    ) -> None:
        self.options, self.hyp, self.data, self.device, self.folder = options, dict(hyp), data, device, folder
        self.resumed = resumed
        self.callbacks = Callbacks()
        self.classes = Names.of(data, options.single_cls)
        self.plots = TrainPlots(folder.root, self.classes.names, enabled=is_main() and not options.noplots)
        self.csv = ResultsCsv(folder.csv)
        self.progress = Progress(class_map=np.zeros(self.classes.nc))
        self.stopper = EarlyStopping(patience=options.patience)
        self.stop = StopRequest()
        self.lock = ExitStack()  # keeps the run folder to this process; closed by whoever runs the training
        self.spoiled: Trouble | None = None  # a loss that was no number

    # Set-up ----------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Seed everything and make the model, which shows most mistakes in the settings."""
        init_seeds(self.options.seed + 1 + rank())
        set_determinism(self.options.deterministic)
        model = build_model(self.options, self.classes, self.hyp, self.resumed)
        if self.options.sync_bn:
            model = synchronise_norms(model, self.device)
        self.model = model.to(self.device, memory_format=memory_format(self.device))
        freeze_layers(self.model, self.options.freeze)
        self.imgsz = training_size(self.model, self.options.imgsz)

    def prepare(self) -> None:
        """Make loaders, optimizer and the rest; a resumed run gets its state back."""
        options = self.options
        self.precision = self._precision()
        self.batch_size = self._batch_size()
        self.loaders = self._loaders()
        if self.resumed is None:
            fit_anchors(self.model, self.loaders.dataset, self.hyp, self.imgsz, not options.noautoanchor)
        self.network = wrap_network(self.model, self.device, compiled=options.compile)
        self._describe_model()
        self._prepare_optimizer()
        if self.resumed is not None:
            restore(self, self.resumed)
            self.resumed = None  # its tensors are copies that nothing needs any more

    def _precision(self) -> Precision:
        """What the run has decided on before, or decides on now."""
        known = precision_of(self.resumed, self.device) if self.resumed is not None else None
        if known is not None:
            return known
        return Precision.choose(self.options.amp, self.options.bf16, self.model, self.device, self.imgsz)

    def _batch_size(self) -> int:
        """Images of a batch, over all processes."""
        if self.options.batch_size != -1:
            return self.options.batch_size
        if self.resumed is not None:
            return int(self.resumed.extra["batch_size"])
        return choose_batch_size(self.model, self.imgsz, self.device, self.precision)

    def _loaders(self) -> Loaders:
        loaders = build_loaders(
            self.options,
            self.data,
            self.hyp,
            imgsz=self.imgsz,
            stride=grid_size(self.model.stride),
            batch_size=self.batch_size // world_size(),
        )
        if self.resumed is None:
            self.plots.labels(loaders.dataset.labels)
            if is_main():
                warn_of_data(loaders.dataset, loaders.val.dataset, self.classes.names, self.imgsz, self.options.data)
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
            nominal_batch=nominal_batch(self.options, self.hyp),
        )
        steps = len(self.loaders.train) / self.schedule.accumulate
        if steps < _FEW_STEPS and "nbs" not in self.hyp and self.resumed is None:
            images = len(self.loaders.dataset)
            LOGGER.info(
                f"{images} images make {steps:.1f} optimizer steps an epoch, which is few: "
                "--hyp hyp.small-data.yaml steps after every 16 images"
            )
        self.optimizer = smart_optimizer(
            self.model,
            optimizer_name(self.options, self.hyp),
            self.hyp["lr0"],
            self.hyp["momentum"],
            self.schedule.weight_decay,
        )
        self.ema = ModelEMA(self.model)
        self.loss = ComputeLoss(self.model)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision.scaled)
        # a batch of --quad has a quarter of the images that the learning rate is meant for
        self.gain = world_size() * (GROUP if self.options.quad else 1)

    # Epochs ----------------------------------------------------------------------------------------------------------

    def fit(self) -> EvalResult | None:
        """Train to the last epoch, or until patience runs out.

        A signal to end, and an image or a worker that is lost, are heeded between two batches: the state is saved, and
        what is raised then is raised in all processes of a launch.

        Returns:
            The last evaluation.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            SystemExit: after SIGTERM.
            ProjectError: when a batch cannot be loaded, a loss is no number, or a file cannot be written.
        """
        with self.stop:
            return self._fit()

    def _fit(self) -> EvalResult | None:
        LOGGER.info(
            f"image size {self.imgsz}, {self.loaders.train.num_workers} loader processes, "
            f"epochs {self.progress.epoch} to {self.options.epochs - 1}, run folder {self.folder.root}"
        )
        if is_main():
            self.callbacks.run("on_train_start", options=self.options, save_dir=self.folder.root)
        result = None
        for epoch in range(self.progress.epoch, self.options.epochs):
            if self.stopper.stopped:  # a resumed run that has only its final check before it
                break
            self.progress.epoch = epoch
            self.progress.losses = self.train_epoch(epoch)
            final = epoch + 1 == self.options.epochs or self.stopper.possible_stop
            improved = stop = False
            reached = None
            if final or not self.options.noval:
                result = self._evaluated()
                self._find_folder()
                reached = float(fitness(np.array(result.summary, dtype=np.float64)[None])[0])
                improved = self._is_best(reached)
                stop = self.stopper(epoch=epoch, fitness=reached)
            self.progress.end_epoch()
            self._record(reached, best=improved, final=final or stop)
            if stop:
                best = self.stopper.best_epoch
                LOGGER.info(f"--patience {self.options.patience}: no better fitness since epoch {best}, training ends")
                break
        self._heed(None)
        self.plots.results(self.folder.csv)
        return result

    def train_epoch(self, epoch: int) -> tuple[float, float, float]:
        """One pass over the training images, or what is left of it; returns the mean box, obj and cls loss.

        Raises:
            TrainingError: when a loss is no number any more.
        """
        self.model.train()
        loader = self.loaders.train
        if self.options.image_weights:
            labels = self.loaders.dataset.labels
            loader.draw_by(image_weights(labels, self.model.class_weights, self.progress.class_map))
        first = self.progress.batches
        loader.set_epoch(epoch, first)
        LOGGER.info(f"\n{training_header()}")
        sums = torch.tensor(self.progress.sums, device=self.device)
        title = f"{epoch}/{self.options.epochs - 1}"
        with tqdm(total=len(loader), initial=first, dynamic_ncols=True, disable=not is_main()) as bar:
            for index, (images, targets, paths, _) in enumerate(self._in_step(iter(loader)), first):
                iteration = epoch * len(loader) + index
                batch = self._inputs(images, epoch, index)
                items = self.step(batch, targets.to(self.device), iteration)
                sums += items
                self._count(index + 1, sums, items, paths)
                self.plots.batch(iteration, batch, targets, paths)
                means = [total / (index + 1) for total in self.progress.sums]
                line = training_line(title, memory_text(self.device), means, len(targets), batch.shape[-1])
                bar.set_description(line, refresh=False)
                bar.update()
        return tuple(np.mean(all_gather((sums / max(len(loader), 1)).tolist()), axis=0).tolist())

    def _in_step(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Each batch, once all processes have theirs and none has a reason to end."""
        while True:
            batch, trouble = (None, None) if self.stop.signal else fetch(batches)
            self._heed(self.spoiled or trouble)
            if batch is None:
                return
            yield batch

    def _heed(self, own: Trouble | None) -> None:
        """End where any process has to, all of them alike, with the state saved if it is good.

        A wish to stop comes first: the same signal may have ended a loader process.
        """
        asked = self.stop.error()
        sound = own is None or own.sound
        trouble = shared_trouble(Trouble(asked) if asked and sound else own, self.device)
        if trouble is not None:
            if trouble.sound:
                self._save_unfinished()
            raise trouble.error

    def _count(self, done: int, sums: torch.Tensor, items: torch.Tensor, paths: Sequence[str]) -> None:
        """Take note of a batch, and of losses that are no numbers: all processes end before they take the next one."""
        self.progress.batches, self.progress.sums = done, tuple(sums.tolist())
        if not is_finite(self.progress.sums):
            self.spoiled = Trouble(self._not_a_number(items.tolist(), paths), sound=False)

    def _not_a_number(self, losses: Sequence[float], paths: Sequence[str]) -> TrainingError:
        named = ", ".join(f"{name} {loss:.4g}" for name, loss in zip(("box", "obj", "cls"), losses, strict=True))
        kept = f"{self.folder.last} is from before it" if self.folder.last.exists() else "no epoch was finished before"
        return TrainingError(
            f"epoch {self.progress.epoch}, batch {self.progress.batches}: the loss is no finite number ({named}); "
            f"lower lr0, or look at the images of this batch and their labels: {', '.join(paths)}. {kept}"
        )

    def _evaluated(self) -> EvalResult:
        """The evaluation after an epoch; alone, a process may end in the middle of it, with the training's state saved.

        Several processes heed a signal after it, as they take different numbers of batches.
        """
        try:
            return self.evaluate()
        except (ProjectError, KeyboardInterrupt, SystemExit):
            if not connected():
                self._save_unfinished()
            asked = self.stop.error()
            if asked is not None:
                raise asked from None
            raise

    def _end_if_asked(self, _: EvaluatedBatch) -> None:
        asked = self.stop.error()
        if asked is not None and not connected():
            raise asked

    def _save_unfinished(self) -> None:
        """Save the state in the middle of an epoch, to go on after its last batch."""
        if self.progress.batches == 0:  # the last checkpoint is of this very moment
            return
        checkpoint = capture(self)
        self._find_folder()
        if is_main():
            self.folder.write_last(checkpoint)
            place = f"batch {self.progress.batches} of {len(self.loaders.train)}, epoch {self.progress.epoch}"
            LOGGER.info(f"\nsaved after {place}: {self.folder.last}")

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
        with self.precision.autocast():
            levels = self.network(images)
            loss, items = self.loss(levels, targets)
        self.scaler.scale(loss * self.gain).backward()
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
        """Measure the EMA on the validation images, each process on its share."""
        # Processes average equal weights, but each the norm statistics of its own images; the main process's count.
        tensors_from_main(list(self.ema.ema.buffers()))
        result = evaluate(
            self.ema.ema,
            self.loaders.val,
            device=self.device,
            nc=self.classes.nc,
            names=self.classes.names,
            autocast=self.precision.dtype,
            single_cls=self.options.single_cls,
            compute_loss=self.loss,
            observers=[self._end_if_asked],
            progress=evaluation_header(),
        )
        LOGGER.info(evaluation_table(result, self.classes.names)[0])
        for note in result.notes:
            LOGGER.warning(note)
        self.progress.figures, self.progress.class_map = result.summary, result.metrics.maps
        return result

    def _is_best(self, reached: float) -> bool:
        """Whether this is the best fitness so far; a tie counts."""
        best = self.progress.best_fitness
        if best is not None and reached < best:
            return False
        self.progress.best_fitness = reached
        return True

    def _find_folder(self) -> None:
        """Make the run folder again where it has vanished, rather than lose the training with it."""
        if not is_main() or self.folder.is_whole:
            return
        self.folder.create()
        self.lock.enter_context(locked(self.folder.root))
        self.folder.write_settings(self.options.to_dict(), self.hyp)
        self.csv.restore()
        if self.options.insert:
            self.folder.write_network(self.model.yaml, self.options.insert)
        had_best, self.progress.best_fitness = self.progress.best_fitness is not None, None
        LOGGER.warning(
            f"{self.folder.root}: the run folder has vanished and is made again, with results.csv and last.pt"
            + ("; best.pt is lost, and the best epoch from here on takes its place" if had_best else "")
        )

    def _record(self, reached: float | None, *, best: bool, final: bool) -> None:
        """Write the epoch's row, then its checkpoint, then tell who listens; ``reached`` is its fitness."""
        epoch = self.progress.epoch
        rates = [group["lr"] for group in self.optimizer.param_groups]
        values = [*self.progress.losses, *self.progress.figures, *rates]
        keep = final or not self.options.nosave
        checkpoint = capture(self) if keep else None
        self._find_folder()
        if not is_main():
            return
        self.csv.append(epoch, values)
        if checkpoint is not None:
            # with --nosave the one checkpoint there is must do
            best = best or self.options.nosave
            self.folder.write_epoch(checkpoint, best=best, period=self.options.save_period)
        self.callbacks.run("on_fit_epoch_end", epoch=epoch, values=values, fitness=reached)
