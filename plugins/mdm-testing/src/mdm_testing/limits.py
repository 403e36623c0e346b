"""How long a check may take, and where in a plugin's code something happened."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from traceback import walk_tb
from types import FrameType
from typing import Any

from mdm_testing.kit import Subject

AGAIN = 1.0
"""Seconds after which a check that swallowed the end of its time is told again."""


class TimeIsUp(KeyboardInterrupt):
    """Raised wherever a check stands when its time is up. As Ctrl-C it passes whoever catches errors."""


class Hangs(KeyboardInterrupt):
    """Raised in place of a plugin's method that is known to hang. As Ctrl-C it passes whoever catches errors."""

    def __init__(self, method: str, why: str) -> None:
        super().__init__(why)
        self.method = method


def hanging(of: Subject, method: str, why: str) -> Subject:
    """A plugin whose method hangs, with one that raises Hangs; as it is where that is no method of its class."""
    if not isinstance(of.plugin, type) or not hasattr(of.plugin, method):
        return of

    def stop(*_: Any, **__: Any) -> None:
        raise Hangs(method, why)

    kind = of.plugin
    same = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__qualname__": kind.__qualname__}
    return replace(of, plugin=type(kind.__name__, (kind,), {**same, method: stop}))


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeIsUp in the block after so many seconds (None: never), in the middle of a loop or of a sleep.

    By a timer of the system, which only a main thread has. Where there is none (Windows, other threads), the main
    thread is interrupted as by Ctrl-C, which ends a loop in Python. Code in C is interrupted when it comes back.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    if not hasattr(signal, "setitimer"):
        with _interrupted(seconds):
            yield
        return

    def ring(*_: Any) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _interrupted(seconds: float) -> Iterator[None]:
    rang = threading.Event()

    def ring() -> None:
        rang.set()
        _thread.interrupt_main()

    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    except KeyboardInterrupt as error:
        if rang.is_set():
            raise TimeIsUp().with_traceback(error.__traceback__) from None
        raise
    finally:
        timer.cancel()


def place_of(error: BaseException, of: Subject) -> str:
    """``file:line`` where an error was raised, or what it was raised from: the last place in the plugin's own code.

    An empty text where it did not come by there.
    """
    places = _places(error, of)
    return f"{places[-1][0].f_code.co_filename}:{places[-1][1]}" if places else ""


def method_of(error: BaseException, of: Subject) -> str:
    """The function of the plugin that was called and did not come back, or an empty text."""
    places = _places(error, of)
    return places[0][0].f_code.co_name if places else ""


def _places(error: BaseException, of: Subject) -> list[tuple[FrameType, int]]:
    while error.__cause__ is not None:
        error = error.__cause__
    kind = of.plugin if isinstance(of.plugin, type) else type(of.plugin)
    package = kind.__module__.partition(".")[0]
    places = [place for place in walk_tb(error.__traceback__) if place[0].f_code.co_filename != __file__]
    return [(frame, line) for frame, line in places if _package(frame) == package]


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]
