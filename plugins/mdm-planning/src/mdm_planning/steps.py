"""Reads the equations of an answer and computes with whole numbers."""

from __future__ import annotations

import re

from mdm.protocols.answers import THIN, bare

LONGEST = 200
"""Characters of an equation."""
_EQUATION = re.compile(
    r"(?<![\w.=+*/-])((?:[\d(]|\.\d)[\d().+*/ \t\u202f-]{0,199}?)"
    r"((?:[ \t]{0,3}=[ \t]{0,3}[\d()]{1,20}(?:[ \t]?[-+*/][ \t]?[\d()]{1,20}){1,20}){0,5})"
    r"[ \t]{0,3}=[ \t~]{0,3}(-?[\d.]{1,20}(?:\u202f\d{3})*)"
)
_ITEM = re.compile(r"^[ \t>]{0,8}(?:[-*+]|\(?\d{1,2}[.):]|step\s\d{1,2}\s?[.:)]?)[ \t]{1,4}(?=[\d(-])", re.I | re.M)
"""The bullet or number of a list's line."""
_SEPARATOR = re.compile(
    r"(?:[\s,;.|>`'\"()\[\]~-]|\b(?:and|then|next|finally|first|second|third|so|now|step)\b:?|\b\d{1,2}[.):](?=\s)){0,60}",
    re.I,
)
"""What may stand between two equations of one answer."""


def equations(text: str) -> list[list[tuple[str, str]]]:
    """The equations of a text as left and right side, in groups between which there are other words."""
    text = bare(re.sub(r"(?<=\d)(?:\{,\}|,\\!|,(?=\d{3}\s*(?:[,;.\n]|\Z)))(?=\d{3}(?!\d))", THIN, text))
    text = _ITEM.sub("", re.sub(r"(?<=[\d)])\s?x\s?(?=[\d(])", "*", text))
    groups: list[list[tuple[str, str]]] = []
    end = -1
    for match in _EQUATION.finditer(text):
        left, between, right = (side.replace(THIN, "").strip().rstrip(".") for side in match.groups())
        left = re.sub(r"\A\d{1,2}\)\s+", "", left)  # numbers a step within a line
        begun = text[max(0, match.start() - 2) : match.start()]
        glued = re.match(r"\w|\.\d|\s?[=*/^+-]\s?[\d(]", text[match.end() :]) or (
            begun[-1:] == "," and begun[:1].isdigit() and end != match.start() - 1
        )
        if end < 0 or not _SEPARATOR.fullmatch(text, end, match.start()):
            groups.append([])
        glued = glued or not all(_gives(part, right) for part in between.split("=")[1:])
        groups[-1].append((left, "" if glued else right))
        end = match.end()
    return groups


def _gives(text: str, result: str) -> bool:
    """Whether an expression between two "=", as in "(9-4)*2 = 5*2 = 10", has the value that is given behind it."""
    try:
        return str(leaves_and_value(text)[1]) == result
    except Unreadable:
        return False


class Unreadable(ValueError):
    """A side of an equation is no arithmetic of whole numbers."""


def leaves_and_value(text: str) -> tuple[list[int], int]:
    """The numbers that stand in an expression, and its value.

    Raises:
        Unreadable: it is none of natural numbers with + - * / and brackets, or a step of it gives no natural number.
    """
    if len(text) > LONGEST:
        raise Unreadable(text[:LONGEST])
    tokens = re.findall(r"\d+|\S", text)
    if not all(token in "+-*/()" or (token.isascii() and token.isdigit() and len(token) < 10) for token in tokens):
        raise Unreadable(text)
    leaves: list[int] = []
    place = 0

    def take() -> str:
        nonlocal place
        place += 1
        return tokens[place - 1] if place <= len(tokens) else ""

    def factor() -> int:
        token = take()
        if token == "(":
            value = chain("+-")
            if take() != ")":
                raise Unreadable(text)
            return value
        if not token.isdigit():
            raise Unreadable(text)
        leaves.append(int(token))
        return int(token)

    def chain(operators: str) -> int:
        value = chain("*/") if operators == "+-" else factor()
        while place < len(tokens) and tokens[place] in operators:
            result = compute(value, take(), chain("*/") if operators == "+-" else factor())
            if result is None:
                raise Unreadable(text)
            value = result
        return value

    value = chain("+-")
    if place != len(tokens):
        raise Unreadable(text)
    return leaves, value


def compute(a: int, operator: str, b: int) -> int | None:
    """The natural number that a step gives, or None where it gives none."""
    if operator == "/":
        return a // b if b and a % b == 0 else None
    result = a + b if operator == "+" else a - b if operator == "-" else a * b
    return result if result >= 0 else None
