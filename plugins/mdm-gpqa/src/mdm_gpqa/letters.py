"""The letter of the choice that a completion settles on."""

from __future__ import annotations

import re

from mdm.protocols.answers import Statement, answer_part, bare, final, statements

_LETTER = r"""(?:\\text(?:bf)?\{|[*_"'$`({\[]){0,5}([A-D])[)\]}*_"'$`]{0,5}(?![\w'])"""
_NOUN = r"(?:(?i:the\s)?(?i:option|choice|letter|answer)\s)?"
_END = r"(?=[\s.*]{0,4}(?:\Z|\n)|[.,;!]|\s(?:as|since|because|by|given|for)\b)"
_DECIDED = re.compile(
    rf"""(?<!if\s)(?<!whether\s)(?<!that\s)(?<!\w){_LETTER}\s(?i:is|must\sbe|seems|appears)\s(?i:to\sbe\s)?(?i:\w+ly\s)?
      (?i:the\s)?(?i:only\s|most\s)?(?i:correct|right|best|answer|accurate|valid|true|one\sthat)\b
    | \b(?i:choose|choosing|chose|select|selecting|pick|picking|go\swith|opt\sfor|settle\son)\s{_NOUN}{_LETTER}
    | \b(?i:so|thus|therefore|hence|must\sbe|which\sis|it\sis|it's|leaves|leaving|i\.e\.),?\s(?i:it's\s|it\sis\s)?
      {_NOUN}{_LETTER}{_END}
    | \b(?i:answer)(?:\s(?i:option|choice))?\s(?=[*_]{{0,3}}[(\[]){_LETTER}{_END}
    | (?i:only|that)\s{_NOUN}{_LETTER}\s(?i:remains|fits|works|matches|is\sleft|is\sconsistent)""",
    re.X,
)
"""How a choice is decided on without the words "answer is"."""
_HEAD = re.compile(
    r"[\W_]*(?:(?P<noun>option|choice|letter|answer)\b[\s:]*)?[\W_]*?(?P<open>[(\[])?(?P<letter>[A-D])(?!\w)", re.I
)
_GOES_ON = re.compile(
    r"""\s*\Z | \s?[)\].:,;!](?![A-Z]\.) | \s?["*_]{1,3}(?:\W|\Z) | \s-{1,2}\s | \s\( | \n
    | \s(?:is|because|since|as|given|due|which|or|and|not)\b""",
    re.X,
)
"""What may follow a bare letter; "A proton" begins with an article and "D-glucose" with a name."""
_OTHER = re.compile(r"[)\].]?\s?(?:/|&|,?\s?(?:or|and)\s|,)\s?[(\[]?([A-D])[)\]]?(?=\s*(?:\Z|[.,;\n]))", re.I)
_MENTIONED = re.compile(r"(?<!\w)(?:[(\[]([A-D])[)\]]|(?i:option|choice)\s([A-D])(?!\w))")
_BEFORE = re.compile(
    r"(?:\bnot|n't|\bthan|\bneither|\bnor|\bif|\bwhether|\bsuppose|\bunlike|\bunlikely\sto|\bof|\bexcept(?:\sfor)?|\b(?:wrong|incorrect|false)\s\w{1,9}\sis|\b(?:consider|examin|evaluat|analy[sz]|check)\w*|\blook(?:ing)?\sat|\b(?:eliminat|exclud|reject|discard)\w*|\brul\w+\sout)\s"
    r"(?:be\s)?(?:option\s|choice\s)?\Z",
    re.I,
)
_AFTER = re.compile(
    r"[)\].:]*\s?\?|[)\].:]*\s?[^.,;()\n]{0,30}?(?:\b(?:not|wrong|incorrect|false|impossible|cannot|excluded|eliminated|ruled|too|invalid"
    r"|inconsistent|fails?|violates?|contradicts?|unlikely|odd|out)\b|n't\b)",
    re.I,
)
_LINE = re.compile(r"^[\W_]*?[(\[]?([A-D])(?:[)\].:]+(?=\s|\Z|\n)|\s-\s|[\W_]*$)", re.M)

_DISCUSSED = re.compile(
    r"[)\].:]*\s(?:is|was|would|could|might|may|gives?|has|requires?|means|says|implies|predicts)\b"
)
"""The letter is what a sentence talks of: "(B) would require"."""
_EXPLAINED = re.compile(
    r"(?![^\n]*\b(?:is|are|was|be|would|gives?|has|does|can|cannot|requires?|means|says|implies|leads|predicts)\b)[^\n]{1,200}\n"
    r"(?:\s*\n|\W*(?:explanation|reason|rationale|because|justification|solution))",
    re.I,
)
"""A line that is no sentence, and what explains it below."""


def settled_letter(completion: str) -> str | None:
    """The one letter that is the answer of a completion, in upper case; None where it gives none or several."""
    letters = final(answer_part(completion), _stated, _named, _statements)
    return letters if letters and len(letters) == 1 else None


def _statements(text: str) -> list[Statement]:
    decided = []
    for match in _DECIDED.finditer(text):
        group = match.lastindex or 0
        if not _BEFORE.search(text, max(0, match.start(group) - 30), match.start(group)):
            decided.append(Statement(match.start(), match.start(group), match[group], "decided"))
    return sorted(statements(text) + decided, key=lambda one: one.start)


def _stated(statement: Statement) -> str | None:
    """The letter, or the letters, that a statement gives."""
    text = re.sub(r"""["']([A-Da-d])["']""", r"\1", bare(statement.text or "").strip())
    head = _HEAD.match(text)
    if head:
        letter, rest = head["letter"], text[head.end() :]
        closed = bool(head["open"]) and rest[:1] in (")", "]")
        alone = not re.search(r"\w", rest.split("\n", 1)[0])
        boxed = statement.kind == "box" and letter in "BCD" and rest[:1].isspace()
        if closed or alone or (letter.isupper() and (head["noun"] or boxed or _GOES_ON.match(rest))) or (
            head["noun"] and letter.islower() and _GOES_ON.match(rest)
        ):  # fmt: skip
            if _AFTER.match(rest) and not re.match(r"\W*\w+\W+\w", rest):
                return None
            other = _OTHER.match(rest)
            return letter.upper() if other is None else letter.upper() + other[1].upper()
    mentioned = _mentioned(re.split(r"(?<=\w\w)\.\s|\n", text)[0])
    return "".join(sorted(mentioned)) or None


def _mentioned(text: str) -> set[str]:
    """The choices that a text names and does not exclude."""
    return {
        match[1] or match[2]
        for match in _MENTIONED.finditer(text)
        if not _BEFORE.search(text, max(0, match.start() - 30), match.start()) and not _AFTER.match(text, match.end())
    }


def _named(text: str) -> str | None:
    """The choice that a text without statements names: its only line "B. …", else the only one of its last sentence."""
    text = bare(text).strip()
    if alone := re.fullmatch(r"[\W_]*([A-Da-d])[\W_]*", text):
        return alone[1].upper()
    lines = [
        line
        for line in _LINE.finditer(text)
        if not (_AFTER.match(text, line.end(1)) or _DISCUSSED.match(text, line.end(1)))
    ]
    begun = {line[1] for line in _LINE.finditer(text)}
    if (
        len(begun) == 1 and lines and not re.search(r"\w", text[: lines[0].start(1)]) and _EXPLAINED.match(text)
        and not _AFTER.match(text, lines[0].end(1))
    ):  # fmt: skip
        return lines[0][1]  # "B. 5 eV", then why
    last_line = text.rfind("\n") + 1
    if (
        lines
        and lines[-1].start() >= last_line - 1
        and (len(begun) == 1 or not re.search(r"\w", text[lines[-1].end(1) :]))
    ):
        letter = lines[-1][1]
        return letter if _mentioned(text[lines[-1].end() :]) <= {letter} else None
    for sentence in reversed(re.split(r"(?<=[\w)][.!?])\s|\n", text)):
        if _MENTIONED.search(sentence):
            begins = re.match(
                r"\W*(?:(?:now|next),?\s)?(?:(?:for|in|with|under|comparing\swith|as\sfor)\s)?(?:(?:option|choice)\s)?"
                r"\(?([A-D])\)?(?:\s\w|\s?[:,])",
                sentence,
                re.I,
            )  # it is discussed, and perhaps not to the end
            found = _mentioned(sentence) - ({begins[1].upper()} if begins else set())
            return "".join(sorted(found)) or None
    return None
