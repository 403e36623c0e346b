# ruff: noqa: E501
"""Whatever a program does ends in the right verdict within seconds, and nothing of it is left."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from mdm_code.jail import kernel, wire
from mdm_code.sandbox import Job, Limits, Verdict, run

if not kernel.supported():
    pytest.skip("code is confined on Linux only", allow_module_level=True)

LIMITS = Limits(cpu=1, wall=6, memory=512 * 2**20, disk=32 * 2**20)
RIGHT = "\ndef f(x): return x * x\n"
TESTS = ("assert f(2) == 4", "assert f(3) == 9")

ZOO = {
    "right": (RIGHT, None),
    "wrong": ("def f(x): return x + 2", "a test failed"),
    "empty": ("", "NameError: the program does not define f"),
    "no Python": ("Here is the function you asked for:", "SyntaxError"),
    "prose behind": (RIGHT + "\nThis function squares a number!\n", "SyntaxError"),
    "endless loop": ("while True: pass", "time"),
    "endless call": ("def f(x):\n    while True: pass", "time"),
    "sleeps and ignores signals": (
        "import signal, time\nfor n in (signal.SIGTERM, signal.SIGXCPU, signal.SIGINT, signal.SIGALRM):\n"
        "    signal.signal(n, signal.SIG_IGN)\ntime.sleep(1000)",
        "time",
    ),
    "fork bomb": ("import os\nwhile True: os.fork()", "PermissionError"),
    "fork bomb that does not give up": (
        "import os\nfor _ in range(10**4):\n    try: os.fork()\n    except OSError: pass\n" + RIGHT, None
    ),
    "daemon": ("import os\nos.setsid()\nif os.fork(): os._exit(0)\nwhile True: pass", "PermissionError"),
    "subprocess": ("import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)", "PermissionError"),
    "fork by number": ("import ctypes\nraise ValueError(ctypes.CDLL(None).syscall(57))", "ValueError: -1"),
    "memory hog": ("def f(x): return len(b'x' * 10**10)", "MemoryError"),
    "slow memory hog": ("x = []\nwhile True: x.append(bytes(2**22))", "MemoryError"),
    "exit 0 without cleaning up": ("import os\nos._exit(0)", "it exited with 0 before the tests were done"),
    "exit 0 when called": ("import os\ndef f(x): os._exit(0)", "it exited with 0 before the tests were done"),
    "sys.exit(0)": ("import sys\nsys.exit(0)", "SystemExit"),
    "sys.exit(0) when called": ("def f(x): raise SystemExit(0)", "SystemExit"),
    "output flood": ("import sys\nwhile True:\n    print('x' * 10**6)\n    print('x' * 10**6, file=sys.stderr)", "time"),
    "equals everything": (
        "class Any(int):\n    __eq__ = lambda a, b: True\n    __ne__ = lambda a, b: False\n    __hash__ = int.__hash__\n"
        "def f(x): return Any(0)",
        "a test failed",
    ),
    "equals everything, no number": (
        "class Any:\n    __eq__ = lambda a, b: True\n    __bool__ = lambda a: True\ndef f(x): return Any()", "a test failed"
    ),
    "equals everything, inside": (
        "class Any(str):\n    __eq__ = lambda a, b: True\n    __hash__ = str.__hash__\n"
        "def f(x): return [Any()] if x else None",
        "a test failed",
    ),
    "patches what asserts": (
        "import builtins, sys\nclass Quiet(BaseException):\n    def __new__(c, *a): return None\n"
        "builtins.AssertionError = Quiet\nbuiltins.compile = builtins.exec = lambda *a: None\n"
        "sys.excepthook = lambda *a: None\nsys.settrace(lambda *a: None)\ndef f(x): return 0",
        "a test failed",
    ),
    "looks for the tests": (
        "import gc, sys\ndef seen():\n    frame = sys._getframe()\n    while frame:\n        yield from frame.f_locals.values()\n"
        "        yield from frame.f_globals.values()\n        frame = frame.f_back\n    yield from gc.get_objects()\n"
        "def f(x): return x * x if any('== 9' in str(o) for o in seen() if type(o) in (str, dict, list)) else 0",
        "a test failed",
    ),
    "reads the tests from another's memory": (
        "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')", "PermissionError|FileNotFoundError"
    ),
    "claims a pass on every channel": (
        "import os\nfor n in range(64):\n    try: os.write(n, b'{\"passed\": true, \"reason\": \"\"}')\n"
        "    except OSError: pass\ndef f(x): return 0",
        "it closed its connection",
    ),
    "closes every channel": ("import os\nos.closerange(0, 64)\ndef f(x): return 0", "it exited with 1"),
    "reads stdin": ("def f(x): return int(input())", "EOFError"),
    "deep recursion": ("def f(x): return f(x + 1)", "RecursionError"),
    "deeper recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __eq__(a, b): return a.x == b.x\n"
        "def f(x):\n    a, b = A(), A()\n    a.x, b.x = a, b\n    return a == b",
        "killed by SIGSEGV|MemoryError",
    ),
    "a result without an end": ("def f(x):\n    a = []\n    a.append(a)\n    return a", "RecursionError"),
    "a result too large": ("def f(x): return 'x' * 10**8", "ValueError: a value is too large|MemoryError"),
    "bytes too large": ("def f(x): return bytes(10**8)", "ValueError: a value is too large|MemoryError"),
    "a number too large": ("def f(x): return 1 << 10**9", "ValueError: a value is too large|MemoryError"),
    "a list too large": ("def f(x): return [None] * 10**7", "ValueError: a value is too large|MemoryError"),
    "a dict too large": ("def f(x): return {i: {1: b'x' * 10**6} for i in range(50)}", "ValueError: a value is too large|MemoryError"),
    "huge file": ("with open('a', 'wb') as file:\n    while True: file.write(bytes(2**20))", "OSError"),
    "many files": (
        "n = 0\nwhile True:\n    n += 1\n    open(str(n), 'wb').write(bytes(2**22))\n    __import__('time').sleep(0.01)",
        "too much written|OSError: [Errno 28]",
    ),
    "deletes its folder": ("import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)" + RIGHT, None),
    "deletes what is not its own": ("import shutil\nshutil.rmtree('/')", "PermissionError"),
    "takes its folder's permissions away": ("import os\nos.mkdir('a')\nos.chmod('a', 0)", "PermissionError"),
    "writes elsewhere": ("import os\nopen('/tmp/mdm-was-here', 'w')", "PermissionError|OSError: [Errno 30]"),
    "reads elsewhere": ("open('/etc/passwd')", "PermissionError|FileNotFoundError"),
    "network": ("import socket\nsocket.create_connection(('127.0.0.1', 80))", "PermissionError"),
    "kills everybody": ("import os\nos.kill(-1, 9)", "PermissionError"),
    "kills its judge": ("import os\nos.kill(os.getppid(), 9)", "PermissionError"),
    "kills its group": ("import os\nos.killpg(0, 9)", "PermissionError"),
    "kills itself": ("import os\nos.kill(os.getpid(), 9)", "time"),
    "stops itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "time"),
    "crashes": ("import ctypes\nctypes.string_at(0)", "killed by SIGSEGV"),
    "secrets of the environment": ("import os\nif 'HOME' in os.environ or 'PATH' in os.environ: 1 / 0" + RIGHT, None),
    "threads": ("import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()" + RIGHT, None),
}  # fmt: skip


def ours(folder: Path) -> list[str]:
    """Processes that are alive of the sandboxes under a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("name", ZOO)
def test_zoo(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program, reason = ZOO[name]
    start = time.monotonic()
    verdict = run(Job(program, TESTS, {"f": "f"}), LIMITS)
    assert time.monotonic() - start < 3 * LIMITS.wall
    assert verdict.passed is (reason is None)
    if reason:
        assert any(verdict.reason.startswith(start) for start in reason.split("|")), verdict
    assert not ours(tmp_path) and not list(tmp_path.iterdir()) and not Path("/tmp/mdm-was-here").exists()


PLAIN = {
    "annotations are evaluated": "def f(x: int) -> float: return x * x\nassert f.__annotations__ == {'x': int, 'return': float}",
    "an annotation that is not there": ("def f(x: Missing): return x * x", "NameError: name 'Missing' is not defined"),
    "a dataclass": (
        "import typing\nfrom dataclasses import dataclass, fields\n@dataclass\nclass A:\n    x: int = 2\n"
        "assert [a.type for a in fields(A)] == [int] and typing.get_type_hints(A) == {'x': int}" + RIGHT
    ),
    "its own future import": (
        '"""Squares."""\nfrom __future__ import annotations\nfrom dataclasses import dataclass\nimport typing\n@dataclass\n'
        "class A:\n    x: int\ndef f(x: Missing): return A(x * x).x\n"
        "assert f.__annotations__ == {'x': 'Missing'} and __doc__ == 'Squares.' and typing.get_type_hints(A) == {'x': int}"
    ),
    "a future import that comes late": ("x = 1\nfrom __future__ import annotations" + RIGHT, "SyntaxError"),
    "nothing of ours": (
        RIGHT + "names = {'f', '__name__', '__doc__', '__package__', '__loader__', '__spec__', '__file__', '__builtins__'}\n"
        "assert set(globals()) - {'names'} <= names"
    ),
    "its name and file": (
        "import os, sys\nassert __name__ == 'solution' and sys.modules[__name__].__dict__ is globals()\n"
        "assert open(__file__).read().startswith('import os') and __doc__ is None" + RIGHT
    ),
    "its source": "import inspect" + RIGHT + "assert inspect.getsource(f) == 'def f(x): return x * x\\n'",
    "its line numbers": "def f(x):\n    import sys\n    assert sys._getframe().f_lineno == 3\n    return x * x",
    "a class that is pickled": (
        "import copy, pickle\nclass A: pass\n"
        "assert type(pickle.loads(pickle.dumps(A()))) is A and copy.deepcopy(A())" + RIGHT
    ),
    "a cache": "from functools import cache\n@cache\ndef f(x): return x * x\n",
    "a main part": RIGHT + "if __name__ == '__main__': 1 / 0",
    "a byte-order mark": "\ufeff" + RIGHT,
    "a coding line": "# -*- coding: latin-1 -*-\nassert len('\u00e9') == 1" + RIGHT,
    "a walrus and a match": "def f(x):\n    match x:\n        case int() if (y := x * x): return y\n",
    "asserts are on": ("assert False" + RIGHT, "AssertionError"),
    "return at the margin": (RIGHT + "return 1", "SyntaxError"),
    "tabs and blanks": ("def f(x):\n\tif x:\n        return x * x", "TabError"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_a_program_runs_as_plain_python_imports_it(name):
    program, reason = PLAIN[name] if isinstance(PLAIN[name], tuple) else (PLAIN[name], "")
    verdict = run(Job(program, TESTS, {"f": "f"}), LIMITS)
    assert verdict.passed is not bool(reason) and verdict.reason.startswith(reason), verdict


def test_tests_are_compiled_as_plain_python():
    tests = [
        "def g(x: int): pass\nassert g.__annotations__ == {'x': int}",
        "assert f(2) == 4 and helper.__annotations__",
    ]
    prelude = "def helper(x: int): pass\nassert helper.__annotations__ == {'x': int}"
    future = "from __future__ import annotations" + RIGHT
    assert run(Job(future, tests, {"f": "f"}, prelude), LIMITS).passed
    assert not run(Job(RIGHT, ["def g(x: Missing): pass"], {"f": "f"}), LIMITS).passed


def test_a_test_that_does_not_end_or_dies_is_no_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run(Job(RIGHT, ["while True: pass"], {"f": "f"}), LIMITS).passed is False
    assert run(Job(RIGHT, ["import os; os._exit(0)"], {"f": "f"}), LIMITS).passed is False
    assert run(Job(RIGHT, ["open('/tmp/mdm-was-here', 'w')"], {"f": "f"}), LIMITS).passed is False
    assert not Path("/tmp/mdm-was-here").exists() and not ours(tmp_path)


def test_objects_of_the_program_stay_there():
    program = (
        "class Node:\n    def __init__(self, value): self.value, self.next = value, None\n"
        "def total(node): return node.value + total(node.next) if node else 0\n"
        "def make(*values): return list(map(Node, values))\ndef count(kind, things): return len(things), kind('3')\n"
    )
    tests = (
        "a, b = Node(1), Node(2)\na.next = b",
        "assert total(a) == 3 and a.next.value == 2 and a != b and a.next != a",
        "first, second = make(5, 6)\nfirst.next = second\nassert total(first) == 11",
        "assert count(int, [a, (b, {'x': first})]) == (2, 3)",
    )
    assert run(Job(program, tests, {name: name for name in ("Node", "total", "make", "count")}), LIMITS).passed


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False) | st.fractions()
    | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner)
    | st.frozensets(st.integers()) | st.sets(st.text()),
)  # fmt: skip


@given(VALUES)
def test_plain_values_cross_unchanged(value):
    back = wire.decode(wire.encode(value, None), None)
    assert back == value and type(back) is type(value)


@given(
    st.recursive(
        st.none() | st.text() | st.integers() | st.floats(), lambda i: st.lists(i) | st.dictionaries(st.text(), i)
    )
)
def test_what_is_no_value_is_refused(message):
    with suppress(wire.Closed):
        wire.decode(message, int)


@pytest.mark.parametrize(
    "value",
    ["x" * wire.LARGEST, bytes(wire.LARGEST // 2), bytearray(wire.LARGEST), 1 << 4 * wire.LARGEST, [None] * wire.LARGEST,
     [["x" * 10**6]] * 50, {1: 2, 3: ("x" * 10**7,) * 4}, dict.fromkeys(range(wire.LARGEST // 12))],
    ids=["text", "bytes", "bytearray", "int", "list", "nested", "dict of tuples", "dict"],
)  # fmt: skip
def test_what_is_too_large_is_refused_before_it_is_encoded(value, monkeypatch):
    """No part of it is made: neither JSON of it nor as many items as it has."""
    monkeypatch.setattr(wire.json, "dumps", None)
    with pytest.raises(ValueError, match=wire.TOO_LARGE):
        wire.encode(value, None)


def test_sqlite_keeps_a_file():
    program = (
        "import sqlite3\ndef f(x):\n    with sqlite3.connect('a.db') as base:\n        base.execute('create table t(a)')\n"
        "        base.execute('insert into t values(?)', (x,))\n        return base.execute('select a from t').fetchone()[0]\n"
    )
    verdict = run(Job(program, ("assert f(2) == 2",), {"f": "f"}))
    if "bounded files" not in verdict.layers:
        pytest.skip("without files of its own a program takes no locks")
    assert verdict == Verdict(True)
