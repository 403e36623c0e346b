"""Multiple-choice questions, graded by the letter that an answer gives."""

import random
import re
from pathlib import Path

from mdm.data import read
from mdm.errors import MdmError
from mdm.protocols import MASK, BaseTask, Example, Message, NoOptions, Prompt
from pydantic import BaseModel, Field

LETTERS = "ABCDEFGHIJ"
OURS = Path(__file__).with_name("questions.jsonl")
INSTRUCTION = "{question}\n{choices}\nEnd with 'The answer is (X)', where X is the letter of the right choice."

STATED = re.compile(r"\b(?i:answer\s+is|answer:)\W{0,5}([A-J])\b")
"""What an answer says it is: "The answer is (B)", "Answer: **B**". A small a is an article."""
ALONE = re.compile(r"\W*([A-J])\b\W*")
"""An answer that is a letter and nothing else: "(B)"."""


class ChoicesOptions(NoOptions):
    """How a question is asked."""

    shuffle: bool = Field(
        False, description="whether the choices of each question are put in an order drawn by the seed"
    )


class Row(BaseModel):
    """A question: a line of the file."""

    question: str = Field(min_length=1)
    choices: list[str] = Field(min_length=2, max_length=len(LETTERS))
    answer: str = Field(pattern="^[A-J]$", description="the letter of the right choice")


class Choices(BaseTask):
    """Multiple-choice questions: right is the letter of the choice."""

    Options = ChoicesOptions
    metric = "accuracy"

    def examples(self, *, seed, data=None):
        """The rows of a JSON lines file with ``question``, ``choices`` and ``answer``; else those of the package."""
        path = data or OURS
        for number, row in read(path, Row):
            right = LETTERS.index(row.answer)
            if right >= len(row.choices):
                raise MdmError(f"{path}, line {number}: answer {row.answer}, and there are {len(row.choices)} choices")
            order = list(range(len(row.choices)))
            if self.options.shuffle:
                random.Random(f"choices:{seed}:{number}").shuffle(order)
            inputs = {"question": row.question, "choices": [row.choices[i] for i in order]}
            yield Example(f"{path.stem}-{number}", inputs, f"The answer is ({LETTERS[order.index(right)]})")

    def prompt(self, example, style):
        """A chat is asked to explain and end with the letter; a compact model fills in the letter alone."""
        choices = [f"({LETTERS[i]}) {text}" for i, text in enumerate(example.inputs["choices"])]
        if style == "compact":
            return Prompt("\n".join([example.inputs["question"], *choices, "Answer: "]), f"({MASK})")
        text = INSTRUCTION.format(question=example.inputs["question"], choices="\n".join(choices))
        return Prompt((Message("user", text),), gen_length=256)

    def grade(self, example, completion):
        """``accuracy``: the letter is right; ``answered``: there is one, of a choice that the question has."""
        given = letter(completion, len(example.inputs["choices"]))
        return {
            "accuracy": float(given == letter(example.reference, len(LETTERS))),
            "answered": float(given is not None),
        }


def letter(completion, choices):
    """The letter that a completion states last, or is; None if it gives none, or one beyond the ``choices``."""
    alone = ALONE.fullmatch(completion)
    found = STATED.findall(completion) or ([alone[1]] if alone else [])
    return found[-1] if found and found[-1] in LETTERS[:choices] else None
