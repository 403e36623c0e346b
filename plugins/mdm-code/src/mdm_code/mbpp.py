"""MBPP (Austin et al. 2021, arXiv:2108.07732): write a function from one sentence and three tests."""

from __future__ import annotations

import ast
import builtins
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from mdm.data import HubData, read, read_hub
from mdm.errors import MdmError
from mdm.protocols import Example, Message, Prompt, PromptStyle
from pydantic import AliasChoices, BaseModel, Field

from mdm_code.pool import Grades
from mdm_code.programs import program
from mdm_code.sandbox import Job
from mdm_code.task import CodeOptions, CodeTask

INSTRUCTION = (
    "You are an expert Python programmer, and here is your task: {text} "
    "Your code should pass these tests:\n\n{tests}\n\nAnswer with one Python code block."
)
SHOTS = (
    (
        "Write a function to count how often a word occurs in a text, whatever the case.",
        ('assert count_word("To be or not to be", "be") == 2', 'assert count_word("", "be") == 0',
         'assert count_word("Be be BE", "be") == 3'),
        "def count_word(text, word):\n    return text.lower().split().count(word.lower())\n",
    ),
    (
        "Write a function to find the largest gap between neighbours of a list of numbers.",
        ("assert largest_gap([1, 4, 6]) == 3", "assert largest_gap([9, 2, 5]) == 7", "assert largest_gap([3]) == 0"),
        "def largest_gap(numbers):\n    return max((abs(a - b) for a, b in zip(numbers, numbers[1:])), default=0)\n",
    ),
    (
        "Write a function to sum the digits of a natural number.",
        ("assert digit_sum(123) == 6", "assert digit_sum(0) == 0", "assert digit_sum(9999) == 36"),
        "def digit_sum(n):\n    return sum(int(digit) for digit in str(n))\n",
    ),
)  # fmt: skip
GEN_LENGTH = 256


class MbppOptions(CodeOptions):
    """Where the problems come from, how they are put, and the limits of the sandbox."""

    shots: int = Field(3, ge=0, le=3, description="solved examples (ours, not the published ones) before the problem")
    split: Literal["train", "validation", "test", "prompt"] = Field("test", description="split, where it is the hub's")
    revision: str = Field(
        "4bb6404fdc6cacfda99d4ac4205087b89d32030c", description="commit of google-research-datasets/mbpp"
    )


class Row(BaseModel):
    """A problem as it is published, in the full or the sanitized form."""

    task_id: int
    text: str = Field(validation_alias=AliasChoices("text", "prompt"), min_length=1)
    code: str
    test_list: list[str] = Field(min_length=1)
    test_setup_code: str = ""
    test_imports: list[str] = []


class Mbpp(CodeTask):
    """MBPP: 974 short functions. Right is a program that passes the problem's tests in the sandbox."""

    Options: ClassVar[type[BaseModel]] = MbppOptions

    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        source = HubData("google-research-datasets/mbpp", self.options.split, self.options.revision, "full")
        for number, row in read_hub(source, Row) if data is None else read(data, Row):
            try:
                names, imports = interface([row.test_setup_code, *row.test_list], row.code)
            except SyntaxError as error:
                where = data or source.name
                raise MdmError(f"{where}, line {number}: field 'test_list': not Python ({error.msg})") from None
            inputs = {
                "text": row.text, "tests": row.test_list, "setup": row.test_setup_code, "names": names,
                "imports": "\n".join([imports, *row.test_imports]),
            }  # fmt: skip
            yield Example(f"MBPP/{row.task_id}", inputs, row.code)

    def prompt(self, example: Example, style: PromptStyle) -> Prompt:
        shots = SHOTS[: self.options.shots]
        ask = _ask(example.inputs["text"], example.inputs["tests"])
        if style == "compact":
            solved = "".join(f"{_ask(text, tests)}\n```python\n{answer}```\n\n" for text, tests, answer in shots)
            return Prompt(f"{solved}{ask}\n```python\n", gen_length=GEN_LENGTH)
        turns: list[Message] = []
        for text, tests, answer in shots:
            turns += [Message("user", _ask(text, tests)), Message("assistant", f"```python\n{answer}```")]
        return Prompt((*turns, Message("user", ask)), "```python\n", GEN_LENGTH)

    def grade(self, example: Example, completion: str) -> Grades:
        """``passed``: the problem's tests pass after its own setup with the program that ``programs`` finds.
        ``published``: they pass with the text between [BEGIN] and [DONE], or in the fence that our prompt opened."""
        names: list[str] = example.inputs["names"]
        tests = (example.inputs["setup"], *example.inputs["tests"])
        imports: str = example.inputs["imports"]
        job = Job(program(completion, names), tests, {name: name for name in names}, imports)
        between = completion.split("[BEGIN]", 1)[-1].split("[DONE]", 1)[0].removeprefix("```python\n")
        return self.judge(job, between.split("\n```", 1)[0])


def interface(sources: list[str], reference: str) -> tuple[list[str], str]:
    """The names that tests expect of a program, the one it defines in front; and the imports that they share with it.

    What tests import from the library with the reference's help is no part of the program: a program may not bring
    its own ``isclose``.

    Raises:
        SyntaxError: the tests are not Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # published code with escapes that a later Python frowns upon
        names = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
        try:
            body = ast.parse(reference).body
        except SyntaxError:
            body = []
    defined = {getattr(node, "name", None) for node in body}
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}
    known = {*dir(builtins)} - defined | imported | {node.id for node in names if isinstance(node.ctx, ast.Store)}
    used = dict.fromkeys(node.id for node in names if node.id not in known)
    shared = "\n".join(map(ast.unparse, imports)) if imported & {node.id for node in names} else ""
    return sorted(used, key=lambda name: name not in defined), shared


def _ask(text: str, tests: Any) -> str:
    return INSTRUCTION.format(text=text, tests="\n".join(tests))
