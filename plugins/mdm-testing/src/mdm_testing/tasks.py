"""What every task promises."""

from __future__ import annotations

import random
import tempfile
from concurrent.futures import Future
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.protocols import MASK, Example

from mdm_testing.kit import NotApplicable, Subject, check, one_line
from mdm_testing.samplers import refuses_unknown_names

COUNT = 6
"""Examples looked at."""

GARBAGE = ("", " ", "no", "\x00\ufffd🧩", "((((", "-" * 5000)


@check("task")
def options_refuse_unknown_names(of: Subject) -> None:
    """Options is a pydantic model with defaults that forbids names it does not know."""
    refuses_unknown_names(of)


@check("task")
def examples_are_a_pure_function_of_the_seed(of: Subject) -> None:
    """The same seed gives the same examples in the same order, and no global generator is moved."""
    before = random.getstate()
    first, again = _examples(of), _examples(of)
    assert first == again, "the same seed gives other examples"
    assert before == random.getstate(), "draws from random's global generator: use random.Random(seed)"


@check("task")
def ids_are_unique(of: Subject) -> None:
    """No two examples have one id."""
    ids = [example.id for example in _examples(of)]
    assert len(set(ids)) == len(ids), f"ids repeat: {ids}"


@check("task")
def a_prompt_leaves_something_to_decode(of: Subject) -> None:
    """Each example has a prompt in the style of chats or in the compact one, with masks or a length to generate."""
    task = of.make()
    for example in _examples(of):
        styles = 0
        for style in ("chat", "compact"):
            try:
                prompt = task.prompt(example, style)
            except MdmError:
                continue  # a task may be for one kind of model only
            styles += 1
            assert prompt == task.prompt(example, style), f"{example.id}: the {style} prompt changes"
            assert prompt.gen_length > 0 or MASK in prompt.answer, f"{example.id}: nothing to decode in {style} style"
        assert styles, f"{example.id}: no prompt in any style"


@check("task")
def the_reference_is_right(of: Subject) -> None:
    """The reference of each example has the full metric."""
    for example in _examples(of):
        _needs_reference(example)
        grade = _grade(of, example, example.reference)
        assert grade == 1.0, f"{example.id}: its own reference {example.reference!r} is graded {grade}"


@check("task")
def garbage_is_wrong(of: Subject) -> None:
    """Strange completions are graded without an error, and not as right."""
    for example in _examples(of)[:2]:
        for text in GARBAGE:
            grade = _grade(of, example, text)
            assert grade < 1.0, f"{example.id}: {text[:20]!r} is graded as right"


@check("task")
def another_answer_is_wrong(of: Subject) -> None:
    """The references of other examples are mostly wrong."""
    examples = _examples(of)
    pairs = [(a, b.reference) for a, b in pairwise(examples) if a.reference != b.reference]
    if not pairs:
        raise NotApplicable("its examples have no references that differ")
    _needs_reference(examples[0])
    right = [a.id for a, other in pairs if _grade(of, a, other) == 1.0]
    assert len(right) * 2 < len(pairs), f"graded as right with another example's reference: {', '.join(right)}"


@check("task")
def grades_are_a_pure_function(of: Subject) -> None:
    """The same completion has the same grades, numbers in [0, 1], of which one is the task's metric."""
    task = of.make()
    for example in _examples(of)[:2]:
        for text in (example.reference, "42"):
            grades = _grades(task, example, text)
            assert of.plugin.metric in grades, f"grade gives {', '.join(grades)}, and no {of.plugin.metric!r}"
            outside = {name: value for name, value in grades.items() if not 0 <= float(value) <= 1}
            assert not outside, f"{example.id}: grades outside of [0, 1]: {outside}"
            assert grades == _grades(of.make(), example, text), f"{example.id}: {text[:20]!r} is graded otherwise again"


@check("task")
def a_missing_file_is_one_line(of: Subject) -> None:
    """Asked for a file that is not there, it says so in one line that names it."""
    with tempfile.TemporaryDirectory() as folder:
        _refused(of, Path(folder) / "absent.jsonl", "absent.jsonl")


@check("task")
def a_broken_file_is_one_line(of: Subject) -> None:
    """Given a file of broken lines, it names the file and the line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "broken.jsonl"
        path.write_text('{"no such field": 1}\n')
        _refused(of, path, "broken.jsonl")


def _refused(of: Subject, path: Path, name: str) -> None:
    try:
        examples = list(islice(of.make().examples(seed=0, data=path), 1))
    except MdmError as error:
        assert name in str(error), f"its error does not name {name}: {error}"
        assert "\n" not in str(error), f"its error is more than one line: {error}"
        return
    raise AssertionError(f"it accepts {name}, and gives {examples}")


def _examples(of: Subject) -> list[Example]:
    try:
        return list(islice(of.make().examples(seed=3, data=of.data), COUNT))
    except MdmError as error:
        if of.data is None:
            raise NotApplicable(f"no examples without --data: {error}") from error
        raise


def _needs_reference(example: Example) -> None:
    if not example.reference:
        raise NotApplicable("its examples have no reference")


def _grade(of: Subject, example: Example, completion: str) -> float:
    grades = _grades(of.make(), example, completion)
    assert of.plugin.metric in grades, f"grade gives {', '.join(grades)}, and no {of.plugin.metric!r}"
    return grades[of.plugin.metric]


def _grades(task: Any, example: Example, completion: str) -> dict[str, float]:
    if task.executes_code:
        raise NotApplicable("it runs generated code: `mdm run --allow-code-execution` grades it")
    try:
        grades = task.grade(example, completion)
        if isinstance(grades, Future):
            grades = grades.result(timeout=60)
    except Exception as error:
        raise AssertionError(f"{example.id}: grading {completion[:20]!r} raises {one_line(error)}") from error
    return {name: float(value) for name, value in grades.items()}
