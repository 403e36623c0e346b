"""The program's side: loads it and answers for it."""

from __future__ import annotations

import os
import sys
import types
from typing import Any, TextIO

from judge import compiled
from wire import Wire, decode, encode


def play(wire: Wire, file: TextIO) -> None:
    """Load the program, which lies in ``file`` too for whoever asks for its source, and answer for it."""
    objects: list[Any] = []
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")

    def refer(value: Any) -> int:
        objects.append(value)
        return len(objects) - 1

    def resolve(at: Any) -> Any:
        if isinstance(at, str):
            if at not in vars(module):
                raise NameError(f"the program does not define {at}")
            return vars(module)[at]
        return objects[at]

    def load(source: str) -> None:
        """Run the program as an import of it would."""
        module.__file__ = os.path.join(os.getcwd(), file.name)
        code = compiled(source.removeprefix("\ufeff"), module.__file__)
        with file:
            file.write(source)
        exec(code, vars(module))

    answers: dict[str, Any] = {
        "load": load,
        "call": lambda at, args, kwargs: resolve(at)(*args, **kwargs),
        "getattr": lambda at, name: getattr(resolve(at), name),
        "setattr": lambda at, name, value: setattr(resolve(at), name, value),
        "getitem": lambda at, key: resolve(at)[key],
        "len": lambda at: len(resolve(at)),
        "list": lambda at: list(resolve(at)),
    }
    while True:
        message = wire.receive()
        try:
            question, *parts = (decode(part, resolve) for part in message)
            answer = [True, encode(answers[question](*parts), refer)]
            wire.send(answer)
        except BaseException as error:
            wire.send([False, f"{type(error).__name__}: {error}"[:200]])
