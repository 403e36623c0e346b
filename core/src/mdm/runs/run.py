"""A run: the examples of a task decoded by each variant, graded, and written to the run's folder."""

from __future__ import annotations

import platform
import reprlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from mdm import registry
from mdm.errors import MdmError, blamed
from mdm.protocols.options import check_options
from mdm.protocols.task import BaseTask, Example
from mdm.runs import files, presets
from mdm.runs.conditions import conditions, model_facts, record_model, record_sizes
from mdm.runs.config import RunConfig, parse
from mdm.runs.decode_args import encode_example, load_model
from mdm.runs.decode_examples import ExampleDecoder, RunContext
from mdm.runs.folder import run_folder
from mdm.runs.grading import digest
from mdm.runs.hooks import RunHooks
from mdm.runs.processes import PeerLost, join_processes
from mdm.runs.results import read_environment
from mdm.runs.summary import summarise
from mdm.runs.variants import Variant, autoregressive, pin_models, variants, without_policy
from mdm.runs.watch import GuardedObserver, Interrupted, RunObserver

DecodeLeft = Callable[[RunContext, Sequence[Variant], Path], None]
"""Decodes what the folders of some variants, all of one model, lack yet, in the run whose folder is given."""


def run(
    config: RunConfig, out: Path, observer: RunObserver | None = None, *, fail_fast: bool = False,
    retry_failed: bool = False, decode_left: DecodeLeft | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Decode and grade the examples whose results are not in the folder ``out`` yet.

    An example that cannot be decoded or graded is recorded with its error, counts as wrong and does not stop the run;
    with ``fail_fast`` it does, and is left to be done. Of several processes each decodes its share of the examples.

    A run in ``out`` goes on, and with a larger limit, more repeats, or further models, samplers, paces or values of
    swept options than it was begun with, it is extended by them.

    Args:
        retry_failed: decode again what was recorded with an error.
        decode_left: decodes elsewhere, such as on the machines of a cluster, what this process would load a model for.

    Returns:
        The content of ``summary.json``; in all but the main process an empty summary.

    Raises:
        MdmError: a wrong request, an observer or a hook that failed, or a failing example with ``fail_fast``.
        Interrupted: Ctrl-C, or the death of another process; the run can be resumed.
    """
    if config.limit is None and config.data is None:
        config = config.model_copy(update={"limit": registry.resolve("task", config.task).default_limit})
    config = pin_models(config, out)
    if set(autoregressive(config)) == set(config.model):
        config = without_policy(config)
    guarded = GuardedObserver(observer or RunObserver())
    with ExitStack() as stack:
        task = stack.enter_context(open_task(config))
        process = stack.enter_context(join_processes(config.device))
        if process.is_main:
            folder = run_folder(out, config, environment(config), guarded.on_warning)
            config = stack.enter_context(folder)
        else:
            process.barrier()  # until the main process has the folder and has read, or downloaded, the examples
            mine = {name: getattr(config, name) for name in ("data", "offline", "threads")}
            config = parse(RunConfig, out / "config.yaml").model_copy(update=mine)
        stack.enter_context(blamed("something that the run called ends it", only_exits=True))
        guarded.on_note(f"reading {config.data or config.task}")
        examples = read_examples(config, task)
        context = RunContext(config, task, examples, guarded, RunHooks(), process, fail_fast)
        opened = _open_variants(context, out, retry_failed)
        return _run_variants(context, opened, out, decode_left or _decode_here)


def environment(config: RunConfig) -> dict[str, Any]:
    """The Python, platform, package versions and data that a run uses, which its configuration does not hold."""
    versions = {entry.dist: entry.version for entry in registry.entries()}
    for package in ("mdm-core", "torch", "transformers"):
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    data = {"data_sha256": files.sha256(config.data)} if config.data else {}
    return {"python": platform.python_version(), "platform": platform.platform(), "versions": versions, **data}


def make_task(config: RunConfig) -> BaseTask:
    """The task of a run; raises an MdmError where it would run code and may not."""
    entry = registry.find("task", config.task)
    plugin = registry.load(entry)
    if plugin.executes_code and not config.allow_code_execution:
        raise MdmError(f"{config.task} runs the code that the model writes: allow it with --allow-code-execution")
    options = check_options(config.task, plugin.Options, config.options_of("task", config.task))
    with blamed(f"{entry} cannot be made"):
        task: BaseTask = plugin(options)
    return task


@contextmanager
def open_task(config: RunConfig) -> Iterator[BaseTask]:
    """The task of a run, closed at the end; raises an MdmError where that fails."""
    task = make_task(config)
    try:
        yield task
    finally:
        with blamed(f"task {config.task!r} failed in close"):
            task.close()


MANY_EXAMPLES = 10**6
"""From how many on it is asked whether the memory holds them."""


def read_examples(config: RunConfig, task: BaseTask) -> Sequence[Example]:
    """The examples of a run, in order; raises an MdmError where there are none."""
    limit = config.limit or (None if config.data else task.default_limit)  # without one, a task's own may never end
    if limit is not None and limit > MANY_EXAMPLES:
        from mdm.engine.memory import check_many

        check_many("limit", limit, 512)
    with blamed(f"task {config.task!r} failed in examples"):
        examples = list(islice(task.examples(seed=config.seed, data=config.data), limit))
    for example in examples:
        if not isinstance(example, Example) or not isinstance(example.id, str):
            raise MdmError(f"task {config.task!r}: {reprlib.repr(example)} is no Example whose id is a text")
        if example.id.encode("utf-8", "replace").decode() != example.id:
            raise MdmError(f"task {config.task!r}: the id {example.id!r} holds half a character")
        with blamed(f"task {config.task!r}, example {example.id}"):
            digest(example)
    if not examples:
        raise MdmError(f"{config.data or config.task}: no examples")
    return examples


def _open_variants(run: RunContext, out: Path, retry_failed: bool) -> list[Variant]:
    """The run's variants with the results that are written already, and count."""
    if run.process.is_main:
        for variant in variants(run.config, out):
            variant.results.check([example.id for example in run.examples], run.config.repeats)
            found = len(variant.results.by_row)
            failed = sum(result.error is not None for result in variant.results.by_row.values())
            changed = variant.results.gather([digest(example) for example in run.examples], retry_failed)
            if len(variant.results.by_row) < found:
                (out / "summary.json").unlink(missing_ok=True)  # it would call the run complete
            for count, what in ((changed, "were of other inputs"), (failed * retry_failed, "had failed")):
                if count:
                    run.observer.on_warning(f"{variant.label}: {count} of {found} results {what} and are decoded again")
        run.process.barrier()
    opened = variants(run.config, out)
    run.process.barrier()  # all must have read the same results, by which the examples are shared, before any writes
    return opened


def _run_variants(run: RunContext, variants: Sequence[Variant], out: Path, decode_left: DecodeLeft) -> dict[str, Any]:
    process, expected = run.process, len(run.examples) * run.config.repeats
    try:
        for model in run.config.model:
            of_model = [variant for variant in variants if variant.model == model]
            if any(len(variant.results.by_row) < expected for variant in of_model):
                decode_left(run, of_model, out)
        process.barrier()
    except BaseException as stop:
        if not process.is_main:
            raise
        for variant in variants:
            variant.results.reload()
        if isinstance(stop, (KeyboardInterrupt, PeerLost)):
            raise Interrupted(write_summary(run, variants, out), str(stop) or "interrupted") from None
        if any(variant.results.by_row for variant in variants):
            with suppress(MdmError):  # the first failure is the one to tell of
                write_summary(run, variants, out)
        raise
    if not process.is_main:
        return {}
    if process.world_size > 1:
        for variant in variants:
            variant.results.gather()
    return write_summary(run, variants, out)


def _decode_here(run: RunContext, variants: Sequence[Variant], out: Path) -> None:
    """Decode what is left of the variants of one model, or this process's share of it."""
    config, process = run.config, run.process
    run.observer.on_note(f"loading {variants[0].model}")
    name = variants[0].model
    model = load_model(config, name)
    if process.is_main:
        record_model(out, name, model_facts(config, model))
        for warning in presets.warnings(config.preset, {name: model.spec.family}):
            run.observer.on_warning(warning)
    encoded = [encode_example(config, model, run.task, index, example) for index, example in enumerate(run.examples)]
    from mdm.engine.memory import check_many

    check_many(f"repeats {config.repeats:,} of {len(encoded):,} examples", config.repeats * len(encoded), 512)
    decodings = [replace(example, repeat=repeat) for repeat in range(config.repeats) for example in encoded]
    for variant in variants:
        left = process.shard([example for example in decodings if example.row not in variant.results.by_row])
        with variant.results.writing(process.rank if process.world_size > 1 else None) as writer:
            sizes = ExampleDecoder(run, model, variant, writer).decode(left)
        if process.is_main and left:
            record_sizes(out, variant, config.batch_size, sizes)


def write_summary(run: RunContext, variants: Sequence[Variant], out: Path) -> dict[str, Any]:
    """Summarise the results of all variants into ``summary.json``, and return what it says."""
    environment = read_environment(out)
    rows = []
    for variant in variants:
        measured = _summary_row(run, variant)
        rows.append(measured | conditions(run.config, variant, environment, out) | measured)
    summary = {"task": run.config.task, "complete": all(row["complete"] for row in rows), "runs": rows}
    files.write_json(out / "summary.json", summary)
    return summary


def _summary_row(run: RunContext, variant: Variant) -> dict[str, Any]:
    config, task = run.config, run.task
    row = {
        "variant": variant.label, "model": variant.model, "sampler": variant.sampler, "swept": dict(variant.options),
        "tokens_per_step": variant.tokens_per_step, "cache": config.cache, "task": config.task,
    }  # fmt: skip
    results = variant.results.by_row.values()
    with blamed(f"{config.task} cannot aggregate its grades"):
        return row | summarise(results, task.metric, len(run.examples), config.repeats, task.aggregate)
