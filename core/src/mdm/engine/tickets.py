"""A request of a session: what it asks for, and what has been said of it."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mdm.engine.canvas import block_length_of, check_steps
from mdm.engine.prepare import Job, prepare, with_sizes
from mdm.engine.requests import Request
from mdm.engine.result import AnswerText, Result, TextEnds
from mdm.engine.rows import RowRecord
from mdm.errors import MdmError
from mdm.models.model import Model
from mdm.protocols.hooks import Line, plain
from mdm.protocols.settings import DEFAULT_SAMPLER, ENGINES_OWN, Settings, check_settings

Finish = Literal["stop", "length", "cancelled", "timeout", "error"]


@dataclass(frozen=True)
class Update:
    """What a step did to a request."""

    request: int
    """the number that ``submit`` gave"""
    lines: tuple[Line, ...] = ()
    """further lines of its trace, where it was asked for"""
    tokens: tuple[int, ...] = ()
    """further tokens of its answer, in their order, that no step changes any more"""
    text: str = ""
    """what they add to the answer's text"""
    finish: Finish | None = None
    """why it ended: an end token or stop text, its length, ``cancel``, its time, an error; None: it goes on"""
    result: Result | None = None
    """of one that ended by itself"""
    error: MdmError | None = None
    """what a user is told"""
    out_of_memory: bool = False
    """whether the error is that not even this request alone fits into the memory"""


@dataclass
class Ticket:
    """A request that waits or is decoded."""

    number: int
    job: Job
    request: Request
    key: Hashable
    length: int
    """tokens of its canvas"""
    runs: int
    """of these, the ones that most of its forwards run"""
    trace: bool | str
    deadline: float | None
    text: AnswerText | None
    ends: TextEnds
    lines_given: int = 0
    tokens_given: list[int] = field(default_factory=list)
    wanted: Finish | None = None
    """how it is to end at the next step"""

    def new_lines(self, row: RowRecord) -> tuple[Line, ...]:
        """The lines of the row's trace that were not given out, if they are wanted."""
        lines, self.lines_given = row.trace[self.lines_given :], max(self.lines_given, len(row.trace))
        if not self.trace:
            return ()
        return tuple(lines) if self.trace == "full" else tuple(map(plain, lines))

    def new_text(self, tokens: Sequence[int], whole: bool) -> tuple[str, list[int]]:
        """What ``tokens`` add to the text that was given out, and which of them were not."""
        new = list(tokens[len(self.tokens_given) :])
        self.tokens_given += new
        text = ""
        if self.text is not None and (new or whole):
            text = self.text.grown(self.tokens_given, whole)
        return text, new


def prepared(
    model: Model, defaults: Mapping[str, Any], prompt: Any, row_id: int, options: Mapping[str, Any]
) -> tuple[Job, tuple[int, ...]]:
    """What a request asks for over a session's ``defaults``, checked; and which plugins that are objects it brings.

    Raises:
        MdmError: as ``mdm.decode``.
    """
    given = _merged(defaults, options)
    policy = {name: given.pop(name) for name in POLICY if name in given}
    settings = check_settings(given, POLICY)
    job = prepare(model, [prompt], settings, gen_length=settings.gen_length, row_ids=[row_id], **policy)
    plugins = (policy.get("sampler"), policy.get("cache"))
    return job, tuple(id(plugin) for plugin in plugins if not isinstance(plugin, str | None))


def open_ticket(
    model: Model, number: int, job: Job, objects: tuple[int, ...], trace: bool | str, timeout: float | None
) -> Ticket:
    """The ticket of a job with one prompt.

    Raises:
        MdmError: the memory cannot hold it, or it has far too many steps.
    """
    assert job.policy is not None
    [layout], [request], spec, cache = job.layouts, job.requests, model.spec, job.policy[1]
    settings = with_sizes(job.settings, model, job.requests, job.policy)
    check_steps("the request", request, spec, settings, job.policy[0].works_on)
    request = replace(request, index=number, settings=settings, rules=job.rules)
    block_length = block_length_of(settings, spec)
    length = len(request.tokens) + request.gen_length + len(request.suffix)
    if spec.attention == "block-causal" and spec.rounds_up:
        length += -length % block_length
    ends = TextEnds(job.eos_ids, settings.stop)
    return Ticket(
        number, replace(job, settings=settings), request, (_key(settings, job), objects), length,
        runs=min(length, block_length) if cache.uses_kv and not cache.inside_layers else length, trace=trace,
        deadline=None if timeout is None else time.monotonic() + timeout, ends=ends,
        text=AnswerText(model, ends) if model.tokenizer is not None and layout.grid is None else None,
    )  # fmt: skip


POLICY = ("sampler", "sampler_options", "cache", "cache_options", "suffix", "unconditional")
"""Arguments of ``mdm.decode`` that a request may have beside its settings."""


def _merged(defaults: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a request asks for over a session's defaults: where the two exclude each other, the request's own."""
    given = dict(defaults)
    for name, other in (("steps", "tokens_per_step"), ("tokens_per_step", "steps")):
        if options.get(name) is not None:
            given.pop(other, None)
    if options.get("temperature") == 0 and defaults.get("temperature"):
        for name in ("top_p", "top_k", "score_after"):  # which are for draws
            given.pop(name, None)
    if options.get("guidance") == 0:
        given.pop("unconditional", None)
    for kind, usual in (("sampler", DEFAULT_SAMPLER), ("cache", None)):
        own = f"{kind}_options"
        if options.get(kind) not in (None, defaults.get(kind, usual)):  # another one has options of its own
            given.pop(own, None)
        elif options.get(own) is not None:
            options = {**options, own: {**(defaults.get(own) or {}), **options[own]}}
    return {name: value for name, value in {**given, **options}.items() if value is not None}


def _key(settings: Settings, job: Job) -> Hashable:
    """What requests have to share to be decoded by one engine; ``settings`` have a block length."""
    assert job.policy is not None
    plugins = [(type(plugin), repr(getattr(plugin, "options", None))) for plugin in job.policy]
    shared = [repr(getattr(settings, name)) for name in ENGINES_OWN]
    return (*plugins, *shared, bool(settings.guidance), job.eos_ids)
