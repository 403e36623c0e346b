"""The answer to a prompt: its tokens, its text as it grows, and what it cost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import inf, log
from typing import Any

from mdm.engine.requests import Request
from mdm.engine.rows import RowRecord
from mdm.engine.trace import cumulative_entropy
from mdm.errors import MdmError
from mdm.models.layout import Layout, PromptForm
from mdm.models.model import Model
from mdm.models.text import HALF
from mdm.protocols.hooks import Line, plain


@dataclass(frozen=True)
class Result:
    """One decoded prompt."""

    tokens: list[int]
    """The generated ids; of an infill, the ids that replaced the masks."""
    text: str | None
    """Their text up to the first end token and the first of ``stop``; None without a tokenizer. The tokens stay."""
    sequence: list[int]
    """Prompt and generation. A block-causal model decodes whole blocks, so it may hold more tokens than asked for."""
    trace: list[Line] = field(repr=False)
    """Empty with ``trace=False``."""
    cumulative_entropy: float
    """In nats."""
    forwards: int
    """Forward passes that this prompt took part in."""
    rows: int
    """Sequences that it sent through the model, candidates included."""
    block_steps: list[int] = field(default_factory=list, repr=False)
    """Steps in each block, in the order in which they were decoded."""
    prompt_style: PromptForm = "ids"
    """How the prompt was given: "raw" (a text), "ids", "chat" or "image"."""
    image: Any = field(default=None, repr=False)
    """The picture that was asked for, an array uint8 ``[H, W, 3]``; None without an image tokenizer."""
    prompt_tokens: int = 0
    """Tokens of the prompt."""
    completion_tokens: int = 0
    """Tokens before the first end token and the first of ``stop``."""
    places: list[int] = field(default_factory=list, repr=False)
    """Where on the canvas each of ``tokens`` stands."""

    @property
    def step_map(self) -> list[int]:
        """For each token the step that committed it for the last time; -1: it was filled in behind an end token.

        Raises:
            MdmError: the result has no trace.
        """
        last = self._at_commit()
        return [last[place][0] if place in last else -1 for place in self.places]

    @property
    def logprobs(self) -> list[float]:
        """For each token the logarithm (nats) of its probability when it was committed; 0.0 for one filled in.

        It is the model's own probability, or with ``score_after="tempered"`` that of the distribution that tokens are
        drawn from; -inf where float32 holds none.

        Raises:
            MdmError: the trace is not full.
        """
        last = self._at_commit("confidence")
        return [last[place][1] if place in last else 0.0 for place in self.places]

    def _at_commit(self, needed: str = "step") -> dict[int, tuple[int, float]]:
        """Position -> its last step and the logarithm of its probability there; fills are left out."""
        if any(needed not in line for line in self.trace) or not self.trace:
            raise MdmError(f'the result has no {"full " if needed != "step" else ""}trace: decode with trace="full"')
        last: dict[int, tuple[int, float]] = {}
        for line in self.trace:
            for number, place in enumerate(line["positions"]):
                sure = line.get("confidence", [1.0] * (number + 1))[number]
                last[place] = line["step"], log(sure) if sure > 0 else -inf
                if line["kind"] == "fill":
                    del last[place]
        return last


@dataclass(frozen=True)
class TextEnds:
    """What ends an answer's text."""

    tokens: Collection[int] = ()
    stop: Sequence[str] = ()

    @property
    def come_early(self) -> bool:
        """Whether they can be seen in a text that goes on: half of a character looks like one of these to the last."""
        return not any(HALF in text for text in self.stop)

    def text(self, model: Model, tokens: Sequence[int]) -> str:
        """The text of an answer up to its end."""
        return model.decode(tokens, tuple(self.tokens), self.stop)

    def length(self, model: Model, tokens: Sequence[int]) -> int | None:
        """How many tokens stand before the text's end; None: there is none among them."""
        end = next((i for i, token in enumerate(tokens) if token in self.tokens), None)
        if model.tokenizer is None or not self.stop:
            return end
        return model.text.until_stop(tokens[:end], self.stop, end)


class AnswerText:
    """The text of an answer that grows, of which nothing is given out that could still change.

    ``TextCodec.settled`` says what that is.
    """

    def __init__(self, model: Model, ends: TextEnds) -> None:
        self.model, self.ends, self.given = model, ends, ""

    def grown(self, tokens: Sequence[int], whole: bool) -> str:
        """What can be given out of the text of ``tokens`` and was not; all of it where they are the ``whole``."""
        text = self.ends.text(self.model, tokens) if whole else self.model.text.settled(tokens, self.ends.stop)
        if len(text) <= len(self.given) or not text.startswith(self.given):
            return ""
        more, self.given = text[len(self.given) :], text
        return more


def places_of(row: RowRecord, request: Request) -> list[int]:
    """Where a row's answer stands on its canvas."""
    end = _end_of(row, request)
    return list(range(row.prompt_length, end)) if end > row.prompt_length else row.targets


def _end_of(row: RowRecord, request: Request) -> int:
    """Where a row's generation ends; a grid's last block may reach further."""
    return min(row.length - len(request.suffix), row.prompt_length + request.gen_length)


def result_of(
    row: RowRecord, request: Request, prompt: Layout, model: Model, ends: TextEnds, *, trace: bool | str = True,
    stop: int | None = None,
) -> Result:  # fmt: skip
    """The result of a row.

    Args:
        trace: as in ``mdm.decode``.
        stop: the position before which its answer ended; None: all of it is decoded.
    """
    sequence, lines = row.tokens, row.trace
    places = places_of(row, request)
    if stop is not None:
        sequence, places = sequence[:stop], [place for place in places if place < stop]
    tokens = [sequence[place] for place in places]
    text = image = None
    if prompt.grid is not None:
        image = model.picture(sequence[prompt.context : _end_of(row, request)], prompt.grid)
    elif model.tokenizer is not None:
        text = ends.text(model, tokens)
    ended = ends.length(model, tokens) if prompt.grid is None else None
    return Result(
        tokens, text=text, sequence=sequence, image=image, places=places,
        trace=list(lines) if trace == "full" else [plain(line) for line in lines] if trace else [],
        cumulative_entropy=cumulative_entropy(lines), prompt_style=prompt.form,
        forwards=sum(line["forwards"] for line in lines), rows=sum(line["rows"] for line in lines),
        block_steps=row.steps_taken, prompt_tokens=row.prompt_length,
        completion_tokens=len(tokens) if ended is None else ended,
    )  # fmt: skip
