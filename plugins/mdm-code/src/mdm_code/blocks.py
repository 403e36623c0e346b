"""Splits what a model wrote into blocks of code and prose, with fences as models write them and Markdown does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

FENCE = re.compile(r"`{3,}|~{3,}")
TAG = re.compile(r"\s*\{?\s*\.?([\w+#-]*)")
CODE_BEHIND_A_FENCE = re.compile(
    r"\s*(?:python|py)?\d*\s*((?:async\s+def|def|class)\s+\w+.*|import\s+\w.*|from\s+\S+\s+import\b.*|@\w.*)", re.I
)
"""An opening fence whose line already holds the program's first line."""

TRIES = 20
"""How many fences may stand in one string."""


@dataclass(frozen=True)
class Block:
    """A stretch of the text, in the order of the text."""

    text: str
    fenced: bool
    tag: str = ""
    """The language behind the fence, in lower case."""
    closed: bool = True
    """Whether a fence ends it; else the text went on with another block, or ended."""


@dataclass(frozen=True)
class _End:
    """A line at which an open block may end."""

    line: int
    before: str | None
    """Code on the same line."""
    closes: bool
    """False where the line opens another block."""


def blocks(text: str, whole: Callable[[str], bool], in_string: Callable[[str], bool]) -> Iterator[Block]:
    """The blocks of ``text``. ``whole`` says whether a text is code by itself, ``in_string`` whether a string is open
    at its end.

    A text that begins inside a fence (its prompt wrote the opening one) has its first block before the first fence.
    """
    lines, at, prose = text.split("\n"), 0, list[str]()
    first = True
    while at < len(lines):
        found = FENCE.search(lines[at])
        if not found:
            prose.append(lines[at])
            at += 1
            continue
        before, mark, behind = lines[at][: found.start()], found[0], lines[at][found.end() :]
        written = "\n".join([*prose, before])
        prose = []
        if first and not behind.strip() and whole(written):
            yield Block(written, True)
            first, at = False, at + 1
            continue
        first = False
        yield Block(written, False)
        if mark in behind:  # opened and closed on one line
            code, rest = behind.split(mark, 1)
            start = CODE_BEHIND_A_FENCE.match(code)
            yield Block(start[1] if start else code, True)
            prose, at = [rest], at + 1
            continue
        start = CODE_BEHIND_A_FENCE.match(behind)
        inside = [start[1]] if start else []
        tag = "" if start else TAG.match(behind)[1].lower()  # type: ignore[index]
        end = _end(lines, at + 1, inside, mark, whole, in_string)
        indent = re.compile(rf"[ \t]{{0,{len(before)}}}" if not before.strip() else "")
        inside += [indent.sub("", line, count=1) for line in lines[at + 1 : end.line]]
        inside += [] if end.before is None else [end.before]
        yield Block("\n".join(inside), True, tag, end.closes)
        at = end.line + end.closes
    if prose:
        yield Block("\n".join(prose), False)


def _end(
    lines: list[str], start: int, inside: list[str], mark: str,
    whole: Callable[[str], bool], in_string: Callable[[str], bool],
) -> _End:  # fmt: skip
    """Where the block ends whose first line is ``start``; a fence in a string of the program is part of it."""
    first, tries = None, 0
    for line in range(start, len(lines)):
        end = _ends(lines, line, mark)
        if end is None:
            continue
        tries += 1
        if tries > TRIES:
            break
        code = "\n".join([*inside, *lines[start:line], end.before or ""])
        if whole(code) if first else not in_string(code):
            return end
        first = first or end
    return first or _End(len(lines), None, False)


def _ends(lines: list[str], at: int, mark: str) -> _End | None:
    found = FENCE.search(lines[at])
    if not found or found[0][0] != mark[0]:
        return None
    before, behind = lines[at][: found.start()], lines[at][found.end() :]
    if not before.strip(" \t>"):
        if behind.strip():  # another block, or prose behind the fence; either way this one is over
            return _End(at, None, False)
        return _End(at, None, True) if len(found[0]) >= len(mark) else None
    if len(found[0]) < len(mark):
        return None
    if before.count('"') % 2 or before.count("'") % 2 or FENCE.search(behind):
        return None  # in a string, or a span in a comment
    return _End(at, before, True)
