"""Requests that come and go: engines that are stepped in turn, and what each step did to whom."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import count, takewhile
from math import inf
from typing import Any

from mdm.engine.decisions import no_end
from mdm.engine.engine import Engine
from mdm.engine.memory import out_of_memory, row_tokens as row_tokens_that_fit, saturating
from mdm.engine.result import places_of, result_of
from mdm.engine.rows import RowRecord
from mdm.engine.tickets import Finish, Ticket, Update, open_ticket, prepared
from mdm.errors import MdmError, cause
from mdm.models import compiled
from mdm.models.cuda_graphs import graphs_of
from mdm.models.model import Model
from mdm.protocols.settings import SESSIONS_OWN

MAX_ENGINES = 8
"""Engines that hold rows at one time; a request that needs another one waits."""
PREFILL_TOKENS = 2048
"""Tokens of canvases that begin in one step, or one canvas: so a burst of long prompts does not stall the rest."""


@dataclass
class _Slot:
    """An engine, and the requests that it decodes."""

    engine: Engine
    resources: ExitStack
    ended: list[RowRecord]
    tickets: dict[int, Ticket] = field(default_factory=dict)


class Session:
    """Decodes requests as they come, each as ``mdm.decode`` would decode it alone.

    Requests that share sampler, cache and block length share an engine; rows of an engine may differ in everything
    else. ``mdm.api.open_session`` makes one. It belongs to one thread at a time.

    Args:
        defaults: the arguments of ``submit`` where these are not given.
        row_tokens: tokens of all canvases that are decoded at one time; None: what the memory holds.
    """

    def __init__(self, model: Model, defaults: Mapping[str, Any], row_tokens: int | None = None) -> None:
        self.model, self._defaults = model, dict(defaults)
        if model.spec.attention == "causal":
            raise MdmError(f"{model.name or model.spec.family} is autoregressive: servers for such models decode it")
        self._numbers = count()
        self._waiting: deque[Ticket] = deque()
        self._slots: dict[Hashable, _Slot] = {}
        self._turn: deque[Hashable] = deque()
        self._updates: list[Update] = []
        self.forwards = 0
        """model calls"""
        if row_tokens is not None and (type(row_tokens) is not int or row_tokens < 1):
            raise MdmError(f"row_tokens is {row_tokens!r}: it is a number of tokens from 1")
        self.row_tokens_limit = row_tokens_that_fit(model) if row_tokens is None else row_tokens
        self._at_once = self.row_tokens_limit  # less where that was too bold
        # What is wrong with the defaults is said here and not to every request.
        prepared(model, self._defaults, [int(model.spec.mask_id == 0)], 0, {})

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that are decoded."""
        return sum(len(slot.tickets) for slot in self._slots.values())

    @property
    def row_tokens(self) -> int:
        """Tokens of the canvases that are decoded."""
        return sum(ticket.length for ticket in self._running())

    @property
    def engines(self) -> int:
        """Engines that hold rows."""
        return len(self._slots)

    def submit(
        self, prompt: Any, *, row_id: int = 0, timeout: float | None = None, trace: bool | str = False, **options: Any
    ) -> int:
        """Queue a request; returns its number.

        Args:
            prompt: one prompt as in ``mdm.decode``.
            row_id: keys its random draws together with ``seed``; samples of one prompt have 0, 1, 2 and so on.
            timeout: seconds after which it is given up, those that it waits included.
            trace: whether updates and result carry trace lines; "full": with confidences and candidates.
            options: what differs from the session's, or None for what is usual without any: ``sampler``,
                ``sampler_options``, ``cache``, ``cache_options``, ``suffix``, ``unconditional``, and the decoding
                options of which it may have its own.

        Raises:
            MdmError: as ``mdm.decode``; an option that belongs to the whole session; more than the memory holds.
        """
        if trace not in (True, False, "full"):
            raise MdmError(f'trace is {trace!r}: it is True, False or "full"')
        if timeout is not None and not (type(timeout) in (int, float) and 0 <= timeout < inf):
            raise MdmError(f"timeout is {timeout!r}: it is a number of seconds")
        for name in options:
            if name in SESSIONS_OWN:
                raise MdmError(f"{name} belongs to the whole session, and not to one request")
        job, own = prepared(self.model, self._defaults, prompt, row_id, options)
        ticket = open_ticket(self.model, next(self._numbers), job, own, trace, timeout)
        if ticket.length > self.row_tokens_limit:
            raise MdmError(
                f"the request has {ticket.length:,} tokens, in whole blocks, and {self.row_tokens_limit:,} are decoded "
                "at one time: give a shorter prompt or fewer tokens to generate"
            )
        self._waiting.append(ticket)
        return ticket.number

    def cancel(self, request: int) -> bool:
        """End a request at the next step; False where it has ended already."""
        for ticket in (*self._waiting, *self._running()):
            if ticket.number == request:
                ticket.wanted = ticket.wanted or "cancelled"
                return True
        return False

    def step(self) -> list[Update]:
        """Begin what may begin, make a step of one engine, and return what happened to whom."""
        self._end_wanted()
        self._admit()
        if self._turn:
            key = self._turn[0]
            self._turn.rotate(-1)
            self._step(key, self._slots[key])
        updates, self._updates = self._updates, []
        return updates

    def close(self) -> None:
        """Give up all requests, and free what they hold."""
        for key in list(self._slots):
            self._close(key)
        self._waiting.clear()

    def _running(self) -> list[Ticket]:
        return [ticket for slot in self._slots.values() for ticket in slot.tickets.values()]

    def _end_wanted(self) -> None:
        """End what was cancelled, and what has had its time."""
        now = time.monotonic()
        for ticket in (*self._waiting, *self._running()):
            if ticket.deadline is not None and now >= ticket.deadline:
                ticket.wanted = ticket.wanted or "timeout"
        self._waiting = deque(ticket for ticket in self._waiting if not self._ended(ticket))
        for key, slot in list(self._slots.items()):
            gone = [ticket for ticket in slot.tickets.values() if self._ended(ticket)]
            if gone:
                for ticket in gone:
                    del slot.tickets[ticket.number]
                self._drop(key, slot, [ticket.number for ticket in gone])
                if key in self._slots and not slot.tickets:
                    self._close(key)

    def _ended(self, ticket: Ticket) -> bool:
        if ticket.wanted is not None:
            self._updates.append(Update(ticket.number, finish=ticket.wanted))
        return ticket.wanted is not None

    def _drop(self, key: Hashable, slot: _Slot, numbers: Sequence[int]) -> None:
        """Take rows of requests that have ended out of an engine."""
        try:
            slot.engine.drop(numbers)
        except Exception as error:
            self._recover(key, slot, error)

    def _admit(self) -> None:
        """Begin requests in the order in which they came, as far as there is room."""
        begun = 0
        while self._waiting and self._has_room(self._waiting[0], begun):
            ticket = self._waiting.popleft()
            begun += ticket.length
            key, slot = ticket.key, self._slots.get(ticket.key)
            try:
                if slot is None:
                    slot = self._open(ticket)
                slot.tickets[ticket.number] = ticket
                with no_end():
                    slot.engine.admit([ticket.request])
            except Exception as error:
                if slot is None:
                    self._fail(ticket, error)
                else:
                    self._recover(key, slot, error, ticket)

    def _has_room(self, ticket: Ticket, begun: int) -> bool:
        running = self._running()
        if not running:
            return True
        if ticket.key not in self._slots and len(self._slots) >= MAX_ENGINES:
            return False
        if begun and begun + ticket.length > PREFILL_TOKENS:
            return False
        if sum(each.length for each in running) + ticket.length > self._at_once:
            return False
        size = self._defaults.get("batch_size")
        if isinstance(size, int):
            return len(running) < size
        return sum(each.runs for each in running) + ticket.runs <= saturating(self.model)

    def _open(self, ticket: Ticket) -> _Slot:
        """An engine for requests like this one."""
        job, settings, resources, ended = ticket.job, ticket.job.settings, ExitStack(), list[RowRecord]()
        assert job.policy is not None
        graphs = resources.enter_context(graphs_of(self.model)) if settings.graphs else None
        engine = Engine(
            self.model, *job.policy, settings, job.rules, job.eos_ids, on_finish=ended.append, graphs=graphs
        )
        self._slots[ticket.key] = _Slot(engine, resources, ended)
        self._turn.append(ticket.key)
        return self._slots[ticket.key]

    def _close(self, key: Hashable) -> None:
        self._slots.pop(key).resources.close()
        self._turn.remove(key)

    def _step(self, key: Hashable, slot: _Slot) -> None:
        engine = slot.engine
        engine.recorder.full = any(ticket.trace == "full" for ticket in slot.tickets.values())
        try:
            with no_end(), compiled.forwards(self.model) if engine.settings.compile else nullcontext():
                engine.trim()
                engine.step()
                if not engine.rows:
                    engine.flush()
        except Exception as error:
            self._recover(key, slot, error)
            return
        finally:
            self.forwards, engine.scorer.calls = self.forwards + engine.scorer.calls, 0
        rows: dict[int, list[RowRecord]] = {}
        for row in engine.rows:
            rows.setdefault(row.request, []).append(row)
        early = [number for number, beams in rows.items() if self._progress(slot, slot.tickets[number], beams)]
        if early:
            self._drop(key, slot, early)
        self._hand_over(slot)
        if key in self._slots and not slot.tickets:
            self._close(key)

    def _hand_over(self, slot: _Slot) -> None:
        """End the requests whose rows have ended; one that was cancelled meanwhile has had its end."""
        ended, slot.ended[:] = list(slot.ended), []
        for row in ended:
            if row.request in slot.tickets:
                self._finished(slot, slot.tickets[row.request], row)

    def _progress(self, slot: _Slot, ticket: Ticket, beams: Sequence[RowRecord]) -> bool:
        """Say what is new of a request that goes on, or end it where its text has ended: then True."""
        places = places_of(beams[0], ticket.request)
        stops = [row.final_stop() for row in beams]
        final = [
            [row.tokens[place] for place in places if place < stop] for row, stop in zip(beams, stops, strict=True)
        ]
        # What all beams share cannot change: whichever is picked descends from one of them.
        tokens = [alike[0] for alike in takewhile(lambda alike: len(set(alike)) == 1, zip(*final, strict=False))]
        new = len(tokens) > len(ticket.tokens_given) and ticket.ends.come_early
        if new and ticket.text is not None and ticket.ends.length(self.model, tokens) is not None:
            self._finished(slot, ticket, beams[0], stop=places[len(tokens) - 1] + 1)
            return True
        lines = () if len(beams) > 1 else ticket.new_lines(beams[0])
        text, tokens = ticket.new_text(tokens, False)
        if lines or tokens or text:
            self._updates.append(Update(ticket.number, lines, tuple(tokens), text))
        return False

    def _finished(self, slot: _Slot, ticket: Ticket, row: RowRecord, stop: int | None = None) -> None:
        """End a request with what it has decoded, up to the position ``stop``."""
        del slot.tickets[ticket.number]
        try:
            result = result_of(
                row, ticket.request, ticket.job.layouts[0], self.model, ticket.ends, trace=ticket.trace, stop=stop
            )
        except Exception as error:  # a tokenizer, or what makes a picture of tokens
            self._fail(ticket, error)
            return
        lines = ticket.new_lines(row)
        has_end = ticket.text is not None and result.completion_tokens < len(result.tokens)
        finish: Finish = "stop" if has_end else "length"
        text, tokens = ticket.new_text(result.tokens, True)
        self._updates.append(Update(ticket.number, lines, tuple(tokens), text, finish, result))

    def _recover(self, key: Hashable, slot: _Slot, error: Exception, blamed: Ticket | None = None) -> None:
        """An engine has failed: end the request that is to blame, and begin the others again.

        A row decodes to the same tokens whenever it begins, so that nothing that was given out is wrong.

        Args:
            blamed: whose doing it is; None: the error may say so, or else each is tried alone.
        """
        self._hand_over(slot)
        tickets = list(slot.tickets.values())
        self._close(key)
        if isinstance(error, MdmError) and error.request is not None:
            blamed = slot.tickets.get(error.request, blamed)
        if len(tickets) == 1:
            [blamed] = tickets
        elif out_of_memory(error):
            blamed = None
            self._at_once = min(self._at_once, sum(ticket.length for ticket in tickets) // 2)
        elif blamed is None:
            for ticket in tickets:  # each in an engine of its own
                ticket.key = (ticket.key, ticket.number)
        if blamed is not None:
            self._fail(blamed, error)
        self._waiting.extendleft(ticket for ticket in reversed(tickets) if ticket is not blamed)

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        told = error if isinstance(error, MdmError) else MdmError(f"the request failed: {cause(error)}")
        self._updates.append(Update(ticket.number, finish="error", error=told, out_of_memory=out_of_memory(error)))
