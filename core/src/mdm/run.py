"""A run: a task's examples decoded under each model and sampler, graded, and written down as they finish."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdm import files, processes, registry, results
from mdm.config import DecodeConfig, RunConfig, check_options
from mdm.errors import MdmError
from mdm.grading import Grader, Item
from mdm.jobs import Job, autoregressive, jobs, without_policy
from mdm.processes import Place
from mdm.protocols import MASK, Example, Prompt, Task
from mdm.summary import summarise

if TYPE_CHECKING:
    from mdm.api import Result
    from mdm.model import Model
    from mdm.trace import StepEvent

CHUNK = 8
"""Batches handed to the engine at once: enough to keep its rows busy, few enough to bound memory."""


class Watch:
    """Sees a run go by. Override what is wanted."""

    sees_steps = False
    """Whether ``begin`` and ``step`` are called; it costs the engine a transfer a step."""

    def begin(
        self, label: str, canvases: Mapping[int, Sequence[str | None]], pieces: Callable[[Sequence[int]], list[str]]
    ) -> None:
        """Rows ``canvases`` are about to be decoded: the text of each token by row, None where masked."""

    def step(self, event: StepEvent) -> None:
        """A step's lines, of a full trace."""

    def note(self, text: str) -> None:
        """Something that takes time begins."""

    def tick(self, label: str, done: int, total: int, accuracy: float) -> None:
        """``done`` of ``total`` examples are in the files; also called once before the first."""


class Interrupted(KeyboardInterrupt):
    """Stopped, and everything finished is written; ``summary`` says what that is, ``why`` what stopped it."""

    def __init__(self, summary: dict[str, Any], why: str) -> None:
        super().__init__()
        self.summary, self.why = summary, why


def settle(config: RunConfig) -> RunConfig:
    """The configuration with the task's own number of examples where nothing else sets it."""
    if config.limit is None and config.data is None:
        limit = registry.resolve("task", config.task).default_limit
        return config.model_copy(update={"limit": limit})
    return config


@dataclass(frozen=True)
class _Run:
    """What all parts of a run need."""

    config: RunConfig
    task: Task
    examples: Sequence[Example]
    watch: Watch
    here: Place
    fail_fast: bool


def run(config: RunConfig, out: Path, watch: Watch | None = None, *, fail_fast: bool = False) -> dict[str, Any]:
    """Decode and grade whatever ``out`` does not hold yet; returns what ``summary.json`` says.

    An example that cannot be decoded or graded is recorded with its error, counts as wrong and stops nothing;
    with ``fail_fast`` it stops the run and is left to be done. Of several processes each decodes its share of the
    examples, and the main one merges them; the others return an empty summary.

    Raises:
        MdmError: anything that was asked wrongly; a failing example with ``fail_fast``.
        Interrupted: Ctrl-C, or the death of another process; the run can be taken up again.
    """
    config, watch = settle(config), watch or Watch()
    causal = autoregressive(config)
    if len(causal) == len(config.model):
        config = without_policy(config)
    task = _task(config)
    with processes.place(config.device) as here, ExitStack() as folder:
        if here.main:
            folder.enter_context(results.run_folder(out, config, environment(config)))
        else:
            here.wait()
        watch.note(f"reading {config.data or config.task}")
        examples = list(islice(task.examples(seed=config.seed, data=config.data), config.limit))
        if not examples:
            raise MdmError(f"{config.data or config.task}: no examples")
        if here.main:
            for job in jobs(config, out, causal):
                job.arm.gather()
                job.arm.check([example.id for example in examples], config.repeats)
            here.wait()
        rows = jobs(config, out, causal)
        here.wait()  # all have read what is done, and so share the rest alike, before any of them writes
        part = _Run(config, task, examples, watch, here, fail_fast)
        try:
            for name in config.model:
                _run_model(part, [job for job in rows if job.model == name])
            here.wait()
        except (KeyboardInterrupt, processes.Deserted) as stop:
            if not here.main:
                raise
            for job in rows:
                job.arm.read()
            raise Interrupted(_write_summary(part, rows, out), str(stop) or "interrupted") from None
        finally:
            getattr(task, "close", lambda: None)()
        if not here.main:
            return {}
        for job in rows if here.count > 1 else []:
            job.arm.gather()
        return _write_summary(part, rows, out)


def encode(model: Model, prompt: Prompt) -> tuple[list[int], int]:
    """The canvas a prompt starts from, and how many of its ids are the context."""
    if isinstance(prompt.context, str):
        context = [*model.spec.prefix, *(model.encode(prompt.context) if prompt.context else [])]
    else:
        context = list(model.encode_chat(prompt.context))
    answer = list(model.encode(prompt.answer)) if prompt.answer else []
    return context + answer, len(context)


def decode_settings(
    config: DecodeConfig, model: Model, sampler: str, tokens_per_step: int | None = None
) -> dict[str, Any]:
    """The arguments of ``mdm.decode`` that a configuration fixes for all prompts, at the pace named or its only one."""
    shared = {"suffix": model.spec.suffix} | config.model_dump(
        include={
            "temperature", "eos_penalty", "pad_penalty", "allowed_tokens", "suppressed_tokens", "batch_size",
            "max_rows", "seed",
        }
    )  # fmt: skip
    if model.spec.attention == "causal":
        return shared
    return (
        shared
        | {
            "sampler": sampler,
            "tokens_per_step": tokens_per_step or next(iter(config.tokens_per_step or []), None),
            "sampler_options": config.options.get(sampler, {}),
            "cache": _cache(config, model),
            "cache_options": config.options.get(config.cache, {}),
            "block_length": config.block_length or model.spec.block_length or 32,
            "trace": "full" if config.trace == "full" else True,
        }
        | config.model_dump(include={"steps", "schedule", "guidance", "stop_at_eos", "compile"})
    )


def _cache(config: DecodeConfig, model: Model) -> str:
    return model.spec.default_cache if config.cache == "auto" else config.cache


def load_model(config: DecodeConfig, name: str) -> Model:
    """A model as a configuration asks for it."""
    from mdm import api

    wanted = {"device", "dtype", "adapter", "offline", "device_map", "quantization", "attn_implementation"}
    return api.load_model(name, **config.model_dump(include=wanted))


def environment(config: RunConfig) -> dict[str, Any]:
    """What a run ran on, beside its configuration."""
    versions = {entry.dist: entry.version for entry in registry.entries()}
    for package in ("mdm-core", "torch", "transformers"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    found: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform(), "versions": versions}
    return found | ({"data_sha256": files.sha256(config.data)} if config.data else {})


def _task(config: RunConfig) -> Task:
    plugin = registry.resolve("task", config.task)
    if getattr(plugin, "executes_code", False) and not config.allow_code_execution:
        raise MdmError(f"{config.task} runs the code that the model writes: allow it with --allow-code-execution")
    task: Task = plugin(check_options(config.task, plugin.Options, config.options.get(config.task, {})))
    return task


def _run_model(run: _Run, jobs: list[Job]) -> None:
    config = run.config
    if all(len(job.arm.outcomes) == len(run.examples) * config.repeats for job in jobs):
        return  # nothing left: do not even load it
    run.watch.note(f"loading {jobs[0].model}")
    model = load_model(config, jobs[0].model)
    once = [_item(config, model, run.task, index, example) for index, example in enumerate(run.examples)]
    items = [replace(item, repeat=repeat) for repeat in range(config.repeats) for item in once]
    for job in jobs:
        left = run.here.share([item for item in items if item.row not in job.arm.outcomes])
        with job.arm.writing(run.here.index if run.here.count > 1 else None) as log:
            _run_job(run, model, job, left, log)


def _run_job(run: _Run, model: Model, job: Job, left: Sequence[Item], log: results.ArmLog) -> None:
    from mdm import sizes
    from mdm.trace import plain

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
        log.add(replace(outcome, texts=dict(zip(map(str, ids), model.pieces(ids), strict=True))), lines)
        right += outcome.metrics.get(task.metric, 0.0)
        run.watch.tick(label, len(done) - already, total, right / len(done))

    settings = decode_settings(config, model, job.sampler, job.tokens_per_step)
    fits = sizes.fit(
        model, max((len(item.ids) + item.gen_length for item in left), default=1), len(left),
        kv=model.spec.attention == "causal" or registry.resolve("cache", _cache(config, model)).uses_kv,
        guises=2 if config.guidance else 1, batch_size=config.batch_size, max_rows=config.max_rows,
    )  # fmt: skip
    if left and (config.batch_size == "auto" or fits.tight):
        run.watch.note(f"{job.label}: {fits}")
    grader = Grader(task, record, run.fail_fast)
    hooks = _Hooks()
    seen = hooks.on_step
    if run.watch.sees_steps:
        canvases = {item.row: [*(item.canvas or ()), *[None] * item.gen_length] for item in left}
        run.watch.begin(label, canvases, model.pieces)
        settings["trace"] = "full"

        def seen(event: StepEvent) -> None:
            run.watch.step(event)
            if hooks.on_step:
                hooks.on_step(event)

    def decode(chunk: Sequence[Item]) -> None:
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
            halved = sizes.out_of_memory(error) and fits.batch_size > 1
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
    items: Sequence[Item],
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


class _Hooks:
    """The hooks of all packages. One that fails stops the run, and no example is blamed for it."""

    def __init__(self) -> None:
        from mdm import hookspecs

        self._hook = hookspecs.hooks().hook
        # Being watched costs the engine a transfer a step.
        self.on_step = self._on_step if self._hook.on_step.get_hookimpls() else None

    def _on_step(self, event: StepEvent) -> None:
        self._call("on_step", event=event)

    def on_finish(self, result: Result) -> None:
        self._call("on_finish", result=result)

    def _call(self, name: str, **what: Any) -> None:
        try:
            getattr(self._hook, name)(**what)
        except Exception as error:
            raise MdmError(f"a hook failed in {name}: {type(error).__name__}: {error}") from error


def _item(config: RunConfig, model: Model, task: Task, index: int, example: Example) -> Item:
    ask = getattr(task, "continuation", task.prompt) if model.spec.attention == "causal" else task.prompt
    prompt = ask(example, model.spec.prompt_style)
    gen_length = prompt.gen_length if config.gen_length is None else config.gen_length
    try:
        ids, context = encode(model, prompt)
        masks = ids.count(model.spec.mask_id) + gen_length
        if not masks:
            raise MdmError(f"nothing to decode: gen_length is 0 and the prompt holds no {MASK}")
    except MdmError as error:
        raise MdmError(f"{config.task}, example {example.id}: {error}") from error
    canvas = [None if i == model.spec.mask_id else text for i, text in zip(ids, model.pieces(ids), strict=True)]
    return Item(index, example, prompt, ids, context, gen_length, masks, canvas)


def _write_summary(run: _Run, jobs: list[Job], out: Path) -> dict[str, Any]:
    config, task = run.config, run.task
    rows = []
    for job in jobs:
        row = {
            "model": job.model,
            "sampler": job.sampler,
            "tokens_per_step": job.tokens_per_step,
            "cache": config.cache,
            "task": config.task,
        }
        aggregate = getattr(task, "aggregate", None)
        outcomes = job.arm.outcomes.values()
        try:
            rows.append(row | summarise(outcomes, task.metric, len(run.examples), config.repeats, aggregate))
        except Exception as error:
            if aggregate is None:
                raise
            raise MdmError(f"{config.task} cannot aggregate its grades: {type(error).__name__}: {error}") from error
        if len(jobs) > 1 and job.arm.outcomes:
            files.write_json(job.arm.folder / "summary.json", rows[-1])
    summary: dict[str, Any] = rows[0] if len(jobs) == 1 else {"task": config.task, "runs": rows}
    files.write_json(out / "summary.json", summary)
    return summary
