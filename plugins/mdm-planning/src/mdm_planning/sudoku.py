"""4x4 sudoku: every row, column and 2x2 box holds 1, 2, 3 and 4."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import permutations
from typing import ClassVar, Literal

from mdm.protocols import MASK, Example, Message, NoOptions, Prompt, PromptStyle
from mdm.protocols.answers import answer_part, bare, withdrawn
from pydantic import BaseModel, Field, field_validator

from mdm_planning.puzzles import Puzzles

UNITS = (
    [[4 * r + c for c in range(4)] for r in range(4)]
    + [[4 * r + c for r in range(4)] for c in range(4)]
    + [[8 * (b // 2) + 2 * (b % 2) + 4 * i + j for i in (0, 1) for j in (0, 1)] for b in range(4)]
)
"""The cells of each row, column and box."""

INSTRUCTION = (
    "Solve the 4x4 sudoku. The digits 1 to 4 must each appear once in every row, every column and every 2x2 box; "
    "0 marks an empty cell. Answer with the solved grid only, four rows of four digits.\n\nPuzzle:\n{}\nSolution:"
)
SHOTS = (
    ("1230341221434321", "1234341221434321"),
    ("4012214004211034", "4312214334211234"),
    ("0321214334120000", "4321214334121234"),
)


class SudokuOptions(NoOptions):
    """How a puzzle is put to the model."""

    mode: Literal["infill", "generate"] = Field("infill", description="fill the blanks in place, or write the grid")
    blanks: int = Field(8, ge=1, le=15, description="blank cells of a generated puzzle")
    shots: int = Field(3, ge=0, le=3, description="solved examples shown to a chat model")


class Row(BaseModel):
    """A line of the CSV."""

    Puzzle: str
    Solution: str

    @field_validator("Puzzle")
    @classmethod
    def _puzzle(cls, text: str) -> str:
        if not re.fullmatch("[0-4]{16}", text) or "0" not in text:
            raise ValueError("a puzzle is 16 digits 0 to 4, 0 for a blank, with at least one blank")
        return text

    @field_validator("Solution")
    @classmethod
    def _solution(cls, text: str) -> str:
        if not solved(text):
            raise ValueError("not a solved 4x4 sudoku of 16 digits")
        return text


def solved(grid: str) -> bool:
    return bool(re.fullmatch("[1-4]{16}", grid)) and all(len({grid[i] for i in unit}) == 4 for unit in UNITS)


@cache
def grids() -> tuple[str, ...]:
    """All 288 solved grids, in order."""
    rows = ["".join(p) for p in permutations("1234")]
    solutions = []
    for a in rows:
        for b in rows:
            if set(a[:2]) & set(b[:2]):
                continue
            solutions += [a + b + c + d for c in rows for d in rows if solved(a + b + c + d)]
    return tuple(solutions)


WIDEST = 200
"""Characters of a line that may belong to a grid."""
_LABEL = re.compile(
    r"[\s|>*]*(?:(?:row|r)\s?\d\s?[:.)=|-]|(?:first|second|third|fourth|last)\srow\s?[:=-]|\d[.)](?=\s))\s?", re.I
)
_ROW = re.compile(r"[>\s|,;*_\[\](){}/&\"'-]*(?:\d[\s|,;*_\[\](){}/&\"'-]*){4,16}", re.I)
_RULE = re.compile(r"[\s|+=:*`~_\[\](){}-]*")
"""A line between rows that holds no digit and no word."""
_MARKUP = re.compile(r"\\(?:begin|end)\{[a-z]+\*?\}(?:\{[|clr ]*\})?|\\hline|</?answer>", re.I)
_LABELLED = re.compile(
    r"[^\d]*?(?:solution|answer|grid)[^\d\n]*?:?\s?[=\[({\s]*((?:\d[\s,;|/\[\](){}]{0,6}){16})[\s.]*", re.I
)
"""A line such as "Solution: 3142243142131324"."""


def _lines(grid: str) -> str:
    return "\n".join(grid[i : i + 4] for i in range(0, 16, 4))


class Sudoku(Puzzles):
    """4x4 sudoku. Right is any valid grid that keeps the clues."""

    Options: ClassVar[type[BaseModel]] = SudokuOptions
    name = "sudoku"
    row = Row
    columns = ("Puzzle", "Solution")

    def make(self, draw: random.Random) -> tuple[str, str]:
        solution = draw.choice(grids())
        blanks = set(draw.sample(range(16), self.options.blanks))
        return "".join("0" if i in blanks else d for i, d in enumerate(solution)), solution

    def prompt(self, example: Example, style: PromptStyle) -> Prompt:
        return self._ask(example, style, infill=self.options.mode == "infill")

    def continuation(self, example: Example, style: PromptStyle) -> Prompt:
        """The grid is written out: an autoregressive model fills in nothing."""
        return self._ask(example, style, infill=False)

    def _ask(self, example: Example, style: PromptStyle, *, infill: bool) -> Prompt:
        puzzle: str = example.inputs["puzzle"]
        if style == "compact":
            if infill:
                return Prompt("", puzzle.replace("0", MASK))
            return Prompt(puzzle + ":", gen_length=16)
        turns: list[Message] = []
        for shot, answer in SHOTS[: self.options.shots]:
            turns += [Message("user", INSTRUCTION.format(_lines(shot))), Message("assistant", _lines(answer))]
        turns.append(Message("user", INSTRUCTION.format(_lines(puzzle))))
        if infill:
            return Prompt(tuple(turns), _lines(puzzle).replace("0", MASK))
        return Prompt(tuple(turns), gen_length=32)

    def answer(self, example: Example, completion: str) -> str | None:
        grid = read_grid(completion, example.inputs["puzzle"])
        return _lines(grid) if grid else None

    def grade(self, example: Example, completion: str) -> Mapping[str, float]:
        """``accuracy``: a valid grid with the clues kept; ``cells``: share of the reference's blanks that agree."""
        puzzle: str = example.inputs["puzzle"]
        grid = read_grid(completion, puzzle)
        keeps_clues = len(grid) == 16 and all(p in ("0", g) for p, g in zip(puzzle, grid, strict=True))
        blanks: Sequence[int] = [i for i, p in enumerate(puzzle) if p == "0"]
        agree = sum(grid[i : i + 1] == example.reference[i : i + 1] for i in blanks) / len(blanks)
        return {"accuracy": float(keeps_clues and solved(grid)), "cells": agree}


def read_grid(completion: str, puzzle: str) -> str:
    """The last 4x4 grid of an answer, as 16 digits; the puzzle itself, repeated, is none. Empty where there is none.

    A grid is four rows of four digits below each other, or 16 digits in one line. Blanks, bars, commas, brackets,
    rules, labels and emphasis may stand between them.
    """
    text = _MARKUP.sub("\n", answer_part(completion)).removeprefix(puzzle + ":")
    again = re.search(r"^\d{16}:", text, re.M)  # a further puzzle, as the compact prompt puts them
    text = text[: again.start()] if again and again.start() else text
    back = withdrawn(text, 0)
    found: list[str] = []
    rows: list[str] = []

    def close() -> None:
        if rows and len(rows) % 4 == 0:
            found.extend("".join(rows[at : at + 4]) for at in range(0, len(rows), 4))
        rows.clear()

    for line in bare(text if back is None else text[back:]).splitlines():
        line = line.strip().removesuffix(".")
        if len(line) > WIDEST:
            close()
            continue
        label = _LABEL.match(line)
        row = line[label.end() :] if label else line
        digits = "".join(re.findall(r"\d", row)) if _ROW.fullmatch(row) else ""
        if len(digits) == 4:
            rows.append(digits)
        elif len(digits) == 16:
            close()
            found.append(digits)
        elif digits or not _RULE.fullmatch(line):
            close()
            if named := _LABELLED.fullmatch(line):
                found.append(re.sub(r"\D", "", named[1]))
    close()
    return next((grid for grid in reversed(found) if grid != puzzle), "")
