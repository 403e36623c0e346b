"""What every task promises."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from itertools import islice, pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.protocols import MASK, Example

from mdm_testing.kit import NotApplicable, Subject, check, one_line
from mdm_testing.samplers import refuses_unknown_names

COUNT = 6
"""Examples looked at."""

GARBAGE = ("", " ", "no", "\x00\ufffd🧩", "((((", "-" * 5000)
SIZES = ((16, 16), (1, 1), (64, 2))
"""Width and height in pixels of the pictures of nothing that a task of pictures is given."""


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
    """Each example has a prompt in the style of chats or in the compact one, with something to generate."""
    examples = _examples(of)
    with _task(of) as task:
        _check_prompts(task, examples)


def _check_prompts(task: Any, examples: Sequence[Example]) -> None:
    for example in examples:
        styles = 0
        for style in ("chat", "compact"):
            try:
                prompt = task.prompt(example, style)
            except MdmError:
                continue  # a task may be for one kind of model only
            styles += 1
            assert prompt == task.prompt(example, style), f"{example.id}: the {style} prompt changes"
            assert prompt.kind == task.answers, f"{example.id}: asks for a {prompt.kind}, and answers is {task.answers}"
            if prompt.kind == "image":
                assert isinstance(prompt.context, str), f"{example.id}: what a picture shows is said in a plain text"
                continue
            assert prompt.gen_length > 0 or MASK in prompt.answer, f"{example.id}: nothing to decode in {style} style"
        assert styles, f"{example.id}: no prompt in any style"


@check("task")
def the_reference_is_right(of: Subject) -> None:
    """The reference of each example has the full metric."""
    _needs_texts(of)
    examples = _examples(of)
    with _task(of) as task:
        for example in examples:
            _needs_reference(example)
            grade = _grade(task, example, example.reference)
            assert grade == 1.0, f"{example.id}: its own reference {example.reference!r} is graded {grade}"


@check("task")
def garbage_is_wrong(of: Subject) -> None:
    """Strange completions, and pictures of nothing, are graded without an error, and not as right."""
    examples = _examples(of)[:2]
    with _task(of) as task, _answers(task, GARBAGE) as answers:
        for example in examples:
            for answer in answers:
                grade = _grade(task, example, answer)
                assert grade < 1.0, f"{example.id}: {_shown(answer)} is graded as right"


@check("task")
def another_answer_is_wrong(of: Subject) -> None:
    """The references of other examples are mostly wrong."""
    _needs_texts(of)
    examples = _examples(of)
    pairs = [(a, b.reference) for a, b in pairwise(examples) if a.reference != b.reference]
    if not pairs:
        raise NotApplicable("its examples have no references that differ")
    _needs_reference(examples[0])
    with _task(of) as task:
        right = [a.id for a, other in pairs if _grade(task, a, other) == 1.0]
    assert len(right) * 2 < len(pairs), f"graded as right with another example's reference: {', '.join(right)}"


@check("task")
def grades_are_a_pure_function(of: Subject) -> None:
    """The same answer has the same grades, finite numbers, of which one is the task's metric."""
    examples = _examples(of)[:2]
    with _task(of) as task, _task(of) as again:
        for example in examples:
            with _answers(task, (example.reference, "42")) as answers:
                for answer in answers:
                    grades = _grades(task, example, answer)
                    endless = {name: value for name, value in grades.items() if not isfinite(float(value))}
                    assert not endless, f"{example.id}: grades that are not finite: {endless}"
                    assert grades == _grades(again, example, answer), (
                        f"{example.id}: {_shown(answer)} is graded otherwise again"
                    )


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
        with _task(of) as task:
            examples = list(islice(task.examples(seed=0, data=path), 1))
    except MdmError as error:
        assert name in str(error), f"its error does not name {name}: {error}"
        assert "\n" not in str(error), f"its error is more than one line: {error}"
        return
    raise AssertionError(f"it accepts {name}, and gives {examples}")


def _examples(of: Subject) -> list[Example]:
    try:
        with _task(of) as task:
            return list(islice(task.examples(seed=3, data=of.data), COUNT))
    except MdmError as error:
        if of.data is None:
            raise NotApplicable(f"no examples without --data: {error}") from error
        raise


def _needs_reference(example: Example) -> None:
    if not example.reference:
        raise NotApplicable("its examples have no reference")


def _needs_texts(of: Subject) -> None:
    if of.plugin.answers != "text":
        raise NotApplicable("it asks for pictures, which have no reference")


@contextmanager
def _task(of: Subject) -> Iterator[Any]:
    """A new instance, closed in the end."""
    try:
        task = of.make()
    except MdmError as error:  # what it grades with may not be on this machine
        raise NotApplicable(f"it cannot be made here: {error}") from error
    with closing(task):
        yield task


@contextmanager
def _answers(task: Any, texts: Sequence[str]) -> Iterator[Sequence[str | Path]]:
    """The texts, or for a task of pictures some files with pictures of nothing."""
    if task.answers == "text":
        yield texts
        return
    try:
        from PIL import Image
    except ImportError:
        raise NotApplicable("pictures to grade need Pillow: pip install pillow") from None
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{width}x{height}.png" for width, height in SIZES]
        for file, size in zip(files, SIZES, strict=True):
            Image.new("RGB", size, (128, 128, 128)).save(file)
        yield files


def _shown(answer: str | Path) -> str:
    return repr(answer[:20]) if isinstance(answer, str) else f"a grey picture, {answer.name},"


def _grade(task: Any, example: Example, answer: str | Path) -> float:
    return _grades(task, example, answer)[task.metric]


def _grades(task: Any, example: Example, answer: str | Path) -> dict[str, float]:
    if task.executes_code:
        raise NotApplicable("it runs generated code: `mdm run --allow-code-execution` grades it")
    try:
        grades = task.grade(example, answer) if isinstance(answer, str) else task.grade_image(example, answer)
        if isinstance(grades, Future):
            grades = grades.result(timeout=60)
    except Exception as error:
        raise AssertionError(f"{example.id}: grading {_shown(answer)} raises {one_line(error)}") from error
    if not grades and task.answers == "image":
        raise NotApplicable("it leaves pictures without grades, or its options do")
    assert task.metric in grades, f"grade gives {', '.join(grades)}, and no {task.metric!r}"
    return {name: float(value) for name, value in grades.items()}
