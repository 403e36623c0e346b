"""Grades the results of a finished run once more, without a model: what is not graded yet, or all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mdm import registry
from mdm.errors import MdmError, describe
from mdm.protocols.task import BaseTask, Example
from mdm.runs import config as configs, files, plugin_options
from mdm.runs.config import RunConfig
from mdm.runs.decode_examples import RunContext
from mdm.runs.grading import digest, grade, outcome
from mdm.runs.hooks import RunHooks
from mdm.runs.processes import Rank
from mdm.runs.results import PARTS, ExampleResult, ResultsFolder, ResultsWriter
from mdm.runs.run import open_task, read_examples, write_summary
from mdm.runs.variants import variants
from mdm.runs.watch import GuardedObserver, Interrupted, RunObserver

from mdm_report.runs import summary_rows

Grades = Future[Mapping[str, float]]


def regrade(
    out: Path, assignments: Iterable[str] = (), observer: RunObserver | None = None, *, everything: bool = False,
    data: Path | None = None, allow_code_execution: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Grade the results in a run's folder that are not graded yet; those that could not be decoded stay as they are.

    Args:
        out: the run's folder, whose ``results.jsonl`` and ``summary.json`` are replaced.
        assignments: options of the task, as ``mdm run -o`` takes them, in place of the run's.
        everything: grade what is graded already, too.
        data: where the task's examples lie now.
        allow_code_execution: as in a run, whose own permission does not count.

    Returns:
        The content of ``summary.json``.

    Raises:
        MdmError: there is no such run, it is in use, its examples have changed, or the task refuses.
        Interrupted: Ctrl-C; what was graded is kept.
    """
    config = _config(
        out, assignments, {"allow_code_execution": allow_code_execution} | ({"data": data} if data else {})
    )
    guarded = GuardedObserver(observer or RunObserver())
    metric = registry.resolve("task", config.task).metric
    opened = variants(config, out)
    results = [result for variant in opened for result in variant.results.by_row.values()]
    if not everything and all(metric in result.metrics or not result.decoded for result in results):
        guarded.on_warning(f"nothing in {out} is left to grade; --all grades all of it again")
        if summary_rows(out):  # else it is written anew
            return dict(files.read_json(out / "summary.json"))
    with ExitStack() as stack:
        stack.enter_context(files.exclusive_lock(out))
        task = stack.enter_context(open_task(config))
        examples = read_examples(config, task)
        run = RunContext(config, task, examples, guarded, RunHooks(), Rank(), fail_fast=False)
        files.remove_parts(out, PARTS)
        for variant in opened:
            variant.results.gather()
            _check(variant.results, examples)
        left = {
            variant.label: [
                result for result in variant.results.by_row.values()
                if result.decoded and (everything or task.metric not in result.metrics)
            ]
            for variant in opened
        }  # fmt: skip
        try:
            for variant in opened:
                if left[variant.label]:
                    _grade(run, variant.label, variant.results, left[variant.label])
        except KeyboardInterrupt:
            raise Interrupted(write_summary(run, opened, out), "interrupted") from None
        return write_summary(run, opened, out)


def _config(out: Path, assignments: Iterable[str], changes: Mapping[str, Any]) -> RunConfig:
    """The configuration of a run with other options of its task."""
    if not (out / "config.yaml").is_file():
        raise MdmError(f"{out} is not a run's folder: it has no config.yaml")
    config = configs.parse(RunConfig, out / "config.yaml")
    [task] = plugin_options.collect([("task", config.task)])
    task.values.update(config.options_of("task", config.task))
    task.values.update(registry.resolve("task", config.task).options_to_grade)
    plugin_options.set_from_flags([task], assignments)
    complete = plugin_options.complete([task])
    plugin_options.swept([task], complete)  # refuses several values
    options = {f"task.{config.task}": values for values in complete.values()}
    return config.model_copy(update={"options": config.options | options, **changes})


def _check(results: ResultsFolder, examples: Sequence[Example]) -> None:
    for result in results.by_row.values():
        example = examples[result.index] if result.index < len(examples) else None
        if example is None or (example.id, digest(example)) != (result.id, result.digest):
            raise MdmError(
                f"{results.folder}: example {result.id} is not what was decoded: the data or an option of the task "
                "has changed"
            )


def _grade(run: RunContext, label: str, results: ResultsFolder, left: Sequence[ExampleResult]) -> None:
    """Grade the results in ``left``. A line with its grades is appended, and counts in place of the one before."""
    waiting: dict[Grades, ExampleResult] = {}
    answered = graded = 0

    def collect(writer: ResultsWriter) -> None:
        nonlocal answered, graded
        for grades in [grades for grades in waiting if grades.done()]:
            result, (metrics, error) = waiting.pop(grades), outcome(grades)
            answered += 1
            if error is not None and not isinstance(error, Exception):  # such as SystemExit
                raise MdmError(f"grading example {result.id} ended the command: {describe(error)}") from error
            if error is not None or run.task.metric in metrics:
                # What the task measured while the run decoded is not seen again.
                metrics = {name: result.metrics[name] for name in run.task.measures if name in result.metrics} | metrics
                writer.add(replace(result, metrics=metrics, error=describe(error) if error else None), [])
                graded += 1
        run.observer.on_progress(label, answered, len(left), None)

    try:
        with results.writing() as writer:
            for result in left:
                waiting[_begin(run.task, run.examples[result.index], results.folder, result)] = result
                collect(writer)
            while waiting:
                wait(waiting, return_when=FIRST_COMPLETED)
                collect(writer)
    finally:
        if graded:
            results.gather()
    if not graded:
        raise MdmError(f"{run.config.task} gives none of {len(left)} results a grade {run.task.metric!r}: it has none")


def _begin(task: BaseTask, example: Example, folder: Path, result: ExampleResult) -> Grades:
    if task.answers == "text":
        return grade(task, example, result.completion)
    image = folder / (result.image or "images")
    if image.is_file():
        return grade(task, example, image)
    missing: Grades = Future()
    missing.set_exception(FileNotFoundError(f"its picture {image} is not there"))
    return missing
