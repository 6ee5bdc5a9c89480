"""Listeners of a run: each is told everything, none can break it by a mistake, any can end it on purpose."""

from __future__ import annotations

import pytest

from engine.callbacks import TRAIN_EVENTS, Callback, Callbacks
from utils.errors import OptionError, TrainingError
from utils.log import LOGGER


class Recorder(Callback):
    def __init__(self):
        self.seen = []

    def on_train_start(self, options, save_dir):
        self.seen.append(("start", options, save_dir))

    def on_fit_epoch_end(self, epoch, values, fitness):
        self.seen.append((epoch, values, fitness))

    def on_train_end(self, results, save_dir):
        self.seen.append(("end", results, save_dir))


class Broken(Callback):
    def __init__(self, error):
        self.error, self.calls = error, 0

    def run(self, event, **facts):
        self.calls += 1
        raise self.error


@pytest.fixture
def warnings(heard):
    heard.set_level("WARNING", LOGGER.name)
    return lambda: [record.getMessage() for record in heard.records if record.levelname == "WARNING"]


def tell_all(callbacks, tmp_path, epochs=2):
    callbacks.run("on_train_start", options="options", save_dir=tmp_path)
    for epoch in range(epochs):
        callbacks.run("on_fit_epoch_end", epoch=epoch, values=[0.5] * 13, fitness=0.1 * epoch)
    callbacks.run("on_train_end", results=(1.0,) * 7, save_dir=tmp_path)


def test_nobody_listens(tmp_path):
    tell_all(Callbacks(), tmp_path)
    tell_all(Callbacks(None, None), tmp_path)


def test_every_listener_is_told_everything_in_order(tmp_path):
    first, second = Recorder(), Recorder()
    callbacks = Callbacks(first, None)
    callbacks.add(second)
    assert callbacks.listeners == [first, second]
    tell_all(callbacks, tmp_path)
    expected = [
        ("start", "options", tmp_path), (0, [0.5] * 13, 0.0), (1, [0.5] * 13, 0.1), ("end", (1.0,) * 7, tmp_path),
    ]  # fmt: skip
    assert first.seen == second.seen == expected


def test_any_object_with_run_will_do(tmp_path):
    class Plain:
        def __init__(self):
            self.events = []

        def run(self, event, **facts):
            self.events.append(event)

    plain = Plain()
    tell_all(Callbacks(Callbacks(plain)), tmp_path, epochs=1)  # such as another Callbacks
    assert plain.events == list(TRAIN_EVENTS)


@pytest.mark.parametrize("wrong", [object(), print, "on_train_end", {"run": print}, Recorder])
def test_what_has_no_run_is_refused_at_once(wrong):
    with pytest.raises(OptionError, match="run\\(event"):
        Callbacks(wrong)
    with pytest.raises(OptionError, match="callbacks"):
        Callbacks().add(wrong)


def test_base_class_ignores_events_that_it_does_not_know():
    recorder = Recorder()
    recorder.run("on_val_end", result=1)
    recorder.run("seen")  # an attribute, no event
    recorder.run("run")
    assert recorder.seen == []


@pytest.mark.parametrize("error", [ValueError("two\nlines"), RuntimeError(), ZeroDivisionError("by zero")])
def test_a_mistake_is_one_warning_an_event_and_the_others_go_on(tmp_path, warnings, error):
    broken, healthy = Broken(error), Recorder()
    tell_all(Callbacks(broken, healthy), tmp_path, epochs=3)
    assert len(healthy.seen) == 5
    assert broken.calls == 5  # it may have recovered
    assert len(warnings()) == 3
    for message, event in zip(warnings(), TRAIN_EVENTS, strict=True):
        assert "Broken" in message and event in message and type(error).__name__ in message and "\n" not in message


def test_wrong_facts_are_a_mistake_of_the_listener_as_well(tmp_path, warnings):
    class Old(Callback):
        def on_fit_epoch_end(self, log_vals, epoch):
            raise AssertionError("never gets here")

    tell_all(Callbacks(Old(), Old()), tmp_path)
    assert len(warnings()) == 2  # two listeners of one kind are two


@pytest.mark.parametrize("error", [TrainingError("enough"), KeyboardInterrupt(), SystemExit(3)])
def test_a_listener_may_end_the_run(tmp_path, warnings, error):
    later = Recorder()
    with pytest.raises(type(error)):
        Callbacks(Broken(error), later).run("on_fit_epoch_end", epoch=0, values=[], fitness=None)
    assert later.seen == [] and warnings() == []


def test_the_traceback_is_in_the_debug_log(tmp_path, heard):
    heard.set_level("DEBUG", LOGGER.name)
    Callbacks(Broken(ValueError("here"))).run("on_train_end", results=(), save_dir=tmp_path)
    assert "Traceback" in heard.text and "raise self.error" in heard.text
