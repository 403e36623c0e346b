"""A run: a task's examples decoded under each model and sampler, graded, and written down as they finish."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdm import files, registry, results
from mdm.config import DecodeConfig, RunConfig, check_options
from mdm.errors import MdmError
from mdm.protocols import MASK, Example, Prompt, Task

if TYPE_CHECKING:
    from mdm.api import Result
    from mdm.model import Model

CHUNK = 8
"""Batches handed to the engine at once: enough to keep its rows busy, few enough to bound memory."""


class Watch:
    """Sees a run go by. Override what is wanted."""

    def note(self, text: str) -> None:
        """Something that takes time begins."""

    def tick(self, label: str, done: int, total: int, accuracy: float) -> None:
        """``done`` of ``total`` examples are in the files; also called once before the first."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after everything finished was written; ``summary`` says what that is."""

    def __init__(self, summary: dict[str, Any]) -> None:
        super().__init__()
        self.summary = summary


@dataclass(frozen=True)
class Job:
    """One row of the comparison."""

    model: str
    sampler: str
    label: str
    arm: results.Arm


@dataclass(frozen=True)
class Item:
    """One example as the engine gets it."""

    index: int
    example: Example
    prompt: Prompt
    ids: list[int]
    context: int
    """How many of ``ids`` are the context, which is not graded."""
    gen_length: int
    masks: int


def settle(config: RunConfig) -> RunConfig:
    """The configuration with the task's own number of examples where nothing else sets it."""
    if config.limit is None and config.data is None:
        limit = registry.resolve("task", config.task).default_limit
        return config.model_copy(update={"limit": limit})
    return config


def run(config: RunConfig, out: Path, watch: Watch | None = None) -> dict[str, Any]:
    """Decode and grade whatever ``out`` does not hold yet; returns what ``summary.json`` says.

    Raises:
        MdmError: anything that was asked wrongly.
        Interrupted: Ctrl-C; the run can be taken up again.
    """
    config, watch = settle(config), watch or Watch()
    task = _task(config)
    with results.run_folder(out, config, environment(config)):
        watch.note(f"reading {config.data or config.task}")
        examples = list(islice(task.examples(seed=config.seed, data=config.data), config.limit))
        if not examples:
            raise MdmError(f"{config.data or config.task}: no examples")
        jobs = _jobs(config, out)
        try:
            for name in config.model:
                _run_model(config, task, examples, [job for job in jobs if job.model == name], watch)
        except KeyboardInterrupt:
            raise Interrupted(_write_summary(config, task, jobs, len(examples), out)) from None
        return _write_summary(config, task, jobs, len(examples), out)


def encode(model: Model, prompt: Prompt) -> tuple[list[int], int]:
    """The canvas a prompt starts from, and how many of its ids are the context."""
    if isinstance(prompt.context, str):
        context = list(model.encode(prompt.context)) if prompt.context else []
    else:
        context = list(model.encode_chat(prompt.context))
    answer = list(model.encode(prompt.answer)) if prompt.answer else []
    return context + answer, len(context)


def decode_settings(config: DecodeConfig, model: Model, sampler: str) -> dict[str, Any]:
    """The arguments of ``mdm.decode`` that a configuration fixes for all prompts."""
    return {
        "sampler": sampler,
        "sampler_options": config.options.get(sampler, {}),
        "cache": config.cache,
        "cache_options": config.options.get(config.cache, {}),
        "block_length": config.block_length or model.spec.block_length or 32,
    } | config.model_dump(
        include={
            "steps", "tokens_per_step", "schedule", "temperature", "guidance", "eos_penalty", "pad_penalty",
            "stop_at_eos", "batch_size", "seed",
        }
    )  # fmt: skip


def load_model(config: DecodeConfig, name: str) -> Model:
    """A model as a configuration asks for it."""
    from mdm import api

    return api.load_model(name, device=config.device, dtype=config.dtype, adapter=config.adapter)


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


def _jobs(config: RunConfig, out: Path) -> list[Job]:
    pairs = [(model, sampler) for model in config.model for sampler in config.sampler]
    if len(pairs) == 1:
        return [Job(*pairs[0], config.sampler[0], results.Arm(out))]
    if len(config.model) == 1:
        labels = [sampler for _, sampler in pairs]
    elif len(config.sampler) == 1:
        labels = [model for model, _ in pairs]
    else:
        labels = [f"{model} {sampler}" for model, sampler in pairs]
    folders = results.folder_names(labels)
    return [
        Job(*pair, label, results.Arm(out / folder)) for pair, label, folder in zip(pairs, labels, folders, strict=True)
    ]


def _run_model(config: RunConfig, task: Task, examples: Sequence[Example], jobs: list[Job], watch: Watch) -> None:
    if all(len(job.arm.outcomes) == len(examples) for job in jobs):
        return  # nothing left: do not even load it
    watch.note(f"loading {jobs[0].model}")
    model = load_model(config, jobs[0].model)
    items = [_item(config, model, task, index, example) for index, example in enumerate(examples)]
    for job in jobs:
        with job.arm.writing() as log:
            _run_job(config, model, task, items, job, log, watch)


def _run_job(
    config: RunConfig, model: Model, task: Task, items: list[Item], job: Job, log: results.ArmLog, watch: Watch
) -> None:
    from mdm import api, hookspecs

    done = job.arm.outcomes
    hook = hookspecs.hooks().hook
    watched = bool(hook.on_step.get_hookimpls())  # being watched costs the engine a transfer a step
    left = [item for item in items if item.index not in done]
    right = sum(outcome.metrics.get(task.metric, 0.0) for outcome in done.values())
    watch.tick(job.label, len(done), len(items), right / max(1, len(done)))
    since = time.perf_counter()
    for first in range(0, len(left), CHUNK * config.batch_size):
        chunk = left[first : first + CHUNK * config.batch_size]

        def finish(place: int, result: Result, chunk: list[Item] = chunk) -> None:
            nonlocal right, since
            now = time.perf_counter()
            outcome = _grade(model, task, chunk[place], result, now - since)
            since = now
            log.add(outcome, result.trace)
            right += outcome.metrics.get(task.metric, 0.0)
            watch.tick(job.label, len(done), len(items), right / len(done))
            hook.on_finish(result=result)

        api.decode(
            model,
            [item.ids for item in chunk],
            gen_length=[item.gen_length for item in chunk],
            row_ids=[item.index for item in chunk],
            on_finish=finish,
            on_step=(lambda event: hook.on_step(event=event)) if watched else None,
            **decode_settings(config, model, job.sampler),
        )


def _item(config: RunConfig, model: Model, task: Task, index: int, example: Example) -> Item:
    prompt = task.prompt(example, model.spec.prompt_style)
    gen_length = prompt.gen_length if config.gen_length is None else config.gen_length
    try:
        ids, context = encode(model, prompt)
        masks = ids.count(model.spec.mask_id) + gen_length
        if not masks:
            raise MdmError(f"nothing to decode: gen_length is 0 and the prompt holds no {MASK}")
    except MdmError as error:
        raise MdmError(f"{config.task}, example {example.id}: {error}") from error
    return Item(index, example, prompt, ids, context, gen_length, masks)


def _grade(model: Model, task: Task, item: Item, result: Result, seconds: float) -> results.Outcome:
    completion, metrics, fault = model.decode(result.sequence[item.context :]), {}, None
    try:
        metrics = {name: float(value) for name, value in task.grade(item.example, completion).items()}
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    return results.Outcome(
        id=item.example.id,
        index=item.index,
        row=item.index,
        prompt=_shown(item.prompt),
        completion=completion,
        metrics=metrics,
        tokens=item.masks,
        cumulative_entropy=float(result.cumulative_entropy),
        forwards=result.forwards,
        rows=result.rows,
        seconds=seconds,
        error=fault,
    )


def _shown(prompt: Prompt) -> str:
    if isinstance(prompt.context, str):
        return prompt.context + prompt.answer
    return (
        "\n".join(f"{message.role}: {message.content}" for message in prompt.context) + f"\nassistant: {prompt.answer}"
    )


def _write_summary(config: RunConfig, task: Task, jobs: list[Job], expected: int, out: Path) -> dict[str, Any]:
    rows = []
    for job in jobs:
        row = {"model": job.model, "sampler": job.sampler, "cache": config.cache, "task": config.task}
        rows.append(row | results.summarise(job.arm.outcomes.values(), task.metric, expected))
        if len(jobs) > 1 and job.arm.outcomes:
            files.write_json(job.arm.folder / "summary.json", rows[-1])
    summary: dict[str, Any] = rows[0] if len(jobs) == 1 else {"task": config.task, "runs": rows}
    files.write_json(out / "summary.json", summary)
    return summary
