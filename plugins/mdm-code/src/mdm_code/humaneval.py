"""HumanEval (Chen et al. 2021, arXiv:2107.03374): complete a function from its signature and docstring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from mdm.data import HubData, read, read_hub
from mdm.protocols import Example, Message, Prompt, PromptStyle
from pydantic import BaseModel, Field

from mdm_code.pool import Grades
from mdm_code.programs import program
from mdm_code.sandbox import Job
from mdm_code.task import CodeOptions, CodeTask

INSTRUCTION = (
    "Complete the following Python function. Write the whole function in one code block, and nothing after it.\n\n"
    "```python\n{}```"
)
FENCE = "```python\n"
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Where Chen et al. end a completion."""
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
        return Prompt(ask, FENCE + given if self.options.begin else "", GEN_LENGTH)

    def grade(self, example: Example, completion: str) -> Grades:
        """``passed``: the tests pass with the body, the function or the blocks that ``programs`` finds. ``published``:
        they pass with the given part and what follows it up to the published stop strings, as it stands."""
        given, name = example.inputs["prompt"], example.inputs["entry_point"]
        tests = (example.inputs["test"], f"check({name})")
        job = Job(program(completion, [name], given), tests, {name: name}, prelude=given)
        return self.judge(job, given + _until(completion, FENCE + given))


def _until(completion: str, begun: str) -> str:
    """The completion up to the first stop string of Chen et al.; a fence that the prompt has opened closes it too."""
    stops = (*STOPS, "```") if completion.startswith(begun) else STOPS
    completion = completion.removeprefix(begun)
    return completion[: min((at for stop in stops if (at := completion.find(stop)) >= 0), default=None)]
