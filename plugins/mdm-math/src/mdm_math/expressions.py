r"""Whether two LaTeX answers mean the same: numbers exactly, lists and brackets by their kind, the rest by math-verify.

Kinds are kept apart: ``1,2`` and ``\{1,2\}`` are a list, whose order is free; ``(1,2)``, ``[1,2)`` and so on are pairs
with the brackets that they have, tuples and intervals alike; an inequality is no interval.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Protocol

from mdm.protocols.answers import NUMBER, THIN, numbers, plain, undress


class Same(Protocol):
    """Compares two expressions in full."""

    def __call__(self, gold: str, answer: str, places: int | None = None) -> bool:
        """Whether both are equal, or, with ``places``, whether ``answer`` is ``gold`` rounded to so many decimals."""


LONGEST = 500
"""Characters of an answer; what is longer is compared as text."""
DIGITS = 6
"""Significant digits from which a rounded decimal stands for a number that has no finite one."""

_TIDY = [(re.compile(pattern), text) for pattern, text in (
    (r"(?<=\d)(?:\{,\}|\s?,\s?\\!|\\!,)\s?(?=\d{3}(?!\d))", THIN),
    (r"(?<=\d)(?:\\[,;: >]|~|\\space(?![a-zA-Z]))\s?(?=\d{3}(?!\d))", THIN),
    (r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\s?", ""), (r"\\(?:displaystyle|textstyle|limits)(?![a-zA-Z])", ""),
    (r"\\frac\s?(\\pi|[a-zA-Z])\s?(\d)", r"\\frac{\1}{\2}"), (r"\\(?:mathrm|text)\s?\{\s?([ei])\s?\}", r"\1"),
    (r"(?<=[,(\[])\s?\+\s?(?=\\infty|∞)", ""), (r"\\!|\{\}", ""), (r"(?<!\\)(?:\\[,;:> ]|~)|\\q?quad(?![a-zA-Z])", " "),
    (r"\\[dtc]frac", r"\\frac"), (r"\\frac\s?(\d)\s?(\d)", r"\\frac{\1}{\2}"),
    (r"\\frac\s?(\d)\s?\{", r"\\frac{\1}{"), (r"(\\frac\s?\{[^{}]{0,200}\})\s?(\d)", r"\1{\2}"),
    (r"\\sqrt\s?(\d)", r"\\sqrt{\1}"), (r"√\s?(\d+|\w)", r"\\sqrt{\1}"),
    (r"π", r"\\pi "), (r"∞", r"\\infty "), (r"∪", r"\\cup "), (r"±", r"\\pm "), (r"∈", r"\\in "),
    (r"≤|\\leq(?![a-z])|\\leqslant", r"\\le "), (r"≥|\\geq(?![a-z])|\\geqslant", r"\\ge "), (r"\*\*", "^"),
    (r"\^\s?\{?\\circ\s?\}?|\^?\{?\\degree\}?|°", " degrees"),
    (r"\\text\s?\{\s?,?\s?(?:and|or)\s?\}|,?\s(?:and|or)\s", ","),
    (r"\\(?:mathrm|mathbf|mathit|textrm|mbox|textbf|textit)\s?\{", r"\\text{"),
    (r"\s+", " "), (r"(?<=\d) (?=[a-zA-Z](?![a-zA-Z]))", ""),
    (r"\s?(?:_\s?\{?\s?\\text\s?\{\s?base\s?(\w{1,5})\s?\}\s?\}?|\\text\s?\{\s?,?\s?\(?(?:in\s)?base\s?"
     r"(?:\}\s?(\d\d?)|(\d\d?)\)?\s?\}))\Z", r"_{\1\2\3}"),
)]  # fmt: skip
_UNIT = re.compile(
    r"(?:(?<=[\d})])|(?<=\\pi)|(?<=\\pi\s))\s?(?:\\text\s?\{\s?([^{}\d]*)\}"
    r"|(\\?%|(?:\s?(?!pi|sqrt|sin|cos|tan|log|exp)[a-z]{2,}\.?){1,4}))(?:\s?\^\s?\{?[23]\}?|[²³])?\Z"
)
_TIMES = {"thousand", "million", "billion", "trillion"}
_MIXED = re.compile(r"([-+]?)\s?(\d{1,9})?\s?\\frac\s?\{(-?\d{1,50})\}\s?\{(-?\d{1,50})\}")
_POWER = re.compile(r"([-+]?[\d.,]{1,60})\s?(?:\\times|\\cdot|\*|x)\s?10\s?\^\s?\{?\s?([-+]?\d{1,3})\s?\}?")
_NAME = re.compile(
    r"(?:\\(?:angle|triangle|text|overline|vec|mathbf|operatorname)\s?)?\{?[a-zA-Z][a-zA-Z ]{0,30}\}?(?:_\{?\w+\}?)?'*"
    r"(?:\s?\([^()=]{1,12}\))?|\\[a-zA-Z]+(?:_\{?\w+\}?)?|\(\s?[a-zA-Z](?:\s?,\s?[a-zA-Z])+\s?\)"
)
_CLOSING = {"(": ")", "[": "]", "\\{": "\\}", "{": "}"}
_OPEN, _CLOSE = re.compile(r"\\\{|[(\[{]"), re.compile(r"\\\}|[)\]}]")


def tidy(answer: str) -> str:
    """LaTeX with one spelling for what can be spelt in several ways; the meaning is kept."""
    answer = undress(plain(answer))
    for pattern, text in _TIDY:
        answer = pattern.sub(text, answer)
    return undress(answer).strip()


def equivalent(gold: str, answer: str, same: Same, question: str = "") -> bool:
    """Whether ``answer`` means ``gold``.

    What is named before "=", as in "m+n=16", must stand in the ``question`` if it is more than a name.
    """
    gold, answer = tidy(gold), tidy(answer)
    if not gold or not answer:
        return False
    if _text(gold) == _text(answer):
        return True
    if max(len(gold), len(answer)) > LONGEST:
        return False
    gold, answer = _without_name(gold, answer, question)
    return bool(answer) and _equal(gold, answer, same, 0)


def _equal(gold: str, answer: str, same: Same, depth: int) -> bool:
    (gold, unit), (answer, other) = _without_unit(gold), _without_unit(answer)
    if unit and other and unit[0] != other[0]:
        return False
    if _text(gold) == _text(answer):
        return True
    if re.fullmatch(r"(?:\\text\s?\{)?\(?[a-zA-Z][a-zA-Z ]*\)?\}?", gold) and (len(gold) > 1 or gold.isupper()):
        words = [re.sub(r"[\W_]", "", re.sub(r"\\text\s?\{", "", text)) for text in (gold, answer)]
        return words[0] == words[1] or (len(words[0]) > 2 and words[0].casefold() == words[1].casefold())
    left, right = number(gold), number(answer)
    if left is not None and right is not None:
        return left == right or ("%" in other and left == right / 100) or _rounded(left, right, _places(answer))
    (kind, parts), (other_kind, others) = _parts(gold), _parts(answer)
    if kind != other_kind or len(parts) != len(others):
        return False
    if kind == "one":
        if _base(gold) or _base(answer):
            return _base(gold) == _base(answer)
        if _letters(gold) & {letter.swapcase() for letter in _letters(answer) - _letters(gold)}:
            return False  # math-verify takes r and R for the same
        places = None if right is None else _places(answer)
        return same(_exact(gold), _exact(answer)) or (places is not None and same(_exact(gold), answer, places))
    if depth > 3:
        return False
    if kind != "list":
        return all(_equal(a, b, same, depth + 1) for a, b in zip(parts, others, strict=True))
    for part in parts:  # in any order
        match = next((other for other in others if _equal(part, other, same, depth + 1)), None)
        if match is None:
            return False
        others.remove(match)
    return True


def number(text: str) -> Fraction | None:
    """The exact value of a text that is a number and nothing else."""
    text = text.strip("$ ").replace("\\$", "").replace("$", "").replace("\\%", "").strip("% ")
    while text[:1] == "(" and text[-1:] == ")" and "," not in text:
        text = text[1:-1].strip()
    if mixed := _MIXED.fullmatch(text):
        below = int(mixed[4])
        if below == 0:
            return None
        value = Fraction(int(mixed[3]), below)
        value = int(mixed[2]) + value if mixed[2] else value
        return -value if mixed[1] == "-" else value
    if power := _POWER.fullmatch(text):
        base = number(power[1])
        return None if base is None else base * Fraction(10) ** int(power[2])
    text = (
        re.sub(r"(?<=\d) (?=\d{3}(?!\d))", THIN, text)
        if re.fullmatch(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?", text)
        else text
    )
    found = numbers(text)
    if text[-1:] in ("k", "K"):  # a variable here, no thousand
        return None
    return found[0][2] if found and found[0][:2] == (0, len(text)) else None


def _letters(text: str) -> set[str]:
    """The letters that stand for something, outside of LaTeX commands."""
    return set(re.findall(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", " ", text)))


def _places(text: str) -> int | None:
    """The decimals of a number that has at least ``DIGITS`` significant digits; None for other texts."""
    match = NUMBER.search(text)
    if match is None or not match["part"]:
        return None
    digits = re.sub(r"\D", "", (match["whole"] or "") + match["part"]).lstrip("0")
    return len(match["part"]) - 1 if len(digits) >= DIGITS else None


def _rounded(exact: Fraction, value: Fraction, places: int | None) -> bool:
    """Whether a number without a finite decimal is ``value`` when it is rounded to ``places``."""
    below = exact.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return places is not None and below > 1 and abs(value - exact) <= Fraction(1, 2 * 10**places)


def _exact(text: str) -> str:
    """LaTeX whose decimals are fractions, so that nothing is rounded when it is compared."""

    def fraction(match: re.Match[str]) -> str:
        whole, part = match[1] or "0", match[2]
        return f"\\frac{{{int(whole + part)}}}{{{10 ** len(part)}}}"

    text = text.replace(THIN, "").replace("\\$", "").replace("$", "")
    return re.sub(r"(?<![\d.])(\d{0,60})\.(\d{1,60})(?![\d.])", fraction, text)


def _text(answer: str) -> str:
    """For comparing as text: blanks count only between digits and between words."""
    answer = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", answer) if number(answer) is not None else answer
    return re.sub(r"(?<![\da-zA-Z]) | (?![\da-zA-Z])", "", answer.replace(THIN, "").replace("\\$", "").replace("$", ""))


def _base(text: str) -> tuple[str, str] | None:
    match = re.fullmatch(
        r"\(?(\w+?)\)?\s?_\s?\{?\s?(?:\\text\s?\{)?\(?(\d+|two|three|four|five|six|seven|eight|nine)\)?\s?\}{0,2}", text
    )
    if match is None or not match[1][0].isdigit():
        return None
    words = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
    return match[1].lstrip("0"), str(words.index(match[2]) + 2) if match[2] in words else match[2]


def _without_unit(answer: str) -> tuple[str, str]:
    """An answer and the unit that it ends with or the currency that it begins with."""
    match = _UNIT.search(answer)
    currency = "dollars" if re.match(r"[-+]?\s?\\?\$", answer) else ""
    if match is None:
        return answer, currency
    unit = re.sub(r"\b(?:square|sq|cubic|cu)\b|[^a-z%]", "", (match[1] if match[1] is not None else match[2]).lower())
    if unit in _TIMES or (unit.endswith(tuple(_TIMES))):
        return answer, currency
    return answer[: match.start()].strip(), unit or currency


def _without_name(gold: str, answer: str, question: str) -> tuple[str, str]:
    """Both without "x =" and "x in", where only one has it or both have the same."""
    gold_name, gold_value = _named(gold)
    name, value = _named(answer)
    asked = re.sub(r"\s", "", tidy(question))
    if name is None and gold_name is None:
        return gold, answer
    if gold_name is None:
        known = name is not None and (
            _NAME.fullmatch(name) is not None or not re.search(r"[a-zA-Z]", re.sub(r"\\[a-z]+", "", name))
            or re.sub(r"\s", "", name) in asked
        )  # fmt: skip
        return gold, (value if known else "")
    if name is None and _NAME.fullmatch(gold_name):
        return gold_value, answer
    if name is not None and _text(name) == _text(gold_name) and re.fullmatch(_NAME, name):
        return gold_value, value
    return gold, answer


def _named(text: str) -> tuple[str | None, str]:
    """What stands before the last "=" or "in", if anything, and what stands behind it."""
    if re.search(r"[<>]|\\(?:le|ge|ne)(?![a-z])", text):
        return None, text
    cuts = [match for match in re.finditer(r"=|\\in(?![a-z])", text) if _depth(text[: match.start()]) == 0]
    if not cuts:
        return None, text
    if len(cuts) > 1 and len(_split(text)) > 1:  # "x = 1, x = 2"
        pairs = [_named(part) for part in _split(text)]
        names = {name for name, _ in pairs if name}
        return (names.pop(), ",".join(value for _, value in pairs)) if len(names) == 1 else (None, text)
    return text[: cuts[-1].start()].split("=")[0].strip(), text[cuts[-1].end() :].strip()


def _depth(text: str) -> int:
    return len(_OPEN.findall(text)) - len(_CLOSE.findall(text))


def _split(text: str) -> list[str]:
    """The parts between the commas and semicolons that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for token in re.finditer(r"\\[{}]|\\.|[()\[\]{},;]", text, re.S):
        if _OPEN.fullmatch(token[0]):
            depth += 1
        elif _CLOSE.fullmatch(token[0]):
            depth -= 1
        elif token[0] in ",;" and depth == 0:
            parts.append(text[start : token.start()])
            start = token.end()
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def _parts(text: str) -> tuple[str, list[str]]:
    """The kind of an answer ("one", "list", or its brackets) and what it holds."""
    outer = _brackets(text)
    if outer is None:
        parts = _split(text)
    else:
        inside = text[len(outer[0]) : len(text) - len(outer[1])].strip()
        parts = _split(inside)
        if outer[0] == "\\{":
            return "list", [one for part in parts for one in _both_signs(part)]
        if len(parts) > 1:
            return "".join(outer), parts
        if outer == ("(", ")"):
            return _parts(inside)
        return "one", [text]
    parts = [one for part in parts for one in _both_signs(part)]
    return ("list", parts) if len(parts) > 1 else ("one", [text])


def _both_signs(part: str) -> list[str]:
    return [part.replace("\\pm", sign) for sign in "+-"] if part.count("\\pm") == 1 and "\\mp" not in part else [part]


def _brackets(text: str) -> tuple[str, str] | None:
    """The brackets around the whole text, if there are any: those that close each other, or an interval's."""
    first, last = re.match(r"\\\{|[(\[]", text), re.search(r"(?:\\\}|[)\]])\Z", text)
    if first is None or last is None:
        return None
    depth = 0
    for token in re.finditer(r"\\[{}]|\\.|[()\[\]{}]", text, re.S):
        depth += 1 if _OPEN.fullmatch(token[0]) else -1 if _CLOSE.fullmatch(token[0]) else 0
        if depth == 0:
            return (first[0], last[0]) if token.end() == len(text) else None
    return None
