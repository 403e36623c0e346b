"""Countdown: reach a target with given numbers, each used once."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import ClassVar, Literal

from mdm.data import Pair
from mdm.protocols import Example, Message, NoOptions, Prompt, PromptStyle
from pydantic import BaseModel, Field, field_validator

from mdm_planning.puzzles import Puzzles

INSTRUCTION = (
    "Use each of the numbers {numbers} exactly once with +, -, * or / to reach {target}. Write one equation for each "
    "step, separated by commas; a step may use earlier results. Answer with the equations only.\nEquations:"
)
SHOTS = (("17,40,81,58", "40-17=23,81-23=58"), ("9,30,6,45", "30/6=5,9*5=45"))
LARGEST = 9999


class CountdownOptions(NoOptions):
    """Which problems are made."""

    numbers: Literal[3, 4] = Field(3, description="numbers of a generated problem")
    shots: int = Field(2, ge=0, le=2, description="solved examples shown to a chat model")


class Row(Pair):
    """``input``: the numbers, then the target."""

    @field_validator("input")
    @classmethod
    def _input(cls, text: str) -> str:
        if not re.fullmatch(r"\d{1,6}(,\d{1,6}){2,}", text):
            raise ValueError("at least two numbers and the target, separated by commas")
        return text


def compute(a: int, operator: str, b: int) -> int | None:
    """The natural number that a step gives, or None where it gives none."""
    if operator == "+":
        return a + b
    if operator == "-":
        return a - b if a >= b else None
    if operator == "*":
        return a * b
    return a // b if b and a % b == 0 else None


def reaches(problem: str, answer: str) -> bool:
    """Whether the equations use each number once, are true, and end at the target."""
    *numbers, target = (int(n) for n in problem.split(","))
    remaining, last = list(numbers), None
    for step in answer.split(","):
        match = re.fullmatch(r"(\d{1,9})([-+*/])(\d{1,9})=(\d{1,9})", step)
        if match is None:
            return False
        a, b, last = int(match[1]), int(match[3]), int(match[4])
        for used in (a, b):
            if used not in remaining:
                return False
            remaining.remove(used)
        if compute(a, match[2], b) != last:
            return False
        remaining.append(last)
    return remaining == [target] and last == target


class Countdown(Puzzles):
    """Countdown with 3 or 4 numbers. Right is any arithmetic that uses each number once and hits the target."""

    Options: ClassVar[type[BaseModel]] = CountdownOptions
    name = "countdown"
    row = Row

    def variety(self) -> str:
        return str(self.options.numbers)

    def make(self, draw: random.Random) -> tuple[str, str]:
        while True:
            numbers = [draw.randint(1, 99) for _ in range(self.options.numbers)]
            remaining, steps = list(numbers), []
            while len(remaining) > 1:
                draw.shuffle(remaining)
                a, b = max(remaining[:2]), min(remaining[:2])
                result = compute(a, operator := draw.choice("+--*/"), b)
                if result is None or result > LARGEST:
                    break
                steps.append(f"{a}{operator}{b}={result}")
                remaining = [*remaining[2:], result]
            if len(remaining) == 1 and 10 <= remaining[0] <= 99:
                return ",".join(str(n) for n in (*numbers, remaining[0])), ",".join(steps)

    def prompt(self, example: Example, style: PromptStyle) -> Prompt:
        problem: str = example.inputs["puzzle"]
        length = 24 if problem.count(",") <= 3 else 40
        if style == "compact":
            return Prompt(problem + ":", gen_length=length)
        turns: list[Message] = []
        for shot, answer in SHOTS[: self.options.shots]:
            turns += [Message("user", _ask(shot)), Message("assistant", answer)]
        return Prompt((*turns, Message("user", _ask(problem))), gen_length=2 * length)

    def grade(self, example: Example, completion: str) -> Mapping[str, float]:
        """``accuracy``: the equations are right."""
        answer = re.sub(r"[\s.]", "", completion)
        return {"accuracy": float(reaches(example.inputs["puzzle"], answer))}


def _ask(problem: str) -> str:
    *numbers, target = problem.split(",")
    return INSTRUCTION.format(numbers=", ".join(numbers), target=target)
