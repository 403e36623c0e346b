"""The number that a completion settles on, for problems whose answer is one: GSM8K."""

from __future__ import annotations

import re
from fractions import Fraction

from mdm.protocols.answers import THIN, Statement, answer_part, bare, final, last_number, numbers

_LEADING = {
    "about", "approximately", "around", "roughly", "only", "just", "exactly", "simply", "a", "total", "of", "equal",
    "equals", "to", "is", "the", "x", "y", "n",
}  # fmt: skip
"""Words between ``answer is`` and the number that change nothing."""
_SPACED = re.compile(r"(?<![\d.,/])(\d{1,3})((?: \d{3}){1,3})(?![\d.,/])")
_OPERATOR = re.compile(r"\s?(?:[-+*/^=]|x(?=\s?\d))\s?(?=[-(~]?\s?[\d.(])")
_OTHER = re.compile(r"(?:\s?%|\s[a-z]+)?\s?(?:,|;|,?\s(?:or|and|to)\s)\W*", re.I)
"""What stands between a number and another one that is offered beside it."""


def settled_number(completion: str) -> Fraction | None:
    """The one number that a completion gives as its answer, exact; None where it gives none or several."""
    found = final(answer_part(completion), _stated, _named)
    return found[0] if found and len(found) == 1 else None


def _stated(statement: Statement) -> tuple[Fraction, ...] | None:
    """The numbers that a statement offers; it offers none where it cannot be told which it means."""
    text = _SPACED.sub(lambda match: match[1] + match[2].replace(" ", THIN), bare(statement.text or "").strip())
    text, label = text.split("\n", 1)[0], statement.kind.endswith((":", "answer"))
    found = numbers(text)
    if not found:
        return None
    start, end, number = found[0]
    if not set(re.findall(r"[a-z]+", text[:start].lower())) <= _LEADING:  # a sentence: its last number
        sentence = re.split(r"(?<=[^\s.][.!?])\s", text)[0]
        return (
            None if label and _OPERATOR.search(text) else tuple(value for *_, value in numbers(sentence)[-1:]) or None
        )
    if _OPERATOR.match(text, end):
        if label:  # a solution that begins behind "Answer:"
            return None
        result = text[end:].rpartition("=")[2] if "=" in text[end:] else ""
        return tuple(value for *_, value in numbers(result)[:1])
    if len(found) > 1 and _OTHER.fullmatch(text, end, found[1][0]):
        return (number, found[1][2])
    return (number,)


def _named(text: str) -> tuple[Fraction, ...] | None:
    found = last_number(bare(text))
    return None if found is None else (found[2],)
