"""Countdown: reach a target with given numbers, each used once."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from mdm.data import Pair
from mdm.protocols import Example, Message, NoOptions, Prompt, PromptStyle
from mdm.protocols.answers import answer_part, withdrawn
from pydantic import BaseModel, Field, field_validator

from mdm_planning.puzzles import Puzzles
from mdm_planning.steps import compute, equations, leaves_and_value

INSTRUCTION = (
    "Use each of the numbers {numbers} exactly once with +, -, * or / to reach {target}. Write one equation for each "
    "step, separated by commas; a step may use earlier results. Answer with the equations only.\nEquations:"
)
SHOTS = (("17,40,81,58", "40-17=23,81-23=58"), ("9,30,6,45", "30/6=5,9*5=45"))
LARGEST = 9999
LONGEST = 20_000
"""Characters of a completion, from its end, in which equations are looked for."""


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


def reaches(problem: str, steps: Sequence[tuple[str, str]]) -> bool:
    """Whether the equations use each number once, are true, and end at the target; a step may use earlier results."""
    *numbers, target = (int(n) for n in problem.split(","))
    remaining = list(numbers)
    try:
        for left, right in steps:
            used, value = leaves_and_value(left)
            if len(used) < 2 or leaves_and_value(right) != ([value], value):
                return False
            for number in used:
                remaining.remove(number)
            remaining.append(value)
    except ValueError:  # unreadable, or a number that is not there
        return False
    return bool(steps) and remaining == [target]


def published(problem: str, completion: str) -> bool:
    """Whether the completion is nothing but right equations of two numbers between commas, blanks aside."""
    steps = [
        re.fullmatch(r"(\d{1,9}[-+*/]\d{1,9})=(\d{1,9})", step) for step in re.sub(r"\s", "", completion).split(",")
    ]
    return reaches(problem, [(step[1], step[2]) for step in steps if step]) if all(steps) else False


def solves(problem: str, completion: str) -> bool:
    """Whether the equations that a completion gives are right.

    It gives those between ``<answer>`` tags or in its last fence, else its last group of equations, else all of them
    together, since steps may stand between words.
    """
    text = answer_part(completion)
    if withdrawn(text, 0) is not None:
        text = text[withdrawn(text, 0) :]
    for pattern in (r"<answer>(.{1,2000}?)</answer>", r"```[a-z]*\n(.{1,2000}?)```"):
        if found := [part for part in re.findall(pattern, text, re.S) if equations(part)]:
            text = found[-1]
            break
    groups = equations(text[-LONGEST:])
    if not groups:
        return False
    said: list[tuple[str, str]] = []
    for group in groups:
        if not {_tight(step) for step in group} <= {_tight(step) for step in said}:  # else it is only checked again
            said += group
    together = [step for group in groups for step in group]
    return any(reaches(problem, _once(steps)) for steps in (groups[-1], together, said))


def _tight(step: tuple[str, str]) -> str:
    return re.sub(r"\s*([-+*/()=])\s*", r"\1", "=".join(step))


def _once(steps: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """The steps without what repeats all of them, as a text in a loop does until it is cut off."""
    tight = [_tight(step) for step in steps]
    period = next(n for n in range(1, len(steps) + 1) if tight[n:] == tight[: len(steps) - n] or n == len(steps))
    return steps[:period] if period < len(steps) and len(set(tight[:period])) == period else steps


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
        """``accuracy``: the equations that are given are right; ``published``: they stand alone between commas too."""
        problem: str = example.inputs["puzzle"]
        return {"accuracy": float(solves(problem, completion)), "published": float(published(problem, completion))}


def _ask(problem: str) -> str:
    *numbers, target = problem.split(",")
    return INSTRUCTION.format(numbers=", ".join(numbers), target=target)
