"""Makes sure that Ctrl-C ends a command.

Python raises KeyboardInterrupt wherever it happens to be. In a callback of the garbage collector, of which
torch.compile has many, the exception is dropped; in the middle of an import a library may turn it into another error.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from typing import Any, Self

AGAIN = 0.1
"""Seconds before a dropped interrupt is raised again; at once it would be dropped by the same callback."""


class CtrlC:
    """Within the block, a KeyboardInterrupt that Python drops is raised again. ``pressed``: there was a Ctrl-C.

    Does nothing outside of the main thread, and where Ctrl-C is handled by another program's handler.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._handler: Any = None
        self._hook: Any = None

    def __enter__(self) -> Self:
        main_thread = threading.current_thread() is threading.main_thread()
        if main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._handler = signal.signal(signal.SIGINT, self._raise)
            self._hook, sys.unraisablehook = sys.unraisablehook, self._dropped
        return self

    def __exit__(self, *_: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            sys.unraisablehook = self._hook

    def _raise(self, *_: Any) -> None:
        self.pressed = True
        raise KeyboardInterrupt

    def _dropped(self, unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._hook(unraisable)
            return
        timer = threading.Timer(AGAIN, _thread.interrupt_main)
        timer.daemon = True
        timer.start()
