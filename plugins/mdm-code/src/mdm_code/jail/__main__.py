"""Judge one program: the tests run here, the program in a child that cannot reach this process.

A job comes as JSON on stdin, the verdict goes as JSON to stdout. The child is forked before the job is read, so neither
the tests nor what they expect is ever in its memory: it gets the program, is asked to call this or that with plain
values, and answers with plain values. No exit code, no output and no object of the program counts as a pass.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import types
from typing import Any

import confine
from wire import Closed, Wire, decode, encode

JOB = ("cpu", "memory", "file", "folder")


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


def main() -> None:
    confine.die_with_parent()
    confine.hide_memory()
    limits = dict(zip(JOB, sys.argv[1:], strict=True))
    folder = limits.pop("folder")
    confine.limit(**{name: int(value) for name, value in limits.items()})
    verdict = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    sys.path.pop(0)
    os.chdir(folder)
    (judge_in, player_out), (player_in, judge_out) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        confine.die_with_parent()
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        for fd in (verdict, judge_in, judge_out, null):
            os.close(fd)
        try:
            confine.confine(folder)
            play(Wire(player_in, player_out))
        finally:
            os._exit(1)
    os.close(player_in)
    os.close(player_out)
    job = json.loads(sys.stdin.buffer.read())
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    confine.confine(None, child)
    reason = judge(job, Wire(judge_in, judge_out))
    if isinstance(reason, Closed):
        reason = ended(child)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.write(verdict, json.dumps({"passed": reason is None, "reason": reason or ""}).encode())
    os._exit(0)


def ended(child: int) -> str:
    """Why the program is gone."""
    for _ in range(100):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "it closed its connection to the tests"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "time" if number in (signal.SIGXCPU, signal.SIGKILL) else f"killed by {signal.Signals(number).name}"
    return f"it exited with {os.WEXITSTATUS(status)} before the tests were done"


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
        exec(_compiled(job["prelude"], "<prelude>"), namespace)
        namespace.update({alias: Remote(ask, name) for alias, name in job["names"].items()})
        for test in job["tests"]:
            exec(_compiled(test, "<test>"), namespace)
    except Closed as gone:
        return gone
    except Failure as error:
        return str(error)
    except AssertionError:
        return "a test failed"
    except BaseException as error:
        return f"a test raised {type(error).__name__}"
    return None


def play(wire: Wire) -> None:
    """Load the program and answer for it."""
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
        """Run the program as an import of it would; it lies there as a file too, for whoever asks for its source."""
        module.__file__ = os.path.join(os.getcwd(), "solution.py")
        code = _compiled(source.removeprefix("\ufeff"), module.__file__)
        with open(module.__file__, "w", encoding="utf-8") as file:
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


def _compiled(source: str, name: str) -> types.CodeType:
    """``source`` as Python compiles a file of its own: the future imports of this file are not handed on."""
    return compile(source, name, "exec", dont_inherit=True)


main()
