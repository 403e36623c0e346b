"""GPQA (Rein et al. 2023, arXiv:2311.12022): four choices, shuffled by the seed."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from mdm.data import HubData, read, read_hub
from mdm.protocols import BaseTask, Example, Message, NoOptions, Prompt, PromptStyle
from pydantic import BaseModel, Field

LETTERS = "ABCD"
GEN_LENGTH = 256
INSTRUCTION = (
    "Answer the multiple-choice question. Think step by step and end with 'The answer is (X)', "
    "where X is A, B, C or D.\n\nQuestion: {question}\nChoices:\n{choices}"
)
STATED = (r"(?i:answer\s*(?:is|:))[\s*:]*(?:\\boxed\{)?\(?([A-D])\b", r"\\boxed\{\(?([A-D])\)?\}")
"""How a completion says what its answer is."""
MENTIONED = (r"\(([A-D])\)", r"^\W*([A-D])\W*$")
"""How it names a choice."""


class GpqaOptions(NoOptions):
    """Which questions are asked."""

    subset: Literal["diamond", "main", "extended"] = Field("diamond", description="questions, where they are the hub's")
    revision: str = Field("633f5ee89ab8ad4522a9f850766b73f62147ffdd", description="commit of Idavidrein/gpqa")


class Row(BaseModel):
    """A question as it is published."""

    question: str = Field(alias="Question", min_length=1)
    right: str = Field(alias="Correct Answer", min_length=1)
    wrong_1: str = Field(alias="Incorrect Answer 1", min_length=1)
    wrong_2: str = Field(alias="Incorrect Answer 2", min_length=1)
    wrong_3: str = Field(alias="Incorrect Answer 3", min_length=1)


class Gpqa(BaseTask):
    """GPQA: graduate questions with four choices, in an order drawn from the seed. Right is the letter."""

    Options: ClassVar[type[BaseModel]] = GpqaOptions

    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        source = HubData("Idavidrein/gpqa", "train", self.options.revision, f"gpqa_{self.options.subset}")
        for number, row in read_hub(source, Row) if data is None else read(data, Row):
            choices = [text.strip() for text in (row.right, row.wrong_1, row.wrong_2, row.wrong_3)]
            order = random.Random(f"gpqa:{seed}:{number}").sample(range(4), 4)
            inputs = {"question": row.question.strip(), "choices": [choices[i] for i in order]}
            yield Example(f"gpqa-{number}", inputs, f"The answer is ({LETTERS[order.index(0)]})")

    def prompt(self, example: Example, style: PromptStyle) -> Prompt:
        choices = "\n".join(f"({a}) {text}" for a, text in zip(LETTERS, example.inputs["choices"], strict=True))
        text = INSTRUCTION.format(question=example.inputs["question"], choices=choices)
        if style == "compact":
            return Prompt(f"{text}\nThe answer is (", gen_length=2, stop=("Question:",))
        return Prompt((Message("user", text),), gen_length=GEN_LENGTH)

    def grade(self, example: Example, completion: str) -> Mapping[str, float]:
        """``accuracy``: the letter is right; ``answered``: there is one."""
        letter = chosen(completion)
        return {"accuracy": float(letter == chosen(example.reference)), "answered": float(letter is not None)}


def chosen(completion: str) -> str | None:
    """The letter that a completion settles on.

    It is the last one said to be the answer; else the one with which the compact prompt's bracket is closed; else the
    last one in brackets.
    """
    return _last(STATED, completion) or _closing(completion) or _last(MENTIONED, completion)


def _last(patterns: Sequence[str], completion: str) -> str | None:
    for pattern in patterns:
        if letters := re.findall(pattern, completion, re.M):
            return str(letters[-1])
    return None


def _closing(completion: str) -> str | None:
    """The letter in front of one line ``X) ...`` that names no other choice.

    A chat that goes through the choices may begin with ``A)`` as well.
    """
    choices = re.findall(r"(?<!\()\b([A-D])\)", completion)
    closed = re.fullmatch(r"\s*([A-D])\)[^\n]*\s*", completion)
    return closed[1] if closed and set(choices) == {closed[1]} else None
