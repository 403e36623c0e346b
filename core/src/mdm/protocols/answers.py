r"""Reads final answers: where an answer ends, what a completion states it to be, its dress, its numbers.

Shared by tasks whose answers are letters, numbers, boxes, equations or grids; what such an answer means is each task's
own affair. These are plain functions of text. They raise on none and take time in proportion to its length.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

Value = TypeVar("Value")

THIN = "\u202f"
"""The narrow blank that stands within a number."""
LONGEST, MOST, DEEPEST = 2000, 50, 12
"""How many characters of a statement, how many statements and how many layers of dress are read."""

_TYPOGRAPHY = {
    **dict.fromkeys(map(ord, "\u2212\u2010\u2011\u2012\u2013\u2014\ufe63"), "-"),
    **dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u200a\u202f"), THIN),
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\r")),
    **dict.fromkeys(map(ord, "\u00b7\u22c5\u2217\u2219\u00d7"), "*"),
    **dict.fromkeys(map(ord, "\u00f7\u2215\u2044"), "/"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u00ab\u00bb"), '"'),
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a"), "'"),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width
    ord("\u3002"): ".",
    **{ord(sign): f"^{power}" for sign, power in zip("\u00b2\u00b3", "23", strict=True)},
    **{
        ord(sign): f" {part}"
        for sign, part in zip("\u00bd\u00bc\u00be\u2153\u2154", ("1/2", "1/4", "3/4", "1/3", "2/3"), strict=True)
    },
}
_NEXT = re.compile(
    r"""^[\#>*_ \t]{0,12}(?:(?:next|new)\s)?(?:question|problem|exercise|q)\s?\d{0,4}\s?[*_]{0,3}:
    | ^[\# \t]{0,12}<?\|?(?:user|assistant|human)\|?>?[ \t]{0,4}:?[ \t]{0,4}$ | ^[\# ]{0,12}(?:user|human|instruction):
    | (?<=[\d\W])(?<!\s)(?:user|assistant)(?:[ \t]{0,4}\n|\Z)  # tokens of a turn left out
    | (?<=\S)(?:user|assistant)\n\n
    | <\|(?:im_end|im_start|eot_id|eom_id|endoftext|end_of_text|end|start_header_id)\|> | </s> | <eos> | <end_of_turn>
    """,
    re.I | re.M | re.X,
)
_STATED = re.compile(
    r"""^(?:[^\w\n]|_){0,12}(?:(?:my|the|final|correct)\s){0,2}answer(?:[^\w\n]|_){0,12}$  # a heading
    | \#{4,} | <answer>
    | (?<!to\s)(?<!wrong\s)(?<!incorrect\s)\banswers?\b [^.\n:=?!\#]{0,60}?
      (?: (?:\bis\b|\bare\b|\b(?:should|would|must|will)\sbe\b)(?:[*_ ]{0,4}:)? | [:=] )
    | \b(?:correct|right|best|final)\s(?:answer\s)?(?:option|choice|letter|statement)\b [^.\n:=?!\#]{0,60}?
      (?: \bis\b(?:[*_ ]{0,4}:)? | : )
    """,
    re.I | re.M | re.X,
)
_SAID = re.compile(r"[^\w\n]*(?:\n[^\w\n]*)*")
_BULLET = re.compile(r"\s*[-*+]\s")
_BOX = re.compile(r"(?:\\|(?<![a-zA-Z]))f?boxed\s*\{|\\fbox\s*\{|\\f?boxed\s*(-?\d[\d.,/]*|[A-Z]\b)|\\.|[{}]", re.S)
_NEGATED = re.compile(r"[\W_]{0,8}(?:not|neither|never|unlikely|unknown|unclear|wrong|incorrect)\b|n't\b", re.I)
_SUPPOSED = re.compile(
    r"(?:\b(?:if|whether|unless|suppose|supposing|assume|assuming)|\bnot\s\w{2,9}|n't\s\w{2,9})\s"
    r"(?:that\s)?(?:(?:the|my|its|a)\s)?(?:(?:final|correct|right)\s)?\Z",
    re.I,
)
"""What stands before an answer that is only thought of: "if the answer is 5", "I do not think that the answer is 5"."""
_WITHDRAWN = re.compile(
    r"""(?: (?:\A|[-.!?;:,()*\n])[ \t]{0,3} | \b(?:no|oh|but|hmm|actually)[ ,]{1,2} ) wait\b(?!\s(?:for|until|\d))
    | (?:\A|[.!?)*\n])[ \t]{0,3}(?:no[,.]\s|actually\b|correction\b) | \bscratch\sthat\b
    | \b(?:i|we)\s(?:was|were)\swrong\b
    | \b(?:i|we)(?:'ve|\shave)?\s(?:just\s)?ma[dk]e\s(?:a|an)\s(?:\w+\s)?(?:mistake|error)
    | \b(?:that|this|it|which)(?:\sanswer)?(?:'s|\sis|\swas)\s(?:\w+\s)?
      (?:wrong|incorrect|not\s(?:right|correct)|a\smistake)
    | \b(?:that|this|it)(?:\sanswer)?\s(?:isn't|wasn't|can't\sbe|cannot\sbe)\s(?:right|correct)
    | \blet(?:'s|\sme|\sus)\s(?:redo|recompute|recalculate|reconsider|try\sagain)\b
    """,
    re.I | re.X,
)
_CONFIRMED = re.compile(
    r"""\b(?:that|this|it|which|answer|result|solution|calculation|everything)(?:'s|\sis|\swas)\s(?:(?!not\b)\w+\s)?
    (?:correct|right)\b | \bchecks\sout\b | \bconfirm(?:s|ed)\b""",
    re.I | re.X,
)
_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|texttt|textsf|emph|underline|mathrm|mathbf|mathit|mathsf|mathtt|mbox"
    r"|boldsymbol|bm|boxed|fbox|fboxed|operatorname|displaystyle|bfseries|bf|rm)(?![a-zA-Z])\s*"
)
_LATEX = [(re.compile(pattern), text) for pattern, text in (
    (r"\\[dtc]?frac\s?(\d)\s?(\d)(?!\d)", r"\\frac{\1}{\2}"),
    (r"(?<=\d)\s?\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}", r" \1/\2"),
    (r"\\[dtc]?frac\s*\{(-?\d+)\}\s*\{(\d+)\}", r"\1/\2"),
    (r"(?<!\\)\\[,;:> ]|(?<=\d)~(?=\d)", THIN), (r"\\!", ""), (r"\\\\|\\[\[\]()]|\\q?quad\b", "\n"),
    (r"\\(?:times|cdot|ast)(?![a-zA-Z])\s*", "*"), (r"\\div(?![a-zA-Z])\s*", "/"),
    (r"\\(?:approx|sim|simeq)(?![a-zA-Z])", "~"), (r"\\([$%#&_*])", r"\1"),
    (_WRAPPER.pattern, ""), (r"</?(?:b|i|u|em|strong|br)\s?/?>", ""),
    (r"(?<=\d)(?:\}\{|\$|\*\*)(?=\d)", " "), (r"[{}$`]|\*\*+", ""), (r"(?<![^\W_])_+|_+(?![^\W_])", ""),
)]  # fmt: skip
NUMBER = re.compile(
    r"""(?<![\w.\\^])(?<!\d[,/:])(?P<sign>(?<!\d\s)(?<!\)\s)[-+]|\A[-+]\s)?\s?(?:[€£¥₹]|us|usd|rs\.?)?\s?(?P<minus>-)?
    (?P<whole>\d{1,3}(?:[,\u202f]\d{3}){1,99}(?![\d\u202f])|\d{1,400})?(?P<part>\.\d{1,400})?(?(whole)|(?(part)|(?!)))
    (?:(?:\ (?P<over>\d{1,9}))?/(?P<under>\d{1,9}))?
    (?!\d|[.:,'_^/]\d|(?:st|nd|rd|th)\b)
    (?:e(?P<power>[-+]?\d{1,3})\b)?(?:\s?(?P<times>hundred|thousand|million|billion|trillion)\b|(?P<k>k)\b)?""",
    re.I | re.X,
)
"""A number with sign, currency, thousands in groups, fraction and ``million``; glued to no letter, digit or point."""
_DENIED = re.compile(r"(?:\b(?:can)?not|n't)\s(?:be\s)?(?:equals?\s(?:to\s)?)?\Z", re.I)
_TIMES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


@dataclass(frozen=True)
class Statement:
    """A place where a text says what its answer is."""

    start: int
    begin: int
    """Where what is said begins, behind ``answer is`` or the like."""
    text: str | None
    """What is said; None where a box was begun and not finished."""
    kind: str
    """``box``, or how it is introduced, in lower case: ``####``, ``answer:``, ``answer is``, …"""


def plain(text: str) -> str:
    """The text with ASCII signs, quotes and full-width characters; a blank within a number is ``THIN``."""
    return text.translate(_TYPOGRAPHY)


def answer_part(completion: str) -> str:
    """The plain text that can hold the answer: behind ``</think>``, before a next question, turn or end token."""
    text = plain(completion)
    if thought := text.rpartition("</think>")[2].strip():
        text = thought
    for mark in _NEXT.finditer(text):
        if re.search(r"[^#>*_\s]", text[: mark.start()]):
            return text[: mark.start()]
    return text


def boxes(text: str) -> list[Statement]:
    r"""Each outermost ``\boxed{…}`` (also ``\fbox``, ``\boxed 5``) that is not empty, and unfinished ones, in order."""
    found: list[Statement] = []
    opened: list[re.Match[str] | None] = []  # of each open brace, the box that it begins
    for token in _BOX.finditer(text):
        if token[0] == "}":
            box = opened.pop() if opened else None
            if box and text[box.end() : token.start()].strip():
                while found and found[-1].start > box.start():
                    found.pop()
                found.append(Statement(box.start(), box.end(), text[box.end() : token.start()], "box"))
        elif token[0][-1] == "{" and token[0] != "\\{":
            opened.append(token if len(token[0]) > 1 else None)
        elif token[1]:
            found.append(Statement(token.start(), token.start(1), token[1].rstrip(".,"), "box"))
    found.sort(key=lambda box: box.start)
    for box in filter(None, opened):
        before = next((one for one in reversed(found) if one.start < box.start()), None)
        repeated = before is not None and (before.text or "").startswith(text[box.end() :].strip())
        if not repeated:  # a text that says the same again and again is cut off somewhere
            found.append(Statement(box.start(), box.end(), None, "box"))
    return sorted(found, key=lambda box: box.start)


def statements(text: str) -> list[Statement]:
    """Everywhere the text says what its answer is, in order: boxes, ``####``, ``answer is``, ``Answer:``, …"""
    found = boxes(text)
    for mark in _STATED.finditer(text):
        begin, kind = mark.end(), " ".join(re.sub(r"[^\w\s:=#<>]|_", "", mark[0]).lower().split())
        if kind == "<answer>":
            end = text.find("</answer>", begin)
        else:
            said = _SAID.match(text, begin)
            word = said.end() if said else begin
            if (line := text.rfind("\n", begin, word) + 1) > 0:  # it stands on a line below
                bullet = _BULLET.match(text, line)
                begin = bullet.end() if bullet else line
            end = text.find("\n", word)
        said_text = text[begin : min(end if end >= 0 else len(text), begin + LONGEST)]
        supposed = _SUPPOSED.search(text, max(0, mark.start() - 40), mark.start())
        if said_text.strip() and not _NEGATED.match(said_text) and not supposed:
            found.append(Statement(mark.start(), begin, said_text, kind))
    return sorted(found, key=lambda one: one.start)


def withdrawn(text: str, begin: int) -> int | None:
    """Where an answer that begins at ``begin`` has been taken back ("Wait, …", "that is wrong"), if it is.

    It is not where the text confirms it after all.
    """
    ends = [back.end() for back in _WITHDRAWN.finditer(text, begin)]
    return ends[-1] if ends and not _CONFIRMED.search(text, ends[-1]) else None


def final(
    text: str,
    read: Callable[[Statement], Value | None],
    name: Callable[[str], Value | None],
    state: Callable[[str], list[Statement]] = statements,
) -> Value | None:
    """The answer: the last stated one that can be read, else the one that is merely named.

    ``read`` gives what a statement says and ``name`` what a text without statements names, or None; ``state`` finds the
    statements. A box that was begun and not finished is no answer, and after an answer that was taken back only what
    follows counts.
    """
    stated = state(text)[-MOST:]
    if len(stated) > 2 and _cut_off(*stated[-3:]):
        stated.pop()
    for statement in reversed(stated):
        if statement.text is None:
            return None
        value = read(statement)
        if value is not None:
            back = withdrawn(text, statement.begin)
            return value if back is None else final(text[back:], read, name, state)
    return name(text)


def _cut_off(first: Statement, again: Statement, last: Statement) -> bool:
    """Whether the last of three statements is the beginning of the same one: a text that repeats itself has an end."""
    said = (last.text or "").strip()
    return first.text == again.text != last.text and (again.text or "").strip().startswith(said)


def undress(text: str) -> str:
    r"""LaTeX or text without what only surrounds it: emphasis, quotes, ``$``, ``\text{}``, ``\boxed{}``, full stops."""
    for _ in range(DEEPEST):
        before = text
        text = text.strip("*_`\"' \t\n\f\v" + THIN + "$~")
        text = re.sub(r"\A\\(?:[\[(,;:! ]|displaystyle|quad)\s*|\s{0,3}\\(?:[\]),;:! \\]|quad)\Z", "", text)
        text = text.rstrip(".,;:").lstrip(":=")
        wrapper = _WRAPPER.match(text)
        inner = text[wrapper.end() :] if wrapper else text
        if inner[:1] == "{" and _closes(inner) == len(inner) - 1:
            text = inner[1:-1]
        if text == before:
            break
    return text


def _closes(text: str) -> int:
    """The index of the brace that closes the one at the start, or -1."""
    depth = 0
    for token in re.finditer(r"\\.|[{}]", text, re.S):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.start()
    return -1


def bare(text: str) -> str:
    """Plain text without LaTeX's and Markdown's dress anywhere in it, for texts that are no formulas."""
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text


def numbers(text: str) -> list[tuple[int, int, Fraction]]:
    """Start, end and exact value of each number in a bare text."""
    found = [(match.start(), match.end(), _value(match)) for match in NUMBER.finditer(text)]
    return [(start, end, value) for start, end, value in found if value is not None]


def last_number(text: str) -> tuple[int, int, Fraction] | None:
    """The last number of a bare text that is not denied ("it is not 5")."""
    found = [one for one in numbers(text) if not _DENIED.search(text, max(0, one[0] - 30), one[0])]
    return found[-1] if found else None


def _value(match: re.Match[str]) -> Fraction | None:
    number = Fraction(re.sub(r"\D", "", match["whole"] or "0") + (match["part"] or ""))
    if match["under"]:
        if int(match["under"]) == 0 or match["part"]:
            return None
        below = int(match["under"])
        number = number + Fraction(int(match["over"]), below) if match["over"] else number / below
    number *= Fraction(10) ** int(match["power"] or 0)
    number *= 1000 if match["k"] else _TIMES.get((match["times"] or "").lower(), 1)
    return -number if (match["sign"] or "").startswith("-") != bool(match["minus"]) else number
