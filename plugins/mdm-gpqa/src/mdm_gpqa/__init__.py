"""GPQA (Rein et al. 2023, arXiv:2311.12022): four choices, shuffled by the seed."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from mdm.data import HubData, read, read_hub
from mdm.protocols import BaseTask, Example, Message, NoOptions, Prompt, PromptStyle
from mdm.protocols.answers import answer_part
from pydantic import BaseModel, Field

from mdm_gpqa.letters import settled_letter

LETTERS = "ABCD"
GEN_LENGTH = 256
INSTRUCTION = (
    "Answer the multiple-choice question. Think step by step and end with 'The answer is (X)', "
    "where X is A, B, C or D.\n\nQuestion: {question}\nChoices:\n{choices}"
)
PUBLISHED = (r"answer is \((.)\)", r"Answer: \((.)\)", r"answer: \((.)\)", r"answer \((.)\)", r"\((.)\)")
"""The patterns of GPQA's authors, in their order: the first one that is found and holds a letter of a choice counts."""


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

    def answer(self, example: Example, completion: str) -> str | None:
        return settled_letter(completion)

    def grade(self, example: Example, completion: str) -> Mapping[str, float]:
        """``accuracy``: the letter is right; ``answered``: there is one; ``published``: right by the authors' rule."""
        letter, right = settled_letter(completion), settled_letter(example.reference)
        published = published_letter(answer_part(completion)) or published_letter(f"({answer_part(completion).strip()}")
        return {
            "accuracy": float(letter == right),
            "answered": float(letter is not None),
            "published": float(published == right),
        }


def published_letter(text: str) -> str | None:
    """The letter by the rule of GPQA's authors, which reads letters in brackets only."""
    for pattern in PUBLISHED:
        match = re.search(pattern, text)
        if match and match[1] in LETTERS:
            return match[1]
    return None
