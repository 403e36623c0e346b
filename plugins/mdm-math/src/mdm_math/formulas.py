r"""The formula that a completion settles on: what its last complete box holds, else what it states or names."""

from __future__ import annotations

import re

from mdm.protocols.answers import Statement, answer_part, bare, boxes, final, last_number, statements

_FORMULA = re.compile(
    r"\$\$(.{1,500}?)\$\$|(?<!\\)\$((?:\\.|[^$\n\\]){1,500})\$|\\\((.{1,500}?)\\\)|\\\[(.{1,500}?)\\\]", re.S
)
_AND = re.compile(
    r"""[\s$.\\()\[\]]{0,8}(?:,?\s?(?:and|or|\\text\{\s?(?:and|or)\s?\})|[,;])[\s$\\()\[\]]{0,8}
    (?:[a-zA-Z](?:_\{?\w\}?)?\s?=\s?)?""",
    re.X,
)
"""What stands between two boxes or formulas that are one answer."""
_REASON = re.compile(r"(?<=[^\s.])\.(?:\s|\Z)|\n|,?\s(?:because|since|as|which|when|where|for|if)\s")


def settled_formula(completion: str) -> str | None:
    """The formula that is the answer, as it is written, or None."""
    return final(answer_part(completion), _stated, _named, _statements)


def _statements(text: str) -> list[Statement]:
    """The boxes, boxes in a row as one; where there are none, every other statement."""
    rows: list[list[Statement]] = []
    for box in boxes(text):
        last = rows[-1][-1] if rows else None
        if last is not None and last.text is not None and box.text not in (None, last.text):
            between = text[last.begin + len(last.text) : box.start]
            if _AND.fullmatch(between.removeprefix("}")):
                rows[-1].append(box)
                continue
        rows.append([box])
    joined = [
        row[0]
        if len(row) == 1
        else Statement(row[0].start, row[-1].begin, ", ".join(box.text or "" for box in row), "box")
        for row in rows
    ]
    return joined or statements(text)


def _stated(statement: Statement) -> str | None:
    text = statement.text or ""
    if statement.kind == "box":
        return text
    return _formulas(text) or _REASON.split(text, maxsplit=1)[0].strip() or None


def _named(text: str) -> str | None:
    """The last formula of a text, or the last number where that comes later."""
    formula = next(reversed(list(_FORMULA.finditer(text))), None)
    tail = bare(text[formula.end() :] if formula else text)
    if found := last_number(tail):
        return tail[found[0] : found[1]].strip()
    return formula[formula.lastindex or 0] if formula else None


def _formulas(text: str) -> str | None:
    """The first formula of a statement, with those that follow it as parts of one answer."""
    found = list(_FORMULA.finditer(text))
    if not found:
        return None
    parts = [found[0]]
    for formula in found[1:]:
        if not _AND.fullmatch(text[parts[-1].end() : formula.start()]):
            break
        parts.append(formula)
    return ", ".join(str(part[part.lastindex or 0]) for part in parts)
