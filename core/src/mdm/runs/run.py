"""A run: a task's examples decoded under each model and sampler, graded, and written down as they finish."""

from __future__ import annotations

import platform
from contextlib import ExitStack
from dataclasses import replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from mdm import registry
from mdm.errors import MdmError
from mdm.protocols.options import check_options
from mdm.protocols.task import BaseTask
from mdm.runs import files, processes, results
from mdm.runs.config import RunConfig
from mdm.runs.decode_args import _item, load_model
from mdm.runs.decode_examples import _Run, _run_job
from mdm.runs.summary import summarise
from mdm.runs.variants import Variant, autoregressive, jobs, without_policy
from mdm.runs.watch import Interrupted, RunObserver


def with_default_limit(config: RunConfig) -> RunConfig:
    """The configuration with the task's own number of examples where nothing else sets it."""
    if config.limit is None and config.data is None:
        limit = registry.resolve("task", config.task).default_limit
        return config.model_copy(update={"limit": limit})
    return config


def run(config: RunConfig, out: Path, watch: RunObserver | None = None, *, fail_fast: bool = False) -> dict[str, Any]:
    """Decode and grade whatever ``out`` does not hold yet; returns what ``summary.json`` says.

    An example that cannot be decoded or graded is recorded with its error, counts as wrong and stops nothing;
    with ``fail_fast`` it stops the run and is left to be done. Of several processes each decodes its share of the
    examples, and the main one merges them; the others return an empty summary.

    Raises:
        MdmError: anything that was asked wrongly; a failing example with ``fail_fast``.
        Interrupted: Ctrl-C, or the death of another process; the run can be taken up again.
    """
    config, watch = with_default_limit(config), watch or RunObserver()
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
        except (KeyboardInterrupt, processes.PeerLost) as stop:
            if not here.main:
                raise
            for job in rows:
                job.arm.read()
            raise Interrupted(_write_summary(part, rows, out), str(stop) or "interrupted") from None
        finally:
            task.close()
        if not here.main:
            return {}
        for job in rows if here.count > 1 else []:
            job.arm.gather()
        return _write_summary(part, rows, out)


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


def _task(config: RunConfig) -> BaseTask:
    plugin = registry.resolve("task", config.task)
    if plugin.executes_code and not config.allow_code_execution:
        raise MdmError(f"{config.task} runs the code that the model writes: allow it with --allow-code-execution")
    task: BaseTask = plugin(check_options(config.task, plugin.Options, config.options.get(config.task, {})))
    return task


def _run_model(run: _Run, jobs: list[Variant]) -> None:
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


def _write_summary(run: _Run, jobs: list[Variant], out: Path) -> dict[str, Any]:
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
        outcomes = job.arm.outcomes.values()
        try:
            rows.append(row | summarise(outcomes, task.metric, len(run.examples), config.repeats, task.aggregate))
        except Exception as error:
            raise MdmError(f"{config.task} cannot aggregate its grades: {type(error).__name__}: {error}") from error
        if len(jobs) > 1 and job.arm.outcomes:
            files.write_json(job.arm.folder / "summary.json", rows[-1])
    summary: dict[str, Any] = rows[0] if len(jobs) == 1 else {"task": config.task, "runs": rows}
    files.write_json(out / "summary.json", summary)
    return summary
