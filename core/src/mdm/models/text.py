"""Between texts and token ids: what a user wrote stays text, whatever special tokens it names."""

from __future__ import annotations

import re
import warnings
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

from mdm.errors import MdmError, MdmWarning, first_line
from mdm.models.bounded import Bounded


@dataclass(frozen=True)
class Rendered:
    """A text in which special tokens are tokens, such as a chat template makes; what its contents spell is not."""

    text: str
    spelled: tuple[tuple[int, int], ...] = ()
    """where contents spell a special token, ``[start, stop)``, left to right: there it is characters"""

    def __add__(self, other: Rendered) -> Rendered:
        by = len(self.text)
        return Rendered(self.text + other.text, (*self.spelled, *((a + by, b + by) for a, b in other.spelled)))

    def __getitem__(self, part: slice) -> Rendered:
        """The text before ``part.stop``, or from ``part.start`` on."""
        first, last, _ = part.indices(len(self.text))
        return Rendered(
            self.text[part], tuple((a - first, b - first) for a, b in self.spelled if first <= a and b <= last)
        )


HALF = "\N{REPLACEMENT CHARACTER}"
"""What tokenizers write for bytes that are no character, or not yet one."""
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
_OTHERS = (byte for byte in range(256) if byte not in _PRINTABLE)
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(code): byte for code, byte in enumerate(_OTHERS, 256)}
"""How byte-level tokenizers write bytes: GPT-2's ``bytes_to_unicode``."""


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are a beginning of ``stop``."""
    return next((n for n in range(min(len(text), len(stop)), 0, -1) if text.endswith(stop[:n])), 0)


def refuse_halves(text: str) -> None:
    """Refuse a text with half of a character (a lone surrogate), which JSON may bring and no tokenizer takes.

    Raises:
        MdmError: it says where that stands.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text[error.start].encode("unicode_escape").decode()
        raise MdmError(f"the text has half of a character, {shown}, at place {error.start}: leave it out") from None


class TextCodec:
    """A tokenizer whose special tokens come from ids and templates alone, never from what somebody wrote.

    Args:
        name: the model's, for error lines.
        control: further ids that no content may become (the mask, the end tokens), as far as they are added tokens.
    """

    def __init__(self, tokenizer: Any, name: str, mask_id: int, control: Collection[int] = ()) -> None:
        self._tokenizer, self._name = tokenizer, name
        self._template = Bounded(tokenizer.apply_chat_template)
        self._unknown = getattr(tokenizer, "unk_token_id", None)
        added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
        special = {i for i, token in added.items() if token.special or i in control}
        self._special = (special | set(tokenizer.all_special_ids) | {mask_id}) - {-1, None}
        texts = {added[i].content if i in added else self._text([i]) for i in self._special} - {""}
        self._names = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")

    def content(self, text: str, behind: bool = False) -> list[int]:
        """Ids of a text in which nothing is a special token; ``behind`` another text, or by itself.

        Raises:
            MdmError: it has characters that the tokenizer does not know, or halves of them, or names a token that it
                cannot spell.
        """
        refuse_halves(text)
        ids = self._encode(text, behind, split_special_tokens=True)
        if self._unread(text, ids):  # ESM finds its letters as others find special tokens
            ids = self._encode(text, behind)
        if self._unread(text, ids):
            unread = [one for one in dict.fromkeys(text) if self._unread(one, self._encode(one, behind))]
            which = f": {', '.join(map(repr, unread[:8]))}" if len(unread) < len(set(text)) else ""
            shown = text if len(text) <= 60 else f"{text[:60]}..."
            raise MdmError(f"{self._name}'s tokenizer does not know some characters of {shown!r}{which}")
        if self._special.isdisjoint(ids):
            return ids
        # Some tokens are found in any text: those that are not marked special, and a unigram model's own.
        token = self._text([next(i for i in ids if i in self._special)])
        at = text.find(token)
        if at < 0 or len(token) < 2:
            raise MdmError(f"{self._name}'s tokenizer makes its token {token} of {text!r}: give token ids instead")
        middle = at + len(token) // 2
        return self.content(text[:middle], behind) + self.content(text[middle:], behind=True)

    def _unread(self, text: str, ids: Sequence[int]) -> bool:
        # A blank between masks may have no ids of its own (WordPiece): that is no unknown character.
        return (not ids and bool(text.strip())) or (self._unknown is not None and self._unknown in ids)

    def spelled(self, text: str) -> Rendered:
        """A content as a part of a rendered text."""
        return Rendered(text, tuple(match.span() for match in self._names.finditer(text)))

    def rendered(self, text: Rendered) -> list[int]:
        """Ids of a rendered text. It is taken apart only around what contents spell, so merges are as ever."""
        edges = [0, *(edge for span in text.spelled for edge in span), len(text.text)]
        ids: list[int] = []
        for number, (start, stop) in enumerate(pairwise(edges)):
            encode = self.content if number % 2 else self._encode
            if part := text.text[start:stop]:
                ids += encode(part, start > 0)
        if self._unknown is not None and self._unknown in ids:
            warnings.warn(
                f"{self._name}'s tokenizer does not know all of its chat template: what it answers means little; "
                "ask in plain text (prompt_style compact; mdm generate --no-chat)",
                MdmWarning,
                stacklevel=2,
            )
        return ids

    def render(
        self, messages: Sequence[Mapping[str, str]], default: str | None, template: str | None = None, **options: Any
    ) -> Rendered:
        """A chat as the tokenizer's template writes it; ``options`` are those of transformers' ``apply_chat_template``.

        Args:
            default: the template where the tokenizer has none.
            template: the name of one, where the tokenizer has several.

        Raises:
            MdmError: there is no template, or it cannot be read or refuses the chat.
        """
        own = getattr(self._tokenizer, "chat_template", None)
        if not (own or default):
            raise MdmError(
                f"{self._name} has no chat template: ask in plain text (prompt_style compact; mdm generate --no-chat)"
            )
        for message in messages:
            refuse_halves(message["content"])
        marks = self._marks(" ".join([*(m["content"] for m in messages), str(own or default)]))
        marked = [{**m, "content": self._names.sub(lambda match: marks[match[0]], m["content"])} for m in messages]
        try:
            # All that it hangs on is handed over: the copy that it runs in knows the tokenizer as it was.
            written = self._tokenizer.get_chat_template(template) if own else default
            facts = {**self._tokenizer.special_tokens_map, **options}
            text = self._template(conversation=marked, chat_template=written, tokenize=False, **facts)
        except (TypeError, ValueError) as error:
            raise MdmError(
                f"{self._name}'s chat template cannot be applied to this chat ({first_line(error)})"
            ) from None
        return self._unmarked(text, {mark: token for token, mark in marks.items()})

    def decode(self, ids: Sequence[int], ends: Collection[int] = (), stop: Sequence[str] = (), given: int = 0) -> str:
        """Text of ids up to the first of the tokens ``ends`` and of the texts ``stop``, without special tokens.

        Args:
            stop: looked for in the text with its special tokens.
            given: how many of the first ids were not generated: no stop text ends in theirs.
        """
        end = next((i for i, t in enumerate(ids) if t in ends), len(ids))
        ids = list(ids[:end])
        plain = self._text(ids, skip_special_tokens=True)
        if not stop:
            return plain
        whole, at = self._stop_at(ids, stop, given)
        if at < 0:
            return plain
        return self._up_to(ids, whole, at)

    def settled(self, ids: Sequence[int], stop: Sequence[str]) -> str:
        """Of the text of ids, without special tokens, what no further id changes.

        Left out are halves of characters at its end, bytes that tokenizers write as tokens of their own (of which later
        ones can undo a whole run), and what may be the beginning of a text of ``stop``.
        """
        names = self._tokenizer.convert_ids_to_tokens(list(ids))
        ids = list(ids[: len(names) - sum(1 for _ in takewhile(_BYTE.fullmatch, reversed(names)))])
        whole = self._text(ids)
        begun = max((_overlap(whole, text) for text in stop), default=0)
        text = self._up_to(ids, whole, len(whole) - begun) if begun else self._text(ids, skip_special_tokens=True)
        return text.rstrip(HALF)

    def until_stop(self, ids: Sequence[int], stop: Sequence[str], otherwise: int | None = None) -> int | None:
        """How many ids stand whole before the first of the texts ``stop``; ``otherwise`` where there is none."""
        whole, at = self._stop_at(list(ids), stop)
        return otherwise if at < 0 else self._before(list(ids), whole, at)[0]

    def _stop_at(self, ids: list[int], stop: Sequence[str], given: int = 0) -> tuple[str, int]:
        """The text of ids with its special tokens, and where the first stop text begins there (-1: nowhere)."""
        whole, before = self._text(ids), len(self._text(ids[:given]))
        found = [whole.find(text, max(0, before - len(text) + 1)) for text in stop if text]
        return whole, min((i for i in found if i >= 0), default=-1)

    def _up_to(self, ids: list[int], whole: str, at: int) -> str:
        """The text before place ``at`` of the ``whole`` text of ids, without special tokens."""
        count, head = self._before(ids, whole, at)
        rest = "" if ids[count] in self._special else whole[len(head) : at]
        return self._text(ids[:count], skip_special_tokens=True) + rest

    def _before(self, ids: list[int], whole: str, at: int) -> tuple[int, str]:
        """How many ids end before place ``at`` of their ``whole`` text, and the text of these."""
        count = bisect_right(range(len(ids) + 1), at, key=lambda n: len(self._text(ids[:n]))) - 1
        while not whole.startswith(head := self._text(ids[:count])) or len(head) > at:
            count -= 1
        return count, head

    def each(self, ids: Sequence[int]) -> list[str]:
        """The text of each id by itself, special tokens included."""
        return [self._text([i]) for i in ids]

    def spell_halves(self, ids: Sequence[int], texts: Sequence[str]) -> list[str]:
        """``texts`` of ids to look at: bytes that are no character by themselves are spelled, ``‹E4 BD›``."""
        return [self._spelled(i, text) if HALF in text else text for i, text in zip(ids, texts, strict=True)]

    def _spelled(self, token: int, text: str) -> str:
        name = self._tokenizer.convert_ids_to_tokens(token)
        if not _BYTE.fullmatch(name) and not _BYTES.keys() >= set(name):
            return text
        raw = bytes([int(name[3:5], 16)]) if _BYTE.fullmatch(name) else bytes(map(_BYTES.__getitem__, name))
        hexes = {0xDC00 + byte: f"‹{byte:02X}›" for byte in range(128, 256)}
        return raw.decode("utf-8", "surrogateescape").translate(hexes).replace("›‹", " ")

    def _encode(self, text: str, behind: bool = False, **options: Any) -> list[int]:
        """Ids of a text; ``behind`` another one it has not the blank that some tokenizers put before a text."""

        def ids_of(text: str) -> list[int]:
            return list(self._tokenizer.encode(text, add_special_tokens=False, **options))

        for lead in "\n.a" if behind else "":
            before, both = ids_of(lead), ids_of(lead + text)
            if self._unknown not in before and both[: len(before)] == before:
                return both[len(before) :]
        return ids_of(text)

    def _text(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def _marks(self, text: str) -> dict[str, str]:
        """For each special token that ``text`` names, a private character that is not in it."""
        free: Iterator[str] = (c for c in map(chr, range(0xE000, 0xF900)) if c not in text)
        return {token: next(free) for token in sorted(set(self._names.findall(text)))}

    def _unmarked(self, text: str, tokens: Mapping[str, str]) -> Rendered:
        """The rendered text with the special tokens' names in the place of their marks."""
        rendered = Rendered("")
        for part in re.split(f"([{''.join(tokens)}])", text) if tokens else [text]:
            named = tokens.get(part)
            rendered += Rendered(part) if named is None else Rendered(named, ((0, len(named)),))
        return rendered
