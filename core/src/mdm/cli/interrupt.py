"""Ctrl-C that is not lost.

A KeyboardInterrupt strikes wherever Python is. In a callback of the garbage collector, of which torch.compile has many,
Python drops it and goes on; in the middle of an import a library may make another error of it.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from types import TracebackType
from typing import Any, Self

AGAIN = 0.1
"""Seconds after which a dropped interrupt is raised again: where it was dropped it would be once more."""


class CtrlC:
    """Within the block Ctrl-C raises KeyboardInterrupt until it is not dropped; ``pressed`` says that it was.

    In a thread beside the main one, and where somebody else handles Ctrl-C, nothing is changed.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._handler: Any = None
        self._hook: Any = None

    def __enter__(self) -> Self:
        ours = threading.current_thread() is threading.main_thread()
        if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._handler = signal.signal(signal.SIGINT, self._raise)
            self._hook, sys.unraisablehook = sys.unraisablehook, self._dropped
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            sys.unraisablehook = self._hook

    def _raise(self, *_: Any) -> None:
        self.pressed = True
        raise KeyboardInterrupt

    def _dropped(self, given: Any) -> None:
        if not issubclass(given.exc_type, KeyboardInterrupt):
            self._hook(given)
            return
        again = threading.Timer(AGAIN, _thread.interrupt_main)
        again.daemon = True
        again.start()
