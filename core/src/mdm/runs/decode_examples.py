"""Decodes a variant's examples in batches, and records a failure for the example that caused it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdm import registry
from mdm.errors import MdmError, PromptError, blamed, describe
from mdm.protocols.hooks import plain
from mdm.protocols.task import BaseTask, Example
from mdm.runs.config import RunConfig
from mdm.runs.decode_args import as_asked, begin_view, cache_name, completion, decode_settings, end_tokens
from mdm.runs.grading import EncodedExample, Grader
from mdm.runs.hooks import RunHooks
from mdm.runs.processes import Rank
from mdm.runs.results import ExampleResult, ResultsWriter
from mdm.runs.variants import Variant
from mdm.runs.watch import RunObserver, Work

if TYPE_CHECKING:
    from mdm.api import Result
    from mdm.engine.memory import Sizes
    from mdm.models.model import Model
    from mdm.protocols.hooks import StepEvent

CHUNK = 8
"""Batches given to the engine in one call: enough to keep its rows busy, few enough to bound memory."""


@dataclass(frozen=True)
class RunContext:
    """What all parts of a run share."""

    config: RunConfig
    task: BaseTask
    examples: Sequence[Example]
    observer: RunObserver
    hooks: RunHooks
    process: Rank
    fail_fast: bool


class ExampleDecoder:
    """Decodes, grades and writes the examples of one variant."""

    def __init__(self, run: RunContext, model: Model, variant: Variant, writer: ResultsWriter) -> None:
        self._run, self._model, self._variant, self._writer = run, model, variant, writer
        self._settings = decode_settings(variant.settled(run.config), model, variant.sampler, variant.tokens_per_step)
        self._grader = Grader(run.task, self._record, run.fail_fast, end_tokens(run.config, model), model.token_texts)
        self._progress = Progress(run, variant)
        self._decoded: set[int] = set()
        self._last_finish = time.perf_counter()

    def decode(self, examples: Sequence[EncodedExample]) -> Sizes:
        """Decode ``examples``; each is written as soon as it is graded. Returns the sizes of the last batch.

        Raises:
            MdmError: a request that is wrong for all examples, an observer or a hook that failed, or, with
                ``fail_fast``, an example that failed.
        """
        self._sizes = sizes = self._plan_batch(examples)
        chosen = {"batch_size": sizes.batch_size, "max_rows": sizes.max_rows}
        self._run.observer.on_settings(self._progress.label, self._settings | chosen)
        self._check_steps(examples)
        self._work = WorkMeter(
            self._run.observer, self._progress.label, {e.row: _masks(e, self._model) for e in examples}
        )
        self._on_step = self._step_callback(examples)
        self._progress.begin(len(examples))
        try:
            chunk = CHUNK * max(1, self._sizes.batch_size)
            for first in range(0, len(examples), chunk):
                self._decode_chunk(examples[first : first + chunk])
        except BaseException:
            with suppress(MdmError):  # what is decoded is kept; the first failure is the one to tell of
                self._grader.collect(to_the_end=True)
            raise
        self._grader.collect(to_the_end=True)
        return self._sizes

    def _check_steps(self, examples: Sequence[EncodedExample]) -> None:
        """Say that steps are too few, or refuse them, before anything is decoded."""
        from mdm.engine.canvas import check_steps
        from mdm.engine.pictures import for_pictures
        from mdm.engine.requests import Request

        spec, config = self._model.spec, self._run.config
        if spec.attention != "causal":
            settings = for_pictures(config, [example.layout for example in examples], spec)
            works_on = registry.resolve("sampler", self._variant.sampler).works_on
            for example in examples:
                layout = example.layout
                request = Request(example.index, layout.tokens, layout.gen_length or 0, example.row)
                check_steps(f"{config.task}, example {example.example.id}", request, spec, settings, works_on)

    def _plan_batch(self, examples: Sequence[EncodedExample]) -> Sizes:
        from mdm.engine import memory
        from mdm.protocols.cache import BaseCache

        config, model = self._run.config, self._model
        mode = BaseCache if model.spec.attention == "causal" else registry.resolve("cache", cache_name(config, model))
        kept: Any = {"kv": mode.uses_kv, "features": mode.inside_layers, "maps": mode.reads_attention}
        longest = max(map(_length, examples), default=1)
        memory.check_fits(model, longest, len(examples), **kept, batch_size=config.batch_size)
        sizes = memory.plan_batch(
            model, longest, len(examples), **kept, cfg_branches=2 if config.guidance else 1,
            batch_size=config.batch_size, max_rows=config.max_rows,
        )  # fmt: skip
        if examples and (config.batch_size == "auto" or sizes.splits_lookahead):
            self._run.observer.on_note(f"{self._variant.label}: {sizes}")
        return sizes

    def _step_callback(self, examples: Sequence[EncodedExample]) -> Callable[[StepEvent], None]:
        """What the engine calls after each step."""
        observer, seen_by = self._run.observer, [self._work.on_step]
        if observer.sees_steps:
            layouts = {example.row: example.layout for example in examples}
            observer.on_names(self._progress.label, {example.row: _name(example) for example in examples})
            begin_view(observer, self._progress.label, self._model, layouts)
            self._settings["trace"] = "full"
            seen_by.append(observer.on_step)
        seen_by.append(self._run.hooks.on_step)

        def on_step(event: StepEvent) -> None:
            for see in seen_by:
                see(event)

        return on_step

    def _decode_chunk(self, examples: Sequence[EncodedExample]) -> None:
        """Decode ``examples`` in one call of the engine.

        Where that fails, the failure is put down to one example by halving. Where memory ran out no example is at
        fault, and the batch is halved instead.
        """
        from mdm import api
        from mdm.engine import memory

        self._work.restart()
        try:
            api.decode(
                self._model, [example.layout for example in examples], row_ids=[example.row for example in examples],
                on_finish=partial(self._finish, examples), on_step=self._on_step,
                **self._settings | {"batch_size": self._sizes.batch_size, "max_rows": self._sizes.max_rows},
            )  # fmt: skip
            return
        except Exception as error:
            # A wrong request, or an observer or hook that failed: no example is at fault.
            if isinstance(error, MdmError) and not isinstance(error, PromptError):
                raise
            if not self._unfinished(examples):
                raise MdmError(f"decoding failed behind its last example: {describe(error)}") from error
            out_of_memory = memory.out_of_memory(error) and self._sizes.batch_size > 1
            if len(examples) == 1 and not out_of_memory:
                self._work.finish(examples[0].row)
                self._grader.fail(examples[0], error, self._elapsed())
                return
        # Behind the handler, since the error holds on to the tensors of the failed call.
        if out_of_memory:
            self._sizes = self._sizes.halved()
            self._run.observer.on_note(f"{self._variant.label}: out of memory; going on with {self._sizes}")
            self._decode_chunk(self._unfinished(examples))
            return
        unfinished = self._unfinished(examples)
        middle = len(unfinished) // 2
        for half in filter(None, (unfinished[:middle], unfinished[middle:])):
            self._decode_chunk(half)

    def _unfinished(self, examples: Sequence[EncodedExample]) -> list[EncodedExample]:
        return [example for example in examples if example.row not in self._decoded]

    def _finish(self, examples: Sequence[EncodedExample], index: int, result: Result) -> None:
        """Grade a decoded example, which the engine calls. An MdmError, such as a full disk's, stops the run."""
        example, config = examples[index], self._run.config
        self._decoded.add(example.row)
        self._work.finish(example.row)
        answer: str | Path
        try:
            if result.image is not None:
                answer = self._writer.save_image(example.row, result.image)
            else:
                sequence = as_asked(result, example.layout)
                answer = completion(config, self._model, sequence, example.layout, example.prompt.stop)
        except MdmError:
            raise
        except Exception as error:
            self._grader.fail(example, error, self._elapsed())
        else:
            with blamed(f"example {example.example.id} is decoded but cannot be recorded"):
                self._grader.add(example, result, answer, self._elapsed())

    def _record(self, example: ExampleResult, result: Result | None) -> None:
        trace = result.trace if result else []
        ids = sorted({token for line in trace for token in line["tokens"]})
        try:
            texts = dict(zip(map(str, ids), self._model.token_texts(ids), strict=True))
            example = replace(example, texts=texts)
        except Exception as error:
            example = replace(example, metrics={}, error=describe(error))
        with blamed(f"example {example.id} cannot be recorded"):
            self._writer.add(example, trace if self._run.config.trace == "full" else [plain(line) for line in trace])
        self._progress.add(example)
        self._run.hooks.on_finish(result, example)

    def _elapsed(self) -> float:
        """Seconds since the example before was decoded."""
        before, self._last_finish = self._last_finish, time.perf_counter()
        return max(0.0, self._last_finish - before)


def _length(example: EncodedExample) -> int:
    layout = example.layout
    return len(layout.tokens) + (layout.gen_length or 0) + len(layout.suffix or ())


def _name(example: EncodedExample) -> str:
    return example.example.id + (f" (repeat {example.repeat + 1})" if example.repeat else "")


def _masks(example: EncodedExample, model: Model) -> int:
    """Tokens that decoding the example commits."""
    return example.layout.tokens.count(model.spec.mask_id) + (example.layout.gen_length or 0)


class WorkMeter:
    """Counts steps and tokens from the trace of each step, and tells the observer of them now and then.

    Args:
        tokens: row -> how many tokens it has to decode.
    """

    EVERY = 0.5
    """Seconds between two reports."""

    def __init__(self, observer: RunObserver, label: str, tokens: Mapping[int, int]) -> None:
        self._observer, self._label, self._tokens = observer, label, tokens
        self._total, self._finished, self._steps = sum(tokens.values()), 0, 0
        self._open: dict[int, int] = {}
        self._begun = self._reported = time.perf_counter()

    def restart(self) -> None:
        """What is unfinished is decoded from its beginning."""
        self._open.clear()

    def finish(self, row: int) -> None:
        """A row is decoded, or has failed."""
        self._open.pop(row, None)
        self._finished += self._tokens[row]

    def on_step(self, event: StepEvent) -> None:
        """Count the step, and report where it is time."""
        self._steps += 1
        for line in event.lines:
            new = SIGN.get(line["kind"], 0) * len(line["positions"])
            self._open[line["row"]] = self._open.get(line["row"], 0) + new
        if (now := time.perf_counter()) < self._reported + self.EVERY:
            return
        self._reported = now
        counts = [(count, self._tokens.get(row, 0)) for row, count in self._open.items()]
        tokens = self._finished + sum(map(min, counts))  # beams of an example share its tokens
        rows = sum(count < most for count, most in counts)  # others are decoded, and wait to be handed over
        self._observer.on_work(self._label, Work(rows, self._steps, tokens, self._total - tokens, now - self._begun))


SIGN = {"commit": 1, "bypass": 1, "fill": 1, "remask": -1}
"""Kind of a trace line -> what each of its positions adds to the tokens decoded."""


class Progress:
    """Counts a variant's written examples for the observer. Of several processes, each counts its own share."""

    def __init__(self, run: RunContext, variant: Variant) -> None:
        self.label = variant.label
        self._observer, self._metric, self._results = run.observer, run.task.metric, variant.results.by_row
        self._total = self._uncounted = 0
        if run.process.world_size > 1:
            self.label = f"{variant.label} (one of {run.process.world_size} processes)"
            self._uncounted = len(self._results)
        self._correct, self._graded = 0.0, 0
        for example in self._results.values():
            self._count(example)

    def begin(self, examples_left: int) -> None:
        self._total = len(self._results) - self._uncounted + examples_left
        self._report()

    def add(self, example: ExampleResult) -> None:
        self._count(example)
        self._report()

    def _count(self, example: ExampleResult) -> None:
        self._correct += example.grade(self._metric)
        self._graded += example.graded(self._metric)

    def _report(self) -> None:
        done = len(self._results)
        accuracy = self._correct / self._graded if self._graded else None
        self._observer.on_progress(self.label, done - self._uncounted, self._total, accuracy)
