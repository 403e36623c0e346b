"""Ctrl-C ends a command with 130, wherever it strikes."""

from __future__ import annotations

import signal
import sys
import time
import weakref

import pytest
from mdm.cli import cli, main
from mdm.cli.interrupt import CtrlC


def press(*_):
    signal.raise_signal(signal.SIGINT)


class Thing:
    pass


def test_an_interrupt_that_python_drops_is_raised_again():
    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), CtrlC() as ctrl_c:
        thing = Thing()
        watched = weakref.ref(thing, press)
        del thing  # the callback runs, and what it raises is dropped
        assert watched() is None and ctrl_c.pressed
        time.sleep(20)
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before


def test_other_errors_that_python_drops_are_reported_as_ever(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda given: seen.append(given.exc_type))
    with CtrlC():
        thing = Thing()
        watched = weakref.ref(thing, lambda _: 1 / 0)
        del thing
    assert watched() is None and seen == [ZeroDivisionError]


@pytest.mark.parametrize("turned", [ImportError("No module named 'torch.half_of_it'"), None])
def test_an_interrupt_that_a_library_makes_an_error_of_is_still_one(monkeypatch, turned):
    def command(*args, **kwargs):
        try:
            press()
        except KeyboardInterrupt:
            if turned is None:
                raise
        raise turned

    monkeypatch.setattr(cli, "main", command)
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 130


def test_an_error_without_ctrl_c_is_not_hidden(monkeypatch):
    monkeypatch.setattr(cli, "main", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([])
