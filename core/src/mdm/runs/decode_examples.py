"""Examples decoded, with failures put down to the example that caused them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mdm import registry
from mdm.errors import MdmError
from mdm.protocols.task import BaseTask, Example
from mdm.runs import results
from mdm.runs.config import RunConfig
from mdm.runs.decode_args import _cache, decode_settings
from mdm.runs.grading import EncodedExample, Grader
from mdm.runs.hooks import _Hooks
from mdm.runs.processes import Rank
from mdm.runs.variants import Variant
from mdm.runs.watch import RunObserver

if TYPE_CHECKING:
    from mdm.api import Result
    from mdm.models.model import Model
    from mdm.protocols.hooks import StepEvent


CHUNK = 8
"""Batches handed to the engine at once: enough to keep its rows busy, few enough to bound memory."""


@dataclass(frozen=True)
class _Run:
    """What all parts of a run need."""

    config: RunConfig
    task: BaseTask
    examples: Sequence[Example]
    watch: RunObserver
    here: Rank
    fail_fast: bool


def _run_job(run: _Run, model: Model, job: Variant, left: Sequence[EncodedExample], log: results.ResultsWriter) -> None:
    from mdm.engine import memory
    from mdm.protocols.hooks import plain

    config, task, done = run.config, run.task, job.arm.outcomes
    # Of several processes each knows how far itself is: what was there before, or others do, is no part of its count.
    label, already = job.label, 0
    if run.here.count > 1:
        label, already = f"{job.label} (one of {run.here.count} processes)", len(done)
    total = len(done) + len(left) - already
    right = sum(outcome.metrics.get(task.metric, 0.0) for outcome in done.values())
    decoded: set[int] = set()
    since = time.perf_counter()

    def elapsed() -> float:
        nonlocal since
        before, since = since, time.perf_counter()
        return since - before

    def record(outcome: results.Outcome, trace: Sequence[Any]) -> None:
        nonlocal right
        ids = sorted({token for line in trace for token in line["tokens"]})
        lines = trace if config.trace == "full" else [plain(line) for line in trace]
        log.add(replace(outcome, texts=dict(zip(map(str, ids), model.token_texts(ids), strict=True))), lines)
        right += outcome.metrics.get(task.metric, 0.0)
        run.watch.tick(label, len(done) - already, total, right / len(done))

    settings = decode_settings(config, model, job.sampler, job.tokens_per_step)
    fits = memory.plan_batch(
        model, max((len(item.ids) + item.gen_length for item in left), default=1), len(left),
        kv=model.spec.attention == "causal" or registry.resolve("cache", _cache(config, model)).uses_kv,
        cfg_branches=2 if config.guidance else 1, batch_size=config.batch_size, max_rows=config.max_rows,
    )  # fmt: skip
    if left and (config.batch_size == "auto" or fits.splits_lookahead):
        run.watch.note(f"{job.label}: {fits}")
    grader = Grader(task, record, run.fail_fast)
    hooks = _Hooks()
    seen = hooks.on_step
    if run.watch.sees_steps:
        canvases = {item.row: [*(item.canvas or ()), *[None] * item.gen_length] for item in left}
        run.watch.begin(label, canvases, model.token_texts)
        settings["trace"] = "full"

        def seen(event: StepEvent) -> None:
            run.watch.step(event)
            if hooks.on_step:
                hooks.on_step(event)

    def decode(chunk: Sequence[EncodedExample]) -> None:
        """Decode ``chunk``; where that fails, the half that holds the culprit is halved until it stands alone.

        Where memory ran out there is no culprit: the batch is halved.
        """
        nonlocal fits

        def finish(place: int, result: Result) -> None:
            item = chunk[place]
            if model.spec.attention == "causal":  # its length is its own affair
                item = replace(item, masks=len(result.tokens))
            completion = model.decode(result.sequence[item.context :])
            decoded.add(item.row)
            grader.add(item, result, completion, elapsed())
            hooks.on_finish(result)

        try:
            _decode(model, chunk, finish, seen, settings | {"batch_size": fits.batch_size, "max_rows": fits.max_rows})
            return
        except MdmError:
            raise  # asked wrongly: no example's own fault
        except Exception as error:
            rest = [item for item in chunk if item.row not in decoded]
            if not rest:
                raise
            halved = memory.out_of_memory(error) and fits.batch_size > 1
            if halved:
                fits = fits.halved()
                run.watch.note(f"{job.label}: out of memory; going on with {fits}")
            elif len(chunk) == 1:
                grader.fail(chunk[0], error, elapsed())
                return
            else:
                for half in (rest[: len(rest) // 2], rest[len(rest) // 2 :]):
                    if half:
                        decode(half)
        if halved:  # out here, where the error no longer holds on to the memory
            decode(rest)

    run.watch.tick(label, len(done) - already, total, right / max(1, len(done)))
    try:
        chunk = CHUNK * max(1, fits.batch_size)
        for first in range(0, len(left), chunk):
            decode(left[first : first + chunk])
    except KeyboardInterrupt:
        grader.collect(to_the_end=True)
        raise
    grader.collect(to_the_end=True)


def _decode(
    model: Model,
    items: Sequence[EncodedExample],
    finish: Callable[[int, Result], None],
    on_step: Callable[[StepEvent], None] | None,
    settings: Mapping[str, Any],
) -> None:
    from mdm import api

    api.decode(
        model,
        [item.ids for item in items],
        gen_length=[item.gen_length for item in items],
        row_ids=[item.row for item in items],
        on_finish=finish,
        on_step=on_step,
        **settings,
    )
