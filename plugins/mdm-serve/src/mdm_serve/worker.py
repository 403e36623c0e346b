"""The one thread that owns the model: rows go in over a queue, what happens to them comes back to the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from mdm.errors import MdmError, cause
from mdm.protocols.hooks import Line, plain
from mdm.protocols.task import Prompt
from mdm.runs.decode_args import canvas_texts

from mdm_serve.errors import ApiError, draining, out_of_memory, refused, timed_out
from mdm_serve.metrics import Metrics
from mdm_serve.schema import Job

if TYPE_CHECKING:
    from mdm.api import Result, Session, Update
    from mdm.models.layout import Layout
    from mdm.models.model import Model

log = logging.getLogger("mdm.serve")

FAILURES = ("cancelled", "timeout", "error")
"""Ends of a row that leave no answer."""
NO_CHANCE = -9999.0
"""How OpenAI writes the logarithm of a probability that is too small to be held."""


class State(NamedTuple):
    """What a session holds after a step."""

    waiting: int = 0
    running: int = 0
    row_tokens: int = 0
    engines: int = 0


@dataclass(frozen=True)
class Canvas:
    """How a row begins."""

    prompt_tokens: int
    texts: list[str | None]
    """Of each token of the canvas; None where it is masked."""


@dataclass(frozen=True)
class Begun:
    """All rows of a request were accepted; with a canvas each where the trace is to be shown."""

    canvases: tuple[Canvas, ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a row ended that was decoded."""

    result: Result
    finish: str
    token_texts: Sequence[str] = ()
    """Of each of the result's tokens up to the end, where log-probabilities are asked for."""
    logprobs: Sequence[float] = ()
    """Of these tokens, when they were committed, in nats."""


@dataclass(frozen=True)
class Piece:
    """What a step did to one row of a request."""

    choice: int
    text: str
    lines: tuple[Line, ...] = ()
    """Its trace as it is to be shown, with the texts of the tokens."""
    ended: Ended | None = None


@dataclass(frozen=True)
class Failed:
    """The request is over; its other rows are given up."""

    error: ApiError


@dataclass(frozen=True)
class Gone:
    """The client has gone away."""


Event = Begun | Piece | Failed | Gone


class Call:
    """A request's rows, as the event loop sees them."""

    def __init__(self, job: Job, worker: Worker) -> None:
        self.job = job
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.closed = False
        self._worker = worker

    def put(self, event: Event) -> None:
        """Add an event, in the loop's thread."""
        if not self.closed:
            self.events.put_nowait(event)

    def close(self) -> None:
        """Nobody waits for it any more: rows that are not done are given up at the next step."""
        if not self.closed:
            self.closed = True
            self._worker.cancel(self)


class Worker:
    """Runs a session in a thread of its own.

    Args:
        model: from ``load_model``; nobody else touches it, or its tokenizer, from ``open`` on.
        open_session: makes the session; called in the thread, and again should a step ever raise.
        timeout: seconds until a row is given up, waiting included.
        gen_length: tokens that a request gets which names no number.
        max_length: tokens of a request's canvas; None: as many as the model was trained on.
    """

    def __init__(
        self, model: Model, open_session: Callable[[], Session], metrics: Metrics, *, timeout: float, gen_length: int,
        max_length: int | None = None,
    ) -> None:  # fmt: skip
        self.model, self.metrics, self.state = model, metrics, State()
        self._open_session, self._timeout, self.gen_length = open_session, timeout, gen_length
        trained = getattr(getattr(model.body, "config", None), "max_position_embeddings", None)
        self._max_length = max_length or trained or float("inf")
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._rows: dict[int, tuple[Call, int]] = {}
        self._sent = self._taken = self._forwards = 0
        self._ended = False
        self._session: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        metrics.watch(self)

    # The event loop's side.

    def open(self) -> None:
        """Start the thread and wait for the session.

        Raises:
            MdmError: what is asked of it as a whole does not fit.
        """
        if self._thread is None:
            ready: Future[None] = Future()
            self._thread = threading.Thread(target=self._run, args=(ready,), name="mdm-serve worker", daemon=True)
            self._thread.start()
            ready.result()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send events to this loop."""
        self._loop = loop

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Rows that wait for room, those included that the thread has not seen yet."""
        return self.state.waiting + self._sent - self._taken

    def submit(self, job: Job) -> Call:
        """Have a job done; its events begin with ``Begun``, or are one ``Failed``."""
        call = Call(job, self)
        self._sent += job.rows
        self._commands.put(partial(self._start, call))
        return call

    def cancel(self, call: Call) -> None:
        """Give up the rows of a call that is closed."""
        self._commands.put(partial(self._give_up, call))

    def close(self, seconds: float = 10.0) -> None:
        """End the thread after the step that it is in, and wait for that for some seconds at most."""
        self._commands.put(None)
        if self._thread is not None:
            self._thread.join(seconds)

    # The thread's side.

    def _run(self, ready: Future[None]) -> None:
        try:
            self._session = self._open_session()
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        try:
            while self._obey(wait=not (self._rows or self.state.waiting or self.state.running)):
                self._step()
        finally:
            self._ended = True
            self._fail(draining())
            self._commands.put(None)
            self._obey(wait=True)  # whoever came too late is told so
            self._session.close()

    def _obey(self, wait: bool) -> bool:
        """Do what was asked; ``wait`` for it where there is nothing else to do. False: it is time to end."""
        while True:
            try:
                command = self._commands.get(block=wait)
            except Empty:
                return True
            if command is None:
                return False
            command()
            wait = False

    def _start(self, call: Call) -> None:
        failure = None
        try:
            if self._ended:
                failure = draining()
            elif not call.closed:
                self._send([(call, Begun(self._submit(call)))])
        except MdmError as error:
            failure = refused(error, call.job.fields)
        except Exception as error:
            log.error("a request could not be begun: %s", cause(error), exc_info=True)
            failure = ApiError(500, "the request could not be begun; the server's log has the reason")
        if failure is not None:
            self._give_up(call)
            self._send([(call, Failed(failure))])
        self._taken += call.job.rows
        self._note()

    def _submit(self, call: Call) -> tuple[Canvas, ...]:
        """Hand all rows of a call to the session; the canvases that they begin with, where these are to be shown."""
        job, model, canvases = call.job, self.model, []
        arguments: dict[str, Any] = {**job.arguments, "trace": job.trace, "timeout": self._timeout}
        suffix = model.encode(job.suffix, None) if isinstance(job.suffix, str) else job.suffix
        for number, prompt in enumerate(job.prompts):
            layout = lay_out(model, prompt)
            behind = list((layout.suffix if suffix is None else suffix) or ())
            length = job.arguments.get("gen_length", self.gen_length)
            if (whole := len(layout.tokens) + length + len(behind)) > self._max_length:  # a step of it might never end
                raise MdmError(
                    f"the request has {whole:,} tokens, its answer included, and this server decodes at most "
                    f"{self._max_length:,} (--max-length)"
                )
            for key in range(job.n):
                row = self._session.submit(layout, suffix=suffix, row_id=key, **arguments)
                self._rows[row] = call, number * job.n + key
            if job.show_trace:
                texts = canvas_texts(model, layout.tokens, length) + canvas_texts(model, behind)
                canvases += [Canvas(len(layout.tokens), texts)] * job.n
        return tuple(canvases)

    def _give_up(self, call: Call) -> None:
        for row in [row for row, (owner, _) in self._rows.items() if owner is call]:
            self._session.cancel(row)

    def _step(self) -> None:
        try:
            updates = self._session.step()
        except Exception as error:
            log.error("a step failed, and %d rows with it: %s", len(self._rows), cause(error), exc_info=True)
            self._fail(ApiError(500, "the decoder failed; the server's log has the reason"))
            self._session.close()
            self._session, self._forwards = self._open_session(), 0
            updates = []
        self._send([self._event(update) for update in updates if update.request in self._rows])
        self._note()
        if not updates and self._rows and not self.state.waiting + self.state.running:
            self._fail(ApiError(500, "the decoder lost the request"))

    def _event(self, update: Update) -> tuple[Call, Event]:
        """What an update is to the request that it belongs to."""
        self.metrics.observe(update)
        call, choice = self._rows.pop(update.request) if update.finish else self._rows[update.request]
        if update.finish in FAILURES:
            return call, Failed(self._failure(update))
        try:
            lines = update.lines if call.job.show_trace else ()
            shown = tuple(self._with_texts(line, call.job.show_trace == "full") for line in lines)
            result, ended = update.result, None
            if result is not None:
                ended = self._ended_by(call.job, result, str(update.finish))
        except Exception as error:
            log.error("a result could not be read: %s", cause(error), exc_info=True)
            return call, Failed(ApiError(500, "the result could not be read; the server's log has the reason"))
        return call, Piece(choice, update.text, shown, ended)

    def _ended_by(self, job: Job, result: Result, finish: str) -> Ended:
        without_trace = replace(result, trace=[])
        if not job.logprobs:
            return Ended(without_trace, finish)
        end = result.completion_tokens
        values = [max(value, NO_CHANCE) for value in result.logprobs[:end]]
        return Ended(without_trace, finish, self.model.token_texts(result.tokens[:end]), values)

    def _failure(self, update: Update) -> ApiError:
        if update.finish == "timeout":
            return timed_out(self._timeout)
        if update.finish == "cancelled":
            return draining()
        return out_of_memory(str(update.error)) if update.out_of_memory else ApiError(500, str(update.error))

    def _with_texts(self, line: Line, full: bool) -> Line:
        masked = line["kind"] == "remask"
        texts = [None] * len(line["positions"]) if masked else self.model.token_texts(line["tokens"])
        return {**(line if full else plain(line)), "texts": texts}

    def _note(self) -> None:
        session = self._session
        self.state = State(session.waiting, session.running, session.row_tokens, session.engines)
        self.metrics.forwards.inc(session.forwards - self._forwards)
        self._forwards = session.forwards

    def _fail(self, error: ApiError) -> None:
        """End every call that has a row."""
        calls = {id(call): call for call, _ in self._rows.values()}
        self._rows.clear()
        self._send([(call, Failed(error)) for call in calls.values()])

    def _send(self, events: Sequence[tuple[Call, Event]]) -> None:
        if events and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, events)


def _deliver(events: Iterable[tuple[Call, Event]]) -> None:
    for call, event in events:
        call.put(event)


def lay_out(model: Model, prompt: Any) -> Layout:
    """A prompt on the model's canvas, as ``mdm.decode`` lays it out: a chat, a text with ``[MASK]`` in it, or ids."""
    from mdm.models.layout import Layout

    if isinstance(prompt, str):
        layout = model.lay_out(Prompt("", prompt))
    elif isinstance(prompt[0], int):
        return Layout(list(prompt))
    else:
        layout = model.lay_out(Prompt(prompt))
    return replace(layout, gen_length=None)
