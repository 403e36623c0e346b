"""What is being decoded, and what samplers and caches say about it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, Self

import torch
from mdm.records import changed, tensors
from torch import Tensor

TINY = torch.finfo(torch.float32).tiny
"""The least of what a logarithm is taken of."""


@dataclass(frozen=True)
class State:
    """The canvases of all rows. L is the longest row's length; shorter rows are padded on the right.

    Positions count from a row's own first prompt token.
    """

    tokens: Tensor
    """int64 ``[B, L]``"""
    masked: Tensor
    """bool ``[B, L]``: still to be decoded"""
    real: Tensor
    """bool ``[B, L]``: not padding"""
    slots: Tensor
    """bool ``[B, L]``: masked when the row began"""
    starts: Tensor
    """int64 ``[B, M]``: where each block starts and the last one ends, ascending, padded with L"""
    blocks: Tensor
    """int64 ``[B, L]``: the number of each position's block: -1 before the first, and behind the last one more"""
    prompt_length: Tensor
    """int64 ``[B]``"""
    row_id: Tensor
    """int64 ``[B]``: keys the row's random draws"""
    request: Tensor
    """int64 ``[B]``: the prompt a row serves; beams share one"""
    block: Tensor
    """int64 ``[B]``: the number of the block that the row works on"""
    entered: Tensor
    """bool ``[B]``: the row has just entered its block"""
    step: Tensor
    """int64 ``[B]``: steps taken"""
    block_step: Tensor
    """int64 ``[B]``: steps taken in this block"""
    budget: Tensor
    """int64 ``[B]``: how many tokens the schedule commits this step"""
    mask_id: int
    """the token of a masked position; committing it re-masks"""

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    @cached_property
    def positions(self) -> Tensor:
        """int64 ``[L]``"""
        return torch.arange(self.tokens.shape[1], device=self.device)

    @cached_property
    def in_span(self) -> Tensor:
        """bool ``[B, L]``: positions of the row's current block"""
        return self.blocks == self.block[:, None]

    @cached_property
    def span(self) -> Tensor:
        """int64 ``[B, 2]``: where the row's current block starts and stops"""
        return self.starts.gather(1, torch.stack([self.block, self.block + 1], 1))

    @cached_property
    def open(self) -> Tensor:
        """bool ``[B, L]``: masked positions of the row's current block"""
        return self.masked & self.in_span

    def having(self, **values: Any) -> State:
        """The state with these fields; what follows from blocks alone is kept where they are."""
        twin = changed(self, **values)
        if values.keys().isdisjoint(("blocks", "block", "starts")):
            kept = ("positions", "in_span", "span")
            twin.__dict__.update({name: self.__dict__[name] for name in kept if name in self.__dict__})
        return twin

    def to(self, device: torch.device) -> State:
        return changed(self, **tensors(self, lambda v: v.to(device, non_blocking=True)))

    def rows(self, index: Tensor) -> State:
        """Rows ``index`` ``[R]``, in that order."""
        return changed(self, **tensors(self, lambda v: v.index_select(0, index)))

    def repeated(self, times: int) -> State:
        """``[B * times, ...]``: each row ``times`` times, one after the other."""
        return changed(self, **tensors(self, lambda v: repeated(v, times)))


def repeated(values: Tensor, times: int) -> Tensor:
    """``[B * times, ...]``: each row of ``values`` ``[B, ...]`` ``times`` times, one after the other.

    Not to be written into: a single row is not copied.
    """
    if values.shape[0] == 1:
        return values.expand(times, *values.shape[1:])
    return values[:, None].expand(-1, times, *values.shape[1:]).flatten(0, 1)


def picked(values: Tensor, choice: Tensor) -> Tensor:
    """``[B, ...]`` of ``values`` ``[B, N, ...]``: entry ``choice`` ``[B]`` of each row."""
    rows, count = values.shape[:2]
    if rows == 1:
        return values[0].index_select(0, choice)
    line = torch.arange(0, rows * count, count, device=choice.device) + choice
    return values.flatten(0, 1).index_select(0, line)


class Certainty:
    """How sure the model is of tokens: five numbers of each, kept together, so that they are picked together."""

    numbers: Tensor
    """float32 ``[..., 5]``: the five that follow, in their order"""

    @property
    def confidence(self) -> Tensor:
        """probability of ``token``"""
        return self.numbers.select(-1, 0)

    @property
    def log_odds(self) -> Tensor:
        """orders as ``confidence`` does, and keeps its resolution where float32 rounds that to 1"""
        return self.numbers.select(-1, 1)

    @property
    def entropy(self) -> Tensor:
        """of the whole distribution (nats)"""
        return self.numbers.select(-1, 2)

    @property
    def rest(self) -> Tensor:
        """probability of all tokens but the likeliest, over that of the likeliest"""
        return self.numbers.select(-1, 3)

    @property
    def ratio(self) -> Tensor:
        """probability of the second likeliest token, over that of the likeliest"""
        return self.numbers.select(-1, 4)

    @property
    def margin(self) -> Tensor:
        """probability of the likeliest token minus that of the second likeliest"""
        return (1 - self.ratio) / (1 + self.rest)

    @property
    def margin_rank(self) -> Tensor:
        """orders as ``margin`` does, and keeps its resolution where float32 rounds that to 1"""
        return torch.log1p(self.rest) - (self.rest + self.ratio).clamp_min(TINY).log()


@dataclass(frozen=True)
class Scores(Certainty):
    """What the model says at the positions that were read.

    All ``[B, K]``, or ``[B, N, K]`` as the answer to an ``Evaluate``. Where ``valid`` is False the rest means nothing.
    """

    at: Tensor
    """int64: absolute positions, ascending"""
    valid: Tensor
    token: Tensor
    """int64: the likeliest but for the mask, or with a temperature the one that was drawn"""
    numbers: Tensor
    """float32 ``[..., K, 5]``: see ``Certainty``, whose properties are read by name"""
    unseen: Tensor
    """int64 ``[B]`` or ``[B, N]``: masked positions within reach that this forward did not compute"""
    log_vocabulary: float
    """ln V, the entropy counted for an unseen mask (nats)"""
    features: Tensor | None = None
    """``[..., K, D]``: kept where tokens are drawn, so that they can be drawn again"""
    held: Tensor | None = None
    """probability of the token that stands at the position; for samplers that read decoded positions"""
    logits: Tensor | None = None
    """``[..., K, V]`` float32, after guidance and rules; for samplers that keep them"""
    redraw: Callable[[Scores, int], tuple[Tensor, Tensor]] | None = None

    @property
    def vocabulary(self) -> int:
        """V, the number of tokens"""
        return round(math.exp(self.log_vocabulary))

    def rows(self, index: Tensor) -> Scores:
        return changed(self, **tensors(self, lambda v: v.index_select(0, index)))

    def pick(self, choice: Tensor) -> Scores:
        """Of scores ``[B, N, K]``, candidate ``choice`` ``[B]`` of each row: scores ``[B, K]``."""
        return changed(self, **tensors(self, lambda v: picked(v, choice)))

    def blank(self, count: int, width: int) -> Scores:
        """``count`` rows of ``width`` positions, none of them valid."""
        values: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                rest = () if f.name == "unseen" else (width, *value.shape[2:])
                values[f.name] = value.new_zeros(count, *rest)
        return changed(self, **values)

    def placed(self, index: Tensor, count: int, base: Scores | None = None) -> Scores:
        """These rows at ``index`` ``[R]`` among ``count`` rows; the others as in ``base``, or without a valid entry."""
        width = max(self.at.shape[1], base.at.shape[1] if base is not None else 0)
        out = self.blank(count, width)
        parts = [(torch.arange(count, device=index.device), base)] if base is not None else []
        for where, part in [*parts, (index, self)]:
            for f in fields(part):
                value = getattr(part, f.name)
                if isinstance(value, Tensor):
                    target = getattr(out, f.name)
                    if f.name == "unseen":
                        target[where] = value
                    else:
                        target[where, : value.shape[1]] = value
        return out

    def unflatten(self, rows: int, candidates: int) -> Scores:
        """Scores ``[B * N, K]`` as ``[B, N, K]``."""
        return changed(self, **tensors(self, lambda v: v.reshape(rows, candidates, *v.shape[1:])))

    def uncertainty(self) -> Tensor:
        """State uncertainty, the mean entropy over the masks within reach (nats): ``[B]`` or ``[B, N]``."""
        seen = self.entropy.where(self.valid, 0.0).sum(-1)
        count = self.valid.sum(-1) + self.unseen
        return seen.add(self.unseen, alpha=self.log_vocabulary).div_(count.clamp_min_(1))

    def draws(self, candidates: int) -> tuple[Tensor, Tensor]:
        """Tokens and their confidences ``[B, N, K]``: the first as scored, the others drawn afresh.

        Without a token temperature all are the same.
        """
        shape = (self.at.shape[0], candidates, self.at.shape[-1])
        if self.redraw is None or candidates <= 1:
            return self.token[:, None].expand(shape), self.confidence[:, None].expand(shape)
        return self.redraw(self, candidates)


@dataclass(frozen=True)
class Weighed:
    """What a sampler compared before it decided, for those who watch. It is brought to the host only for a full trace.

    ``value`` is what it maximised. Entries of candidates that are not ``valid`` mean nothing.
    """

    where: Tensor
    """bool ``[B, N, K]``: the scored positions each candidate commits"""
    valid: Tensor
    """bool ``[B, N]``"""
    value: Tensor
    """``[B, N]``: J"""
    cost: Tensor
    """``[B, N]``: C, the entropy the candidate pays (nats)"""
    uncertainty: Tensor
    """``[B, N]``: H, the mean entropy of the masks it would leave (nats)"""


@dataclass(frozen=True)
class Commit:
    """Which of the scored positions get which tokens.

    ``where`` and ``tokens`` lie over ``Scores.at``: ``[B, K]``, or ``[B, N, K]`` inside an ``Evaluate``. The mask id
    as a token re-masks a position.
    """

    where: Tensor
    tokens: Tensor
    scores: Scores | None = None
    """The next step's scores, if already known"""
    known: Tensor | None = None
    """bool ``[B]``: for which rows they are (None: all)"""
    bypass: Tensor | None = None
    """bool ``[B]``: rows that were committed without the sampler's usual deliberation; named in the trace"""
    memory: Rowwise | None = None
    """What the sampler remembers from here on; None: what it did"""
    source: Tensor | None = None
    """int64 ``[B']``: the row that each new row continues from (beams); all else here is then of the new rows,
    ``where`` and ``tokens`` over ``Scores.at`` of their sources. None: its own"""
    weighed: Weighed | None = None
    """The candidates this commit was chosen from"""


@dataclass(frozen=True)
class Evaluate:
    """ "What would I see if I committed each of these?" Leaves no trace in the state or the cache.

    ``valid`` ``[B, N]``: candidates worth a forward. ``reach``: the masks to score, of the whole canvas ("open") or of
    the current block ("span"; always on a block-causal model, which sees no later one). ``binding``: a promise that
    spares the next step a transfer. Each row then commits one of its valid candidates, and with it the scores seen of
    it; or, where it has none, its first, without scores.
    """

    candidates: Commit
    valid: Tensor
    reach: Literal["open", "span"] = "open"
    binding: bool = False


@dataclass(frozen=True)
class Plan:
    """What the model runs in one step; all bool ``[B, L]``.

    A row that writes nothing into the cache may skip its forward where its scores are known already.
    """

    query: Tensor
    """positions to run"""
    write: Tensor
    """those of them whose keys and values are kept for later steps"""
    window: Tensor
    """positions that an ``Evaluate`` in this step runs"""


@dataclass(frozen=True)
class Rowwise:
    """Base of a sampler's memory: a frozen dataclass whose tensor fields have a leading row axis."""

    def rows(self, index: Tensor) -> Self:
        return replace(self, **tensors(self, lambda v: v[index]))

    def to(self, device: torch.device) -> Self:
        return replace(self, **tensors(self, lambda v: v.to(device, non_blocking=True)))

    def join(self, other: Self) -> Self:
        """The rows of both; along their other axes tensors are padded with zeros to one shape."""
        values: dict[str, Any] = {}
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if isinstance(mine, Tensor):
                shape = [max(pair) for pair in zip(mine.shape[1:], theirs.shape[1:], strict=True)]
                joined = mine.new_zeros(len(mine) + len(theirs), *shape)
                for part, rows in ((mine, slice(0, len(mine))), (theirs, slice(len(mine), None))):
                    joined[(rows, *(slice(0, n) for n in part.shape[1:]))] = part
                values[f.name] = joined
        return replace(self, **values)
