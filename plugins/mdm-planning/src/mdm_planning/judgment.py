"""Judgment: is a claim about a sum true? The verdict can be decoded before the reasoning that it follows from."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from statistics import fmean
from typing import ClassVar, Literal

from mdm.data import Pair
from mdm.protocols import MASK, Example, Message, NoOptions, Piece, Prompt, PromptStyle
from mdm.protocols.answers import answer_part
from pydantic import BaseModel, Field, field_validator

from mdm_planning.puzzles import Puzzles

INSTRUCTION = (
    "Claim: the sum {sum} ends with the digit {digit}. Add the digits one after the other and write the last digit of "
    "each sum that you get on the way; the claim is right if the last of them is {digit}. Answer in one line, {form}."
)
FORMS = {
    "first": "the verdict, y or n, then a colon and the digits with commas between them",
    "last": "the digits with commas between them, then a colon and the verdict, y or n",
}
CLAIM = re.compile(r"(\d(?:\+\d){1,19})=(\d)")
VERDICTS = ("n", "y")
WORDS = {"no": "n", "yes": "y"}
FIRST_WORD = re.compile(r"^\W{0,20}(yes|no|y|n)\b")
LAST_WORD = re.compile(r"\b(yes|no|y|n)\W{0,20}$")
DRESS = " \t.*_`'\"()[]$-"
"""What may stand around a verdict and a step."""


class JudgmentOptions(NoOptions):
    """Which claims are made, and where the verdict stands."""

    terms: int = Field(5, ge=2, le=20, description="digits of a generated sum")
    verdict: Literal["first", "last"] = Field("first", description="the verdict stands before or behind the reasoning")


class Row(Pair):
    """``input``: a sum of digits and its last digit, as it is claimed."""

    @field_validator("input")
    @classmethod
    def _input(cls, text: str) -> str:
        if not CLAIM.fullmatch(text):
            raise ValueError("a claim such as 7+8+5=0: 2 to 20 digits, and the last digit of their sum")
        return text


def running(claim: str) -> list[str]:
    """The last digits of the sums of the first two, three, ... digits of a claim."""
    digits = [int(digit) for digit in claim[: claim.index("=")].split("+")]
    return [str(total % 10) for total in accumulate(digits)][1:]


def verdict(claim: str, last: str) -> str:
    """What follows for a claim from the last digit that the reasoning comes to."""
    return VERDICTS[last == claim[-1]]


class Judgment(Puzzles):
    """Claims such as ``7+8+5=0`` (the last digit is meant), of which about half are right.

    The reasoning is the last digit of each sum on the way (``5,0``), and the verdict ``y`` or ``n``. Each of them is
    one masked position between fixed signs, so that the order in which they are decoded is the sampler's own.
    """

    Options: ClassVar[type[BaseModel]] = JudgmentOptions
    measures = ("verdict_rank",)
    name = "judgment"
    row = Row

    def variety(self) -> str:
        return str(self.options.terms)

    def make(self, draw: random.Random) -> tuple[str, str]:
        digits = "+".join(str(draw.randint(1, 9)) for _ in range(self.options.terms))
        right = int(running(f"{digits}=")[-1])
        claim = f"{digits}={right if draw.random() < 0.5 else (right + draw.randint(1, 9)) % 10}"
        return claim, self._written(verdict(claim, str(right)), running(claim))

    def prompt(self, example: Example, style: PromptStyle) -> Prompt:
        claim: str = example.inputs["puzzle"]
        answer = self._written(MASK, [MASK] * len(running(claim)))
        if style == "compact":
            return Prompt(claim + ":", answer)
        total, digit = claim.split("=")
        asked = INSTRUCTION.format(sum=total, digit=digit, form=FORMS[self.options.verdict])
        return Prompt((Message("user", asked),), answer)

    def continuation(self, example: Example, style: PromptStyle) -> Prompt:
        """The answer is written out: an autoregressive model fills in nothing."""
        prompt = self.prompt(example, style)
        return replace(prompt, answer="", gen_length=32)

    def _written(self, word: str, steps: Sequence[str]) -> str:
        parts = [word, ",".join(steps)]
        return ":".join(parts if self.options.verdict == "first" else reversed(parts))

    def grade(self, example: Example, completion: str) -> Mapping[str, float]:
        """``accuracy``: the verdict is right; ``reasoning``: every step of it is; ``consistent``: the verdict follows
        from the last digit that is written, right or wrong."""
        claim: str = example.inputs["puzzle"]
        steps = running(claim)
        word, *said = self._read(completion, len(steps))
        return {
            "accuracy": float(word == verdict(claim, steps[-1])),
            "reasoning": float(said == steps),
            "consistent": float(bool(re.fullmatch(r"\d", said[-1])) and word == verdict(claim, said[-1])),
        }

    def _read(self, completion: str, count: int) -> list[str]:
        """The verdict and the steps in the last line of a completion that has both, else in the last one that has as
        many parts as there are steps, else nothing but empty texts."""
        found = [""] * (count + 1)
        for line in reversed(answer_part(completion).splitlines()):
            for parts in reversed(list(pairwise(line.lower().split(":")))):
                word, steps = parts if self.options.verdict == "first" else reversed(parts)
                said = [step.strip(DRESS) for step in steps.split(",")]
                stated = (LAST_WORD if self.options.verdict == "first" else FIRST_WORD).search(word)
                if len(said) == count:
                    if stated and all(re.fullmatch(r"\d", step) for step in said):
                        return [WORDS.get(stated[1], stated[1]), *said]
                    if not any(found):
                        found = [WORDS.get(stated[1], stated[1]) if stated else "", *said]
        return found

    def measure(self, example: Example, pieces: Sequence[Piece]) -> Mapping[str, float]:
        """``verdict_rank``: the share of the answer's other positions that were decoded in an earlier step than the
        verdict, where those of the same step count half: 1 is a verdict that was decoded last."""
        decoded = [piece.step for piece in pieces if piece.step >= 0]
        if len(decoded) < len(pieces):  # holes between fixed signs, and what was generated behind them
            decoded = decoded[: 1 + len(running(example.inputs["puzzle"]))]
        if len(decoded) < 2:
            return {"verdict_rank": 0.0}
        own = decoded.pop(0 if self.options.verdict == "first" else -1)
        return {"verdict_rank": fmean((step < own) + (step == own) / 2 for step in decoded)}
