"""A decode step by step: ``mdm.steps`` hands out the steps, ``mdm.decode`` takes them all."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from mdm.engine.canvas import check_steps
from mdm.engine.decisions import no_end
from mdm.engine.engine import Engine
from mdm.engine.prepare import Job, with_sizes
from mdm.engine.requests import Request
from mdm.engine.result import Result, TextEnds, result_of
from mdm.engine.rows import RowRecord
from mdm.engine.trace import Logits
from mdm.errors import MdmError
from mdm.models import compiled
from mdm.models.cuda_graphs import graphs_of
from mdm.models.model import Model
from mdm.protocols.hooks import Line, StepEvent
from mdm.protocols.task import MASK
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Step:
    """One step of one prompt. ``positions``, ``tokens``, ``kinds`` and ``entropies`` belong together, one by one."""

    prompt: int
    """Its index in ``prompts``."""
    step: int
    """From 0."""
    positions: list[int]
    """What the step changed."""
    tokens: list[int]
    """What stands there."""
    kinds: list[str]
    """Why: commit, bypass, edit, remask or fill."""
    entropies: list[float]
    """How uncertain the model was there (nats)."""
    lines: tuple[Line, ...] = field(repr=False)
    """Its trace lines: one for each kind of change."""
    canvas: tuple[int, ...] = field(repr=False)
    """Prompt and answer as the step leaves them, the mask's id where nothing is committed."""
    model: Model = field(repr=False)
    logits: Tensor | None = field(default=None, repr=False)
    """With ``logits=True``: float32 ``[N, V]`` on the CPU, the model's own for the positions ``scored``, merged by
    guidance where there is any, before penalties, suppressed tokens and temperature."""
    scored: list[int] = field(default_factory=list, repr=False)
    """Which positions ``logits`` are of: those that the sampler chose from."""

    @property
    def text(self) -> str | None:
        """The canvas, ``[MASK]`` for each mask, without special tokens; None without a tokenizer."""
        if self.model.tokenizer is None:
            return None
        runs = ((masked, list(run)) for masked, run in groupby(self.canvas, self.model.spec.mask_id.__eq__))
        return "".join(MASK * len(run) if masked else self.model.decode(run, ()) for masked, run in runs)


class Steps:
    """The steps of a decode, in their order; ``results`` once all are taken.

    Each loop over it begins the decode anew, and a loop that is left frees all that it held. ``yield from`` gives the
    results as well.

    Args:
        watched: whether loops get steps; else they take all of them and get none.

    All else is as in ``mdm.decode`` and ``mdm.steps``.
    """

    def __init__(
        self, model: Model, job: Job, *, trace: bool | str = True, on_finish: Callable[[int, Result], None] | None,
        on_step: Callable[[StepEvent], None] | None, watched: bool, logits: bool = False,
    ) -> None:  # fmt: skip
        self.settings = with_sizes(job.settings, model, job.requests, job.policy)
        self._model, self.job, self._trace, self._logits = model, job, trace, logits
        self._on_finish, self._on_step, self._watched = on_finish, on_step, watched
        self._ends = TextEnds(job.eos_ids, job.settings.stop)
        self._results: dict[int, Result] = {}
        self._taken: list[Step] = []

    def __iter__(self) -> Generator[Step, None, list[Result]]:
        model, job = self._model, self.job
        assert job.policy is not None
        self._results, self._taken = {}, []
        with graphs_of(model) if self.settings.graphs else nullcontext() as graphs:
            engine = Engine(
                model, *job.policy, self.settings, job.rules, job.eos_ids, on_finish=self.finish, on_step=self._on_step,
                on_row=self._note if self._watched else None, logits=self._logits, full_trace=self._trace == "full",
                graphs=graphs,
            )  # fmt: skip
            steps, goes_on = in_steps(engine, job.requests), True
            while goes_on:
                with no_end(), compiled.forwards(model) if self.settings.compile else nullcontext():
                    goes_on = next(steps, False)
                taken, self._taken = self._taken, []
                yield from taken
        return self.results

    @property
    def results(self) -> list[Result]:
        """One result for each prompt, in order.

        Raises:
            MdmError: not all steps are taken.
        """
        if len(self._results) < len(self.job.requests):
            raise MdmError("no results yet: they are there when all steps are taken")
        return [self._results[number] for number in range(len(self.job.requests))]

    def finish(self, row: RowRecord) -> None:
        """Note the result of a row that has ended."""
        job, number = self.job, row.request
        result = result_of(row, job.requests[number], job.layouts[number], self._model, self._ends, trace=self._trace)
        self._results[number] = result
        if self._on_finish is not None:
            self._on_finish(number, result)

    def _note(self, row: RowRecord, lines: list[Line], logits: Logits | None) -> None:
        changes: Any = {name: [one for line in lines for one in line[name]] for name in ("positions", "tokens")}
        changes |= {"kinds": [line["kind"] for line in lines for _ in line["positions"]]}
        changes |= {"entropies": [nats for line in lines for nats in line["entropy"]]}
        changes |= {} if logits is None else {"scored": logits[0], "logits": logits[1]}
        own, canvas = tuple(deepcopy(lines)), tuple(row.tokens)
        step = Step(row.request, lines[0]["step"], lines=own, canvas=canvas, model=self._model, **changes)
        self._taken.append(step)


def in_steps(engine: Engine, requests: Sequence[Request]) -> Iterator[bool]:
    """Decode ``requests``, and give True after each step of their rows; a row that ends makes room for one that waits.

    Raises:
        MdmError: the sampler gets nowhere, or a grid has more blocks than there are steps.
    """
    for request in requests:
        check_steps(f"prompt {request.index}", request, engine.model.spec, engine.settings, engine.sampler.works_on)
    # Rows of like length share a batch, so that there is little padding.
    waiting = sorted(requests, key=lambda r: -(len(r.tokens) + r.gen_length))
    size = engine.settings.batch_size or len(waiting)
    assert isinstance(size, int)
    while waiting or engine.rows:
        if waiting and len(engine.rows) < size:
            free = size - len(engine.rows)
            engine.admit(waiting[:free])
            waiting = waiting[free:]
        engine.step()
        yield True
    engine.flush()
