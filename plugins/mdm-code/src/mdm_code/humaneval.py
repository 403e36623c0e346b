"""HumanEval (Chen et al. 2021, arXiv:2107.03374): complete a function from its signature and docstring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from mdm.data import HubData, read, read_hub
from mdm.protocols import Example, Message, Prompt, PromptStyle
from pydantic import BaseModel, Field

from mdm_code.pool import Grades
from mdm_code.sandbox import Job
from mdm_code.task import CodeOptions, CodeTask, code, defines

INSTRUCTION = (
    "Complete the following Python function. Write the whole function in one code block, and nothing after it.\n\n"
    "```python\n{}```"
)
GEN_LENGTH = 256


class HumanEvalOptions(CodeOptions):
    """Where the problems come from, and the limits of the sandbox."""

    begin: bool = Field(True, description="write the signature and docstring at the start of a chat model's answer")
    revision: str = Field("7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544", description="commit of openai/openai_humaneval")


class Row(BaseModel):
    """A problem as it is published."""

    task_id: str
    prompt: str = Field(min_length=1)
    entry_point: str = Field(pattern=r"^\w+$")
    canonical_solution: str
    test: str = Field(min_length=1)


class HumanEval(CodeTask):
    """HumanEval: 164 functions to complete. Right is a program that passes the published tests in the sandbox."""

    Options: ClassVar[type[BaseModel]] = HumanEvalOptions

    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        source = HubData("openai/openai_humaneval", "test", self.options.revision)
        for _, row in read_hub(source, Row) if data is None else read(data, Row):
            inputs = {"prompt": row.prompt, "entry_point": row.entry_point, "test": row.test}
            yield Example(row.task_id, inputs, row.canonical_solution)

    def prompt(self, example: Example, style: PromptStyle) -> Prompt:
        given: str = example.inputs["prompt"]
        if style == "compact":
            return Prompt(given, gen_length=GEN_LENGTH)
        ask = (Message("user", INSTRUCTION.format(given)),)
        return Prompt(ask, f"```python\n{given}" if self.options.begin else "", GEN_LENGTH)

    def grade(self, example: Example, completion: str) -> Grades:
        """``passed``: the published tests pass. The completion may be the body, the function, or a fenced block."""
        given, name = example.inputs["prompt"], example.inputs["entry_point"]
        written = code(completion, name)
        # The given part comes first in either case: it has the imports, and helpers that the tests call.
        program = f"{given}\n{written}" if defines(written, name) else given + written
        tests = (example.inputs["test"], f"check({name})")
        return self.judge(Job(program, tests, {name: name}, prelude=given))
