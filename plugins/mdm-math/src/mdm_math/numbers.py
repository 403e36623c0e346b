"""The number that a completion settles on, for problems whose answer is one: GSM8K."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

from mdm.protocols.answers import THIN, Statement, answer_part, bare, final, last_number, numbers

_LEADING = {
    "about", "approximately", "around", "roughly", "only", "just", "exactly", "simply", "a", "total", "of", "equal",
    "equals", "to", "is", "the", "x", "y", "n",
}  # fmt: skip
"""Words between ``answer is`` and the number that change nothing."""
_SPACED = re.compile(r"(?<![\d.,/])(\d{1,3})((?: \d{3}){1,3})(?![\d.,/])")
_OPERATOR = re.compile(r"\s?(?:[-+*/^=]|x(?=\s?\d))\s?(?=[-(~]?\s?[\d.(])")
_TERM = r"[$€£]?\d[\d.,\u202f]*%?(?:\s?/?\s?[a-z]+){0,3}"
_WORKED = re.compile(rf"\A{_TERM}(?:\s?[-+*/]\s?{_TERM})*\s?=", re.I)
"""Arithmetic with units, as in "9 eggs * $2/egg = $18"."""
_CONCLUDES = re.compile(r"\s?(?:so|thus|therefore|hence|altogether|in\stotal|the\stotal|total)\b", re.I)
_INEXACT = re.compile(
    r"\b(?:half|third|quarter|twice|double|triple|(?:less|fewer|more|greater|smaller|larger)\sthan)(?:\sof)?\W{0,3}\Z",
    re.I,
)
"""Words in front of a number that say another one, or none."""
_HALF = re.compile(r"(?:\s[a-z]+)?\sand\s(?:a|one)\s(half|quarter|third)\b", re.I)
_PARTS = {"half": Fraction(1, 2), "quarter": Fraction(1, 4), "third": Fraction(1, 3)}
_ITEM = re.compile(r"^[ \t#*>_]{0,8}(?:step\s(\d{1,2})\b|(\d{1,2})[*_]{0,2}[.):](?!\d))", re.I | re.M)
"""The number of a step or of a list's line."""
_OTHER = re.compile(r"(?:\s?%|\s[a-z]+)?\s?(?:,|;|,?\s(?:or|and|to)\s)\W*", re.I)
"""What stands between a number and another one that is offered beside it."""


def settled_number(completion: str) -> Fraction | None:
    """The one number that a completion gives as its answer, exact; None where it gives none or several."""
    found = final(answer_part(completion), _stated, _named)
    return found[0] if found and len(set(found)) == 1 else None


def _stated(statement: Statement) -> tuple[Fraction, ...] | None:
    """The numbers that a statement offers; it offers none where it cannot be told which it means."""
    text = _SPACED.sub(lambda match: match[1] + match[2].replace(" ", THIN), bare(statement.text or "").strip())
    text = re.sub(r"(?<=\d)\s?[*x]\s?10\^(-?\d{1,3})(?!\d)", r"e\1", text)
    text, label = text.split("\n", 1)[0], statement.kind.endswith((":", "answer"))
    found = numbers(text)
    if not found:
        return None
    start, end, number = found[0]
    if not set(re.findall(r"[a-z]+", text[:start].lower())) <= _LEADING:  # a sentence: its last number
        if label and _OPERATOR.search(text):
            return None
        first, *others = re.split(r"(?<=[^\s.][.!?])\s", text)
        concluding = [other for other in others if label and _CONCLUDES.match(other) and numbers(other)]
        sentence = (concluding or [first])[-1]
        last = numbers(sentence)[-1:]
        if last and _INEXACT.search(sentence[: last[0][0]]):
            return ()
        return tuple(value for *_, value in last) or None
    if _INEXACT.search(text[:start]) or re.match(r"\s?\\?(?:pi\b|\u03c0)", text[end:]):
        return ()
    if half := _HALF.match(text, end):
        return (number + _PARTS[half[1].lower()],)
    if not _OPERATOR.match(text, end) and (worked := _WORKED.match(text[start:])):
        return tuple(value for *_, value in numbers(text[start:][worked.end() :])[:1]) or (number,)
    if _OPERATOR.match(text, end):
        if label:  # a solution that begins behind "Answer:"
            return None
        result = text[end:].rpartition("=")[2] if "=" in text[end:] else ""
        return tuple(value for *_, value in numbers(result)[:1])
    if len(found) > 1 and _OTHER.fullmatch(text, end, found[1][0]):
        return (number, found[1][2])
    return (number,)


def _named(text: str) -> tuple[Fraction, ...] | None:
    text = bare(text)
    items = list(_ITEM.finditer(text))
    for before, item in pairwise(items):  # what counts lines is no answer, where a text was cut off
        if int(item[1] or item[2]) == int(before[1] or before[2]) + 1:
            text = text[: item.start()] + re.sub(r"\d", " ", item[0]) + text[item.end() :]
    found = last_number(text)
    return None if found is None else (found[2],)
