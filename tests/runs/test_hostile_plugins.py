"""Graders, hooks, tasks and samplers that raise, lie or end the program: nothing decoded is lost, nothing is unsaid."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from fractions import Fraction

import pytest
from mdm.cli import main
from mdm.errors import MdmError, describe
from mdm.runs import run as runs
from mdm.runs.watch import RunObserver
from mdm_report.regrade import regrade
from stand_in_engine import engine as engine, lines, make

SOURCE = """
    from mdm.protocols import BaseTask, Example, Prompt, hookimpl

    def do(name, *args):
        return globals()[name](*args) if name in globals() else None

    class Task(BaseTask):
        metric, default_limit = "right", 6
        def __init__(self, options):
            super().__init__(options)
            do("BEGIN")
        def examples(self, *, seed, data=None):
            for i in range(6):
                odd = do("EXAMPLE", i)
                yield Example(f"e{i}", {"n": i}, "x") if odd is None else odd
        def prompt(self, example, style):
            if "PROMPT" in globals():
                return do("PROMPT", example)
            return Prompt("say x:", "", 2)
        def grade(self, example, completion):
            return GRADE(example) if example.id == "e2" else {"right": 1.0}
        def aggregate(self, grades):
            return do("AGGREGATE", grades) or {}
        def close(self):
            do("CLOSE")

    @hookimpl
    def on_finish(example):
        do("FINISHED", example)

    @hookimpl
    def on_step(event):
        do("STEPPED", event)
"""


class Wordless(Exception):
    def __str__(self):
        raise ValueError("no words")


class Ending(BaseException):
    """Neither an Exception nor SystemExit."""


def shown(value: object) -> str:
    """A case's name, the same in every process."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))


class Torn(Mapping):
    def __getitem__(self, name):
        raise OSError("torn")

    def __iter__(self):
        raise OSError("torn")

    def __len__(self):
        return 1


class Endless(Mapping):
    def __getitem__(self, name):
        return 1.0

    def __iter__(self):
        return map(str, range(10**12))

    def __len__(self):
        return 1


class Heavy:
    def __float__(self):
        raise MemoryError("heavy")


def raising(error):
    def grade(*example):
        raise error

    return grade


def future(result=None, error=None, cancelled=False):
    def grade(example):
        given = Future()
        if cancelled:
            given.cancel()
        elif error is not None:
            given.set_exception(error)
        else:
            given.set_result(result)
        return given

    return grade


ODD = {
    "a lone surrogate": raising(ValueError("\ud800")),
    "no words": raising(Wordless()),
    "a very long message": raising(ValueError("x" * 10**7)),
    "lines and escapes": raising(ValueError("a\n\x1b[2J\0b")),
    "StopIteration": raising(StopIteration("x")),
    "StopAsyncIteration": raising(StopAsyncIteration()),
    "RecursionError": raising(RecursionError("deep")),
    "MemoryError": raising(MemoryError()),
    "MdmError": raising(MdmError("mine")),
    "KeyError of an object": raising(KeyError(object())),
    "an exception group": raising(ExceptionGroup("many", [ValueError("one")])),
    "UnicodeEncodeError": lambda example: "\udcff".encode(),
    "None": lambda example: None,
    "a number": lambda example: 1.0,
    "a list": lambda example: [("right", 1.0)],
    "a text": lambda example: "right",
    "a class": lambda example: dict,
    "a torn mapping": lambda example: Torn(),
    "an endless mapping": lambda example: Endless(),
    "a name that is a number": lambda example: {1: 1.0},
    "a name that is None": lambda example: {None: 1.0, "right": 1.0},
    "a name that is bytes": lambda example: {b"right": 1.0},
    "a text for a number": lambda example: {"right": "1.0"},
    "bytes for a number": lambda example: {"right": b"1"},
    "None for a number": lambda example: {"right": None},
    "a list for a number": lambda example: {"right": [1.0]},
    "a complex number": lambda example: {"right": 1j},
    "NaN": lambda example: {"right": math.nan},
    "NaN beside the grade": lambda example: {"right": 1.0, "other": math.nan},
    "infinity": lambda example: {"right": math.inf},
    "minus infinity": lambda example: {"right": -math.inf},
    "a huge whole number": lambda example: {"right": 10**400},
    "a huge number": lambda example: {"right": 1.7e308},
    "a heavy number": lambda example: {"right": Heavy()},
    "a cancelled future": future(cancelled=True),
    "a future of NaN": future({"right": math.nan}),
    "a future of None": future(),
    "a future of a surrogate": future(error=ValueError("\udc80")),
    "a future of a future": future(Future()),
}
ENDS = {
    "sys.exit(0)": SystemExit(0), "sys.exit()": SystemExit(), "sys.exit(text)": SystemExit("bye"),
    "sys.exit(77)": SystemExit(77), "GeneratorExit": GeneratorExit(), "a BaseException": Ending("over"),
    "a group of those": BaseExceptionGroup("many", [SystemExit(0)]),
}  # fmt: skip
OF_ALL_ENDS = pytest.mark.parametrize(
    "end", [pytest.param(end, marks=[] if i in (0, 5) else pytest.mark.wide) for i, end in enumerate(ENDS)]
)


@pytest.fixture
def hostile(engine, site):
    """Sets what the package's task and hooks do."""
    site.package("hostile", {"mdm.tasks": {"odd": "hostile:Task"}, "mdm.hooks": {"odd": "hostile"}}, SOURCE)
    sys.modules.pop("hostile", None)
    import hostile as module

    module.GRADE = lambda example: {"right": 1.0}
    yield module
    sys.modules.pop("hostile", None)


def mdm(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(args)
    return stop.value.code, *capsys.readouterr()


def strict(path):
    """The records of JSON lines, none of which holds what JSON has not."""
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


@pytest.mark.attack("runs: grades")
@pytest.mark.parametrize("trick", ODD)
def test_an_odd_grade_is_its_examples_error(hostile, tmp_path, trick):
    hostile.GRADE = ODD[trick]
    summary = runs.run(make(task="odd", batch_size=2), tmp_path)
    assert (summary["runs"][0]["examples"], summary["runs"][0]["errors"], summary["complete"]) == (6, 1, True)
    assert summary["runs"][0]["accuracy"] == pytest.approx(5 / 6)
    written = {line["id"]: line for line in strict(tmp_path / "results.jsonl")}
    assert len(written) == 6 and written["e2"]["metrics"] == {} and 3 < len(written["e2"]["error"]) < 3000
    assert json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail) == summary
    assert runs.run(make(task="odd", batch_size=2), tmp_path) == summary  # read again
    if trick.startswith("a future"):
        assert regrade(tmp_path, everything=True)["runs"][0]["errors"] == 1


@pytest.mark.attack("runs: grades")
@pytest.mark.parametrize("given", [True, 1, Fraction(1, 2), -3.5, 1e99, 0.5], ids=shown)
def test_any_finite_number_is_a_grade(hostile, tmp_path, given):
    hostile.GRADE = lambda example: {"right": given}
    summary = runs.run(make(task="odd"), tmp_path)
    assert summary["runs"][0]["errors"] == 0 and summary["runs"][0]["accuracy"] == pytest.approx((5 + float(given)) / 6)
    assert summary["runs"][0]["is_share"] == (0 <= given <= 1)
    low, high = summary["runs"][0]["accuracy_ci95"]
    assert low <= summary["runs"][0]["accuracy"] <= high


@pytest.mark.attack("runs: SystemExit")
@pytest.mark.parametrize("where", ["grade", "a future", "on_finish", "on_step", "a sampler", "aggregate", "close"])
@OF_ALL_ENDS
def test_a_plugin_that_ends_the_program_is_an_error_of_one_line(hostile, engine, tmp_path, capsys, end, where):
    error = ENDS[end]
    if where == "grade":
        hostile.GRADE = raising(error)
    elif where == "a future":
        hostile.GRADE = future(error=error)
    elif where == "on_finish":
        hostile.FINISHED = lambda example: example.id == "e2" and raising(error)(example)
    elif where == "on_step":
        hostile.STEPPED = lambda event: event.lines[0]["row"] == 2 and raising(error)(event)
    elif where == "a sampler":
        engine.cannot = {2: error}
    else:
        setattr(hostile, where.upper(), raising(error))
    out = tmp_path / "out"
    code, _, errors = mdm(capsys, "run", "--sampler", "one", "--task", "odd", "--out", str(out))
    assert code in (1, 2) and errors.count("mdm: ") == 1 and describe(error).split(":")[0] in errors
    assert "Traceback" not in errors and len(errors.splitlines()) <= 2
    whole = where in ("aggregate", "close")
    decoded = {line["id"] for line in strict(out / "results.jsonl")}
    assert decoded >= ({f"e{i}" for i in range(6)} if whole else {"e3", "e4", "e5"})  # the last come first
    if where != "aggregate":
        assert json.loads((out / "summary.json").read_text())["complete"] == whole
    for name in ("FINISHED", "STEPPED", "AGGREGATE", "CLOSE"):
        vars(hostile).pop(name, None)
    hostile.GRADE, engine.cannot = lambda example: {"right": 1.0}, {}
    code, text, errors = mdm(capsys, "run", "--sampler", "one", "--task", "odd", "--out", str(out), "--json")
    assert (code, json.loads(text)["complete"]) == (0, True)
    assert sorted(line["row"] for line in strict(out / "results.jsonl")) == list(range(6))


@pytest.mark.attack("runs: tasks that raise")
@pytest.mark.parametrize(
    "error", [ValueError("\ud800\x1b"), Wordless(), StopIteration(), SystemExit(0), Ending()], ids=ascii
)
@pytest.mark.parametrize("where", ["BEGIN", "EXAMPLE", "PROMPT", "AGGREGATE", "CLOSE"])
def test_a_task_that_raises_is_one_line(hostile, tmp_path, capsys, where, error):
    setattr(hostile, where, raising(error))
    out = tmp_path / "out"
    code, _, errors = mdm(capsys, "run", "--sampler", "one", "--task", "odd", "--out", str(out))
    assert code == 2 and errors.startswith("mdm: ") and len(errors.splitlines()) == 1 and "odd" in errors
    assert type(error).__name__ in errors or isinstance(error, StopIteration)
    assert out.exists() == (where in ("AGGREGATE", "CLOSE"))  # a run that never began leaves nothing


@pytest.mark.attack("runs: tasks of wrong types")
@pytest.mark.parametrize("given", [1, "e0", ("e0", {}, "x"), object, {"id": "e0"}], ids=shown)
@pytest.mark.parametrize("where", ["EXAMPLE", "PROMPT"])
def test_what_is_no_example_and_no_prompt_is_one_line(hostile, tmp_path, where, given):
    setattr(hostile, where, lambda _: given)
    with pytest.raises(MdmError, match="is no (Example|Prompt)"):
        runs.run(make(task="odd"), tmp_path / "out")


@pytest.mark.attack("runs: examples")
@pytest.mark.parametrize(
    ("id", "inputs"),
    [(None, {}), (1, {}), (b"x", {}), ("x", None), ("x", 5), ("x", {1: 2, "a": 3})],
    ids=["no id", "a number", "bytes", "no inputs", "inputs of a number", "keys of two types"],
)
def test_an_example_without_id_or_inputs_is_one_line(hostile, tmp_path, id, inputs):
    from mdm.protocols import Example

    hostile.EXAMPLE = lambda i: Example(id, inputs, "x") if i == 3 else None
    with pytest.raises(MdmError, match="task 'odd'(:|, example)"):
        runs.run(make(task="odd"), tmp_path / "out")


@pytest.mark.attack("runs: examples")
@pytest.mark.parametrize("id", ["", "a\nb", "x" * 10**5, "../../x", "é\u202e"], ids=ascii)
def test_an_odd_id_is_kept(hostile, tmp_path, id):
    from mdm.protocols import Example

    hostile.EXAMPLE = lambda i: Example(id, {"n": math.nan}, "\udfff") if i == 3 else None
    summary = runs.run(make(task="odd"), tmp_path)
    assert summary["complete"] and runs.run(make(task="odd"), tmp_path) == summary
    assert len(strict(tmp_path / "results.jsonl")) == 6


@pytest.mark.attack("runs: aggregates")
@pytest.mark.parametrize("given", [{"x": math.nan}, {"x": math.inf}, {1: 2.0}, {"x": "1"}, 5, [1], Torn()], ids=shown)
def test_an_odd_aggregate_is_one_line_and_keeps_the_results(hostile, tmp_path, given):
    hostile.AGGREGATE = lambda grades: given
    with pytest.raises(MdmError, match="odd cannot aggregate its grades: "):
        runs.run(make(task="odd"), tmp_path)
    assert len(strict(tmp_path / "results.jsonl")) == 6


@pytest.mark.attack("runs: recording")
@pytest.mark.parametrize("method", ["shown_texts", "decode"])
@pytest.mark.parametrize("error", [ValueError("\ud800"), KeyError(3), OverflowError(), StopIteration()], ids=shown)
def test_a_text_that_cannot_be_made_is_its_examples_error(hostile, engine, tmp_path, method, error):
    of_letters, engine.model = getattr(engine.model, method), type(engine.model)()
    calls = []

    def fails_once(ids, *args, **more):
        calls.append(ids)
        if len(ids) == (1 if method == "shown_texts" else 2) and len([c for c in calls if len(c) == len(ids)]) == 2:
            raise error
        return of_letters(ids, *args, **more)

    setattr(engine.model, method, fails_once)
    summary = runs.run(make(task="odd"), tmp_path)
    assert (summary["runs"][0]["examples"], summary["runs"][0]["errors"], summary["complete"]) == (6, 1, True)
    assert len(strict(tmp_path / "results.jsonl")) == 6


@pytest.mark.attack("runs: NaN")
@pytest.mark.parametrize("entropy", [math.nan, math.inf])
def test_an_entropy_that_is_no_number_is_said_and_is_null_in_files(hostile, engine, tmp_path, capsys, entropy):
    decode = engine.decode

    def odd(*args, on_finish, **settings):
        def finish(index, result):
            result.cumulative_entropy = entropy if index == 2 else 0.5
            on_finish(index, result)

        return decode(*args, on_finish=finish, **settings)

    engine.decode = odd
    args = ["run", "--sampler", "one", "--task", "odd", "--out", str(tmp_path / "out")]
    for again in range(2):
        code, text, errors = mdm(capsys, *args)
        assert code == 0 and "NaN" in text and "leaves no mean" in text, again
    code, text, _ = mdm(capsys, *args, "--json")
    assert json.loads(text, parse_constant=pytest.fail)["runs"][0]["cumulative_entropy"] is None
    strict(tmp_path / "out" / "results.jsonl")
    code, text, errors = mdm(capsys, "grade", str(tmp_path / "out"))
    assert code == 0 and "nothing" in errors and "NaN" in text


@pytest.mark.attack("runs: observers")
@OF_ALL_ENDS
def test_an_observer_that_ends_the_program_is_named(engine, tmp_path, end):
    class Watcher(RunObserver):
        def on_progress(self, *args):
            if args[1] == 3:
                raise ENDS[end]

    with pytest.raises(MdmError, match="the observer Watcher failed in on_progress: "):
        runs.run(make(), tmp_path, Watcher())
    assert (
        len(lines(tmp_path / "results.jsonl")) == 3
        and not json.loads((tmp_path / "summary.json").read_text())["complete"]
    )


@pytest.mark.attack("runs: SystemExit")
@OF_ALL_ENDS
def test_a_command_that_something_ends_is_a_line_and_an_exit_code_of_ours(site, capsys, end):
    source = """
        import click
        @click.command()
        def ending():
            raise ERROR
    """
    site.package("ending", {"mdm.commands": {"ending": "ending:ending"}}, source)
    sys.modules.pop("ending", None)
    import ending

    ending.ERROR = ENDS[end]
    code, text, errors = mdm(capsys, "ending")
    assert (code, text) == (2, "") and "of package ending" in errors and len(errors.splitlines()) == 1
