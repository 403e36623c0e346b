"""The tests' side: runs them, and asks the program for every value, in plain values."""

from __future__ import annotations

import sys
import types
from typing import Any

from wire import Closed, Wire, decode, encode


class Failure(Exception):
    """What the program did instead of returning a value."""


class Remote:
    """An object of the program, or a name of its namespace. Equal to nothing but itself."""

    __slots__ = ("_ask", "_at")

    def __init__(self, ask: Any, at: Any) -> None:
        object.__setattr__(self, "_ask", ask)
        object.__setattr__(self, "_at", at)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("call", self._at, list(args), kwargs)

    def __getattr__(self, name: str) -> Any:
        return self._ask("getattr", self._at, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("setattr", self._at, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._ask("getitem", self._at, key)

    def __len__(self) -> int:
        return int(self._ask("len", self._at))

    def __iter__(self) -> Any:
        return iter(self._ask("list", self._at))

    def __bool__(self) -> bool:
        return True


def judge(job: dict[str, Any], wire: Wire) -> str | Closed | None:
    """None if every test passed, else why not."""

    def ask(*question: Any) -> Any:
        try:
            wire.send([encode(part, refer) for part in question])
            answer = wire.receive()
        except BrokenPipeError:
            raise Closed from None
        if not isinstance(answer, list) or len(answer) != 2:
            raise Closed
        value = decode(answer[1], lambda number: Remote(ask, number))
        if answer[0] is not True:
            raise Failure(str(value)[:200])
        return value

    def refer(value: Any) -> int:
        if isinstance(value, Remote):
            return object.__getattribute__(value, "_at")
        raise Failure("a test hands over what cannot cross to the program")

    module = types.ModuleType("tests")
    sys.modules["tests"], namespace = module, vars(module)
    try:
        ask("load", job["program"])
        exec(compiled(job["prelude"], "<prelude>"), namespace)
        namespace.update({alias: Remote(ask, name) for alias, name in job["names"].items()})
        for test in job["tests"]:
            exec(compiled(test, "<test>"), namespace)
    except Closed as gone:
        return gone
    except Failure as error:
        return str(error)
    except AssertionError:
        return "a test failed"
    except BaseException as error:
        return f"a test raised {type(error).__name__}"
    return None


def compiled(source: str, name: str) -> types.CodeType:
    """``source`` as Python compiles a file of its own: the future imports of this file are not handed on."""
    return compile(source, name, "exec", dont_inherit=True)
