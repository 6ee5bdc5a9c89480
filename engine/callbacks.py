"""Following a training run from outside: three events, and any number of listeners that are told of them.

====================  =======================================  ====================================================
event                 facts (keywords)                         when
====================  =======================================  ====================================================
``on_train_start``    ``options``, ``save_dir``                once, before the first epoch of this process
``on_fit_epoch_end``  ``epoch``, ``values``, ``fitness``       after every epoch, its csv row and checkpoint on disk
``on_train_end``      ``results``, ``save_dir``                once, after the final check of ``best.pt``
====================  =======================================  ====================================================

What the facts are, is said at the three methods of :class:`Callback`. That is the whole interface of training. It is
called in the main process only. (``val.run(callbacks=...)`` has two events of its own, ``on_val_start`` without facts
and ``on_val_end`` with ``result``, an ``EvalResult``.)

A listener is any object with ``run(event, **facts)``. Most easily it is a subclass of :class:`Callback` with only the
methods that it needs::

    class Tell(Callback):
        def on_fit_epoch_end(self, epoch, values, fitness):
            print(epoch, fitness)

    train.train(hyp, options, device, callbacks=Tell())
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import OptionError, ProjectError, first_line
from utils.log import LOGGER

if TYPE_CHECKING:
    from engine.options.train import TrainOptions

TRAIN_EVENTS = ("on_train_start", "on_fit_epoch_end", "on_train_end")


class Callback:
    """A listener with a method for each event of training; override those that matter."""

    def run(self, event: str, **facts: Any) -> None:
        """Call the method that has the event's name; events without one are ignored.

        Args:
            event: its name, such as ``on_train_end``.
            facts: what that method takes.
        """
        method = getattr(self, event, None) if event.startswith("on_") else None
        if method is not None:
            method(**facts)

    def on_train_start(self, options: TrainOptions, save_dir: Path) -> None:
        """Everything is set up.

        Args:
            options: of the command.
            save_dir: the run folder.
        """

    def on_fit_epoch_end(self, epoch: int, values: Sequence[float], fitness: float | None) -> None:
        """An epoch is over and on disk.

        Args:
            epoch: its number, from 0.
            values: the 13 figures of its row of ``results.csv``, named by ``engine.results.CSV_COLUMNS[1:]``.
            fitness: 0.1 mAP50 + 0.9 mAP50-95 of this epoch, 0..1; None when it was not evaluated (``--noval``).
        """

    def on_train_end(self, results: Sequence[float], save_dir: Path) -> None:
        """The run is complete.

        Args:
            results: P, R, mAP50, mAP50-95, box, obj and cls loss of ``best.pt``.
            save_dir: the run folder.
        """


class Callbacks:
    """Passes every event on to its listeners, in the order in which they came.

    A listener's mistake never ends a run: the first failure of a listener at an event is one warning, its traceback
    goes to the debug log, and the run, with the other listeners, goes on. A listener that wants to end the run raises
    one of ``utils.errors``, best ``TrainingError``; that and ``KeyboardInterrupt`` pass through.

    Args:
        *listeners: objects with ``run(event, **facts)``; None is skipped.

    Raises:
        OptionError: when one has no such method.
    """

    def __init__(self, *listeners: Any) -> None:
        self.listeners: list[Any] = []
        self._failed: set[tuple[int, str]] = set()  # (place in the list, event) that a warning named already
        for listener in listeners:
            if listener is not None:
                self.add(listener)

    def add(self, listener: Any) -> None:
        """Let one more listener follow.

        Args:
            listener: an object with ``run(event, **facts)``.

        Raises:
            OptionError: when it has no such method.
        """
        if isinstance(listener, type) or not callable(getattr(listener, "run", None)):
            raise OptionError(
                f"callbacks: expected an object with a method run(event, **facts), got {listener!r}; "
                "a subclass of engine.callbacks.Callback has one"
            )
        self.listeners.append(listener)

    def run(self, event: str, **facts: Any) -> None:
        """Tell every listener.

        Args:
            event: its name, see the table of this module.
            facts: what goes with it.

        Raises:
            ProjectError: raised by a listener to end the run.
        """
        for place, listener in enumerate(self.listeners):
            try:
                listener.run(event, **facts)
            except ProjectError:
                raise
            except Exception as error:  # noqa: BLE001 - foreign code may raise anything, and must not end the training
                self._warn_once(place, event, error)

    def _warn_once(self, place: int, event: str, error: Exception) -> None:
        if (place, event) in self._failed:
            return
        self._failed.add((place, event))
        name = type(self.listeners[place]).__name__
        LOGGER.warning(f"callbacks: {name} failed at {event} ({type(error).__name__}: {first_line(error)}); going on")
        LOGGER.debug(f"callbacks: {name} at {event}", exc_info=error)
