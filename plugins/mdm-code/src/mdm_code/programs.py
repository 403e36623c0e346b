"""Finds the program in what a model wrote. What is Python as it stands is not changed.

Left out is only a last definition that repeats the beginning of an earlier one, as a text in a loop does where it is
cut off.

The last block that defines the function counts, with what it needs from other blocks. A later block that only uses the
function, quotes a line of it or repeats its signature is no program; a later one that defines it and is broken is the
answer, and fails. Indentation, quotes and prompts in front of lines are mended only where the text is no Python.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from mdm_code import syntax
from mdm_code.blocks import Block, blocks

DRAFT = re.compile(r"[<\[\u25c1](?:\|begin_of_)?(?:think|thinking|thought|reasoning)\|?[>\]\u25b7]", re.I)
DRAFT_END = re.compile(r"[<\[\u25c1](?:/|\|end_of_)(?:think|thinking|thought|reasoning)\|?[>\]\u25b7]", re.I)
BEGIN = re.compile(r"\\?\[BEGIN\\?\]|^BEGIN$", re.I | re.M)
DONE = re.compile(r"\\?\[DONE\\?\]|^DONE$", re.I | re.M)
NEXT = re.compile(
    r"^[ \t]*(?:Question:|Human:|User:|### ?Instruction|You are an expert Python programmer, and here is your task"
    r"|Complete the following Python function)|<\|(?:endoftext|eot_id|im_end|im_start)\|>|</s>",
    re.M,
)
"""How a text goes on that runs past its answer into another question."""
START = re.compile(
    r"([ \t]*)(?:(?:async[ \t]+def|def|class)[ \t]+\w|import[ \t]+\w|from[ \t]+\S+[ \t]+import\b|@\w"
    r"|[A-Za-z_]\w*(?:[ \t]*:[^=]+)?[ \t]*=[^=])"
)
"""How a line begins that may be the first of a program among prose."""
TRIES, QUESTIONS = 400, 4
"""How often stretches of a text are tried as code, and how many questions behind an answer are looked at: a model that
repeats itself writes hundreds."""
QUOTES = re.compile(r"\s*('''|\"\"\"|['\"`\u2018\u201c])(.*?)(?:\1|[\u2019\u201d])?\s*", re.S)
MARKUP = re.compile(r"</?(?:code|pre|answer|python|solution)\b[^>\n]*>", re.I)
WORD = re.compile(r"\s*(?:python3?|py)[ \t]*\n", re.I)
"""What is left of a fence's tag where the fence itself is the prompt's."""


@dataclass(frozen=True)
class Source:
    """A stretch of code and what it says; ``tree`` is None where it is broken."""

    text: str
    tree: ast.Module | None
    tag: str = ""
    closed: bool = True


def program(completion: str, names: Sequence[str], given: str = "") -> str:
    """The program in ``completion`` that defines ``names``, the first of them in front.

    Args:
        completion: what the model wrote.
        names: what the tests call; a program need not define all of them.
        given: the beginning of the program, if the model was asked to go on with one. A completion that holds only the
            function's body continues it; one with the whole function keeps the imports and helpers of ``given``.
    """
    text = answer(completion, names[0] if names else "")
    reader = Reader(names, given)
    for end in islice(NEXT.finditer(text), QUESTIONS):
        if (found := reader.read(text[: end.start()])) and syntax.parsed(found):
            return found
    return reader.read(text) or given + text


def answer(completion: str, name: str) -> str:
    """``completion`` without drafts, and only what stands between [BEGIN] and [DONE] if it has them."""
    text = completion.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "").replace("\u200b", "")
    while begin := DRAFT.search(text):
        end = DRAFT_END.search(text, begin.end())
        text = text[: begin.start()] + (text[end.end() :] if end else "")
    for end in reversed(list(DRAFT_END.finditer(text))):  # the prompt opened it
        text = text[end.end() :]
        break
    spans = [DONE.split(span)[0] for span in BEGIN.split(text)]
    if len(spans) == 1 or (_mentions(spans[0], name) and DONE.search(BEGIN.split(text)[0])):  # the prompt wrote [BEGIN]
        return spans[0]
    return next((span for span in spans[1:] if _mentions(span, name)), spans[1])


def same(one: str, other: str) -> bool:
    """Whether two sources are the same program, but for comments and layout."""
    if one.strip("\n") == other.strip("\n"):
        return True
    trees = syntax.parsed(one), syntax.parsed(other)
    return None not in trees and ast.dump(trees[0]) == ast.dump(trees[1])  # type: ignore[arg-type]


class Reader:
    """Reads programs that define ``names`` and may go on with ``given``."""

    def __init__(self, names: Sequence[str], given: str) -> None:
        self.names, self.name, self.given = names, names[0] if names else "", given
        self.tries = TRIES

    def read(self, text: str) -> str | None:
        """The program of ``text``, None if there is none."""
        self.tries = TRIES
        sources = list(self._sources(self._once(text)))
        for at in reversed(range(len(sources))):
            source = sources[at]
            if source.tree is None:
                if _mentions(source.text, self.name) and source.tag in ("", "py", "python", "python3"):
                    return self._complete(source.text, [])
            elif self._defines(source.tree):
                return self._complete(source.text, [other for other in sources if other is not source])
            elif (whole := self._continued(source.text)) and not _quoted(source.text, sources[:at]):
                return whole
        binding = [s for s in sources if s.tree and (not self.name or self.name in syntax.bound(s.tree.body))]
        return self._complete(binding[-1].text, sources[: sources.index(binding[-1])]) if binding else None

    def _once(self, text: str) -> str:
        """``text`` without a last definition that is the beginning of an earlier one, said again and cut off."""
        begins = list(re.finditer(rf"^(?:async\s+def|def|class)\s+{re.escape(self.name)}\b", text, re.M))
        last = begins[-1].start() if self.name and begins else len(text)
        said = text[last:].rstrip()
        return text[:last] if said and f"\n{said}" in f"\n{self.given}{text[:last]}" else text

    def _sources(self, text: str) -> Iterator[Source]:
        text = WORD.sub("", text, count=1) if WORD.match(text) else text
        if (tree := syntax.parsed(text)) and not all(map(syntax.idle, tree.body)):
            yield _without_prose(text)
            return
        for block in blocks(text, lambda code: self._code(code) is not None, _in_string):
            if not block.text.strip():
                continue
            source = self._code(block.text)
            if source and block.fenced:
                yield Source(source, syntax.parsed(source), block.tag, block.closed)
            elif source:
                yield _without_prose(source)
            else:
                yield from self._among_prose(block)

    def _code(self, text: str) -> str | None:
        """``text`` as code, mended only where it is none; None if there is no way to read all of it as code."""
        for mended in _mended(text):
            if (tree := syntax.parsed(mended)) and not all(map(syntax.idle, tree.body)):
                return mended
        if self.given and text[:1] in " \t\n" and (tree := syntax.parsed(self.given + text)) and self._defines(tree):
            return text
        return None

    def _among_prose(self, block: Block) -> Iterator[Source]:
        """The stretches of a block that are code, prose left out."""
        quoted = QUOTES.match(block.text)
        text = block.text[quoted.start(2) :] if quoted and START.match(block.text, quoted.start(2)) else block.text
        text = MARKUP.sub("", textwrap.dedent(text) if block.fenced else text)
        if self._continued(text):
            yield Source(text, ast.Module([], []), block.tag)
            return
        lines, at = text.split("\n"), 0
        while at < len(lines):
            start = START.match(lines[at])
            if self.tries <= 0:
                yield Source("\n".join(lines[at:]), None, block.tag)  # nobody knows what else is said in it
                return
            if start:
                count, source = self._longest(lines[at:], start[1])
                if source:
                    yield source
                    at += count
                    continue
                inner = next((n for n in range(at + 1, len(lines)) if _margin(lines[n], start[1])), len(lines))
                broken = textwrap.dedent("\n".join(lines[at:inner]))
                if _mentions(broken, self.name):
                    yield self._broken(broken, block, "\n".join(lines[inner:]).strip().split("\n")[0])
                at = inner
            else:
                at += 1

    def _broken(self, text: str, block: Block, behind: str) -> Source:
        """A signature that is only shown is a stub; one that was cut off, and what cannot be parsed, is broken."""
        shown = block.closed if block.fenced else syntax.parsed(behind) is None
        stub = syntax.parsed(f"{text.rstrip()}\n    pass") if shown else None
        return Source(text, stub, block.tag, block.closed)

    def _defines(self, tree: ast.Module) -> bool:
        """Whether there is a definition of the name that does something."""
        nodes = [n for n in syntax.statements(tree.body) if self.name in syntax.names_of(n, imports=False)]
        return not all(map(syntax.is_stub, nodes))

    def _continued(self, text: str) -> str | None:
        """``given`` with ``text`` as the body that follows, without what stands behind it; None if it is none."""
        if not self.given or not re.search(r"\b(?:return|yield)\b", text):
            return None
        body = textwrap.dedent(text.expandtabs(4) if "\t" in text else text)
        first, *rest = text.lstrip("\n").split("\n")
        for mended in (text, textwrap.indent(body, "    "), "\n".join(["    " + first.lstrip(), *rest])):
            whole = self._trimmed(self.given + mended, self.names)
            tree = syntax.parsed(whole) if whole else None
            nodes = syntax.statements(tree.body) if tree else ()
            if any(syntax.returns(node) for node in nodes if self.name in syntax.names_of(node)):
                return whole
        return None

    def _trimmed(self, text: str, names: Iterable[str] = ()) -> str | None:
        """The longest beginning of ``text`` that is Python, cut between two statements of the margin.

        None if nothing is left, or if what is cut off defines one of the ``names``: the last word on it would be lost.
        """
        lines = text.split("\n")
        count, tree = len(lines), None
        while count and (tree := syntax.parsed("\n".join(lines[:count]))) is None:
            self.tries -= 1
            if self.tries <= 0:
                return None
            wrong = syntax.error("\n".join(lines[:count]))
            count = min(count - 1, max(wrong.lineno or count, 1) if wrong else count)
        if not tree or not tree.body:
            return None
        if next((line for line in lines[count:] if line.strip()), "x")[0] in " \t)]}":
            count = syntax.first_line(tree.body[-1]) - 1  # the cut was inside the last statement, which is broken
        if any(_mentions("\n".join(lines[count:]), name) for name in names):
            return None
        return "\n".join(lines[:count]) if "".join(lines[:count]).strip() else None

    def _longest(self, lines: list[str], indent: str) -> tuple[int, Source | None]:
        """The longest program that begins with the first of ``lines``, and how many lines it takes."""
        end = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith(indent)), len(lines))
        text = self._trimmed("\n".join(line[len(indent) :] for line in lines[:end]))
        source = _without_prose(text) if text else None
        if not source or not source.tree:
            return 0, None
        return source.text.count("\n") + 1, source

    def _complete(self, text: str, others: Sequence[Source]) -> str:
        """``text`` with what it needs from other blocks and ``given``, put behind its docstring and future imports."""
        tree = syntax.parsed(text)
        pieces: list[str] = []
        stub = syntax.parsed(self.given) or syntax.parsed(self.given + "\n    pass\n")
        if stub:
            known = {ast.dump(node) for node in tree.body} if tree else set()
            wanted = [n for n in stub.body if self.name not in syntax.names_of(n) and ast.dump(n) not in known]
            pieces += [syntax.lines_of(self.given, node) for node in wanted]
        elif self.given and self.given.strip() not in text:
            pieces.append(self.given)
        if tree:
            own = syntax.bound(tree.body) | (syntax.bound(stub.body) if stub else set())
            pieces += _needed({*self.names, *syntax.taken_names(text)} - own - {self.name}, others, {self.name})
        if not pieces:
            return text
        lines, head = text.split("\n"), 0
        for number, node in enumerate(tree.body if tree else []):
            if not (syntax.is_future(node) or (number == 0 and syntax.is_text(node))):
                break
            head = node.end_lineno or 0
        return "\n".join([*lines[:head], *pieces, *lines[head:]])


def _mended(text: str) -> Iterator[str]:
    """``text`` as it stands, then with one thing mended that models do to code."""
    yield text
    yield textwrap.dedent(text)
    yield text.lstrip()
    if "\u00a0" in text:
        yield textwrap.dedent(text.replace("\u00a0", " "))
    if "\t" in text:
        yield textwrap.dedent(text.expandtabs(8))
        yield textwrap.dedent(text.expandtabs(4))
    if text.lstrip().startswith(">>> "):
        yield "\n".join(re.findall(r"^[ \t]*(?:>>>|\.\.\.)(?: (.*))?$", text, re.M))
    if all(line.startswith(">") for line in text.strip().split("\n") if line.strip()):
        yield re.sub(r"^> ?", "", text.strip(), flags=re.M)
    if quoted := QUOTES.fullmatch(text):
        yield textwrap.dedent(quoted[2])
        try:
            yield str(ast.literal_eval(text.strip()))
        except syntax.NOT_PYTHON:
            yield quoted[2].replace("\\n", "\n").replace("\\t", "\t").replace("\\'", "'").replace('\\"', '"')
    yield textwrap.dedent(re.sub(r"['\"`]+\s*$", "", text))
    if MARKUP.search(text):
        yield textwrap.dedent(MARKUP.sub("", text))
    if "\\_" in text:
        yield textwrap.dedent(text.replace("\\_", "_"))


def _without_prose(text: str) -> Source:
    """Code without words behind it that happen to be expressions."""
    tree = syntax.parsed(text)
    count = len(tree.body) if tree else 0
    while tree and count > 1 and syntax.idle(tree.body[count - 1]):
        count -= 1
    if tree and count < len(tree.body):
        text = "\n".join(text.split("\n")[: tree.body[count - 1].end_lineno])
        tree = syntax.parsed(text)
    return Source(text, tree)


def _margin(line: str, indent: str) -> bool:
    """Whether a line stands no deeper than ``indent``."""
    return bool(line.strip()) and len(line) - len(line.lstrip()) <= len(indent)


def _mentions(text: str, name: str) -> bool:
    """Whether a definition of the name begins somewhere at the margin."""
    begins = rf"^(?:\s*['\"`]+)?(?:async\s+def|def|class)\s+{re.escape(name)}\b"
    return bool(name) and re.search(begins, text, re.M) is not None


def _quoted(text: str, sources: Sequence[Source]) -> bool:
    """Whether ``text`` only repeats lines of an earlier source."""
    lines = {line.strip() for line in text.split("\n")} - {""}
    return any(lines <= {line.strip() for line in source.text.split("\n")} for source in sources)


def _in_string(text: str) -> bool:
    wrong = syntax.error(textwrap.dedent(text))
    return wrong is not None and str(wrong.msg).startswith("unterminated triple-quoted")


def _needed(missing: set[str], others: Sequence[Source], never: set[str]) -> list[str]:
    """The definitions and imports in ``others`` that ``missing`` names lead to, in order; of two the later."""
    places = [(at, node) for at, source in enumerate(others) if source.tree for node in source.tree.body]
    taken: dict[tuple[int, int], str] = {}
    known = set(never)
    while missing:
        name = missing.pop()
        known.add(name)
        found = [(at, node) for at, node in places if name in syntax.names_of(node) or "*" in syntax.names_of(node)]
        if not found:
            continue
        at, node = next((place for place in reversed(found) if name in syntax.names_of(place[1])), found[-1])
        if syntax.is_future(node) or syntax.names_of(node) & never:
            continue
        piece = syntax.lines_of(others[at].text, node)
        taken[at, node.lineno] = piece
        missing |= syntax.taken_names(piece) - known
    return [taken[place] for place in sorted(taken)]
