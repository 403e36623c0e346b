"""Equations with holes: products and sums of which a share of the digits is given."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import ClassVar, Literal

from mdm.data import Pair
from mdm.protocols import MASK, Example, Message, NoOptions, Prompt, PromptStyle
from mdm.protocols.answers import answer_part, bare, withdrawn
from pydantic import BaseModel, Field, field_validator

from mdm_planning.puzzles import Puzzles

INSTRUCTION = (
    "Replace every _ by one digit so that the equation is true; numbers do not begin with 0. Answer with the equation "
    "only.\n{}\nAnswer:"
)
_WRITTEN = re.compile(
    r"(?<![\w.*/+^)=-])(?<![*/+^)=-]\s)[1-9]\d{0,3}\s?[*+]\s?[1-9]\d{0,3}\s?=\s?\d{1,8}(?!\w|[.,:]\d|\s?[-*/+^=]|\(|\s\d)"
)
"""An equation in a text, which is part of no longer one."""
EQUATION = re.compile(r"([1-9]\d{0,3})([*+])([1-9]\d{0,3})=(\d{1,8})")


class EquationsOptions(NoOptions):
    """Which equations are made."""

    operation: Literal["product", "sum", "both"] = Field(
        "product", description="products of 2-digit numbers, sums of 2 to 3-digit numbers, or both"
    )
    given: float = Field(0.25, ge=0, lt=1, description="share of the digits that is shown")


class Row(Pair):
    """``input``: an equation with ``_`` for each hole."""

    @field_validator("input")
    @classmethod
    def _input(cls, text: str) -> str:
        if not re.fullmatch(r"[\d_]+[*+][\d_]+=[\d_]+", text) or "_" not in text:
            raise ValueError("an equation such as 1_*_4=4_8, with at least one _")
        return text


def true(equation: str) -> bool:
    match = EQUATION.fullmatch(equation)
    if match is None or str(int(match[4])) != match[4]:
        return False
    a, b = int(match[1]), int(match[3])
    return (a * b if match[2] == "*" else a + b) == int(match[4])


class Equations(Puzzles):
    """Equations with holes. Right is any true equation that keeps the given digits."""

    Options: ClassVar[type[BaseModel]] = EquationsOptions
    name = "equations"
    row = Row

    def variety(self) -> str:
        return str(self.options.operation)

    def make(self, draw: random.Random) -> tuple[str, str]:
        operation = self.options.operation
        if operation == "both":
            operation = draw.choice(("product", "sum"))
        if operation == "product":
            a, b = draw.randint(10, 99), draw.randint(10, 99)
            answer = f"{a}*{b}={a * b}"
        else:
            a, b = draw.randint(10, 999), draw.randint(10, 999)
            answer = f"{a}+{b}={a + b}"
        digits = [i for i, c in enumerate(answer) if c.isdigit()]
        shown = set(draw.sample(digits, max(1, round(self.options.given * len(digits)))))
        return "".join("_" if i in digits and i not in shown else c for i, c in enumerate(answer)), answer

    def prompt(self, example: Example, style: PromptStyle) -> Prompt:
        equation: str = example.inputs["puzzle"]
        answer = equation.replace("_", MASK)
        if style == "compact":
            return Prompt("", answer)
        return Prompt((Message("user", INSTRUCTION.format(equation)),), answer)

    def answer(self, example: Example, completion: str) -> str | None:
        """The last equation that is not taken back."""
        text = answer_part(completion)
        back = withdrawn(text, 0)
        found = _WRITTEN.findall(_spaced(bare(text if back is None else text[back:])))
        return re.sub(r"\s", "", found[-1]) if found else None

    def grade(self, example: Example, completion: str) -> Mapping[str, float]:
        """``accuracy``: a true equation that keeps the given digits; ``published``: there is nothing else."""
        puzzle: str = example.inputs["puzzle"]
        return {
            "accuracy": float(fills(puzzle, self.answer(example, completion) or "")),
            "published": float(fills(puzzle, re.sub(r"\s", "", completion))),
        }


def fills(puzzle: str, equation: str) -> bool:
    """Whether an equation is true and has the digits that are given."""
    keeps = len(equation) == len(puzzle) and all(g in ("_", c) for g, c in zip(puzzle, equation, strict=True))
    return keeps and true(equation)


def _spaced(text: str) -> str:
    """The text with ``*`` for a cross between numbers and without the commas of thousands."""
    text = re.sub(r"(?<=\d)\s?[xX]\s?(?=\d)", "*", text)
    return re.sub(r"(?<![\d.,])\d{1,3}(?:[,\u202f]\d{3})+(?![\d.,])", lambda number: re.sub(r"\D", "", number[0]), text)
