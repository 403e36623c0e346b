"""Grades the results of a finished run once more, without a model: what is not graded yet, or all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mdm import registry
from mdm.errors import MdmError
from mdm.protocols.task import BaseTask, Example
from mdm.runs import config as configs, files, plugin_options
from mdm.runs.config import RunConfig
from mdm.runs.decode_examples import RunContext
from mdm.runs.grading import describe, digest, grade, outcome
from mdm.runs.hooks import RunHooks
from mdm.runs.processes import Rank
from mdm.runs.results import ExampleResult, ResultsFolder
from mdm.runs.run import open_task, read_examples, write_summary
from mdm.runs.variants import variants
from mdm.runs.watch import GuardedObserver, Interrupted, RunObserver

SAVE_EVERY = 60.0
"""Seconds after which grades are written, so that a kill loses no more of them."""

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
        return dict(files.read_json(out / "summary.json"))
    with ExitStack() as stack:
        stack.enter_context(files.exclusive_lock(out))
        task = stack.enter_context(open_task(config))
        examples = read_examples(config, task)
        run = RunContext(config, task, examples, guarded, RunHooks(), Rank(), fail_fast=False)
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
    for assignment in assignments:
        plugin_options.set_from_flag([task], assignment)
    options = {f"task.{config.task}": values for values in plugin_options.complete([task]).values()}
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
    """Grade the results in ``left`` and write their grades, those that are there before a Ctrl-C in any case."""
    waiting: dict[Grades, ExampleResult] = {}
    graded: dict[int, ExampleResult] = {}
    answered, next_save = 0, time.monotonic() + SAVE_EVERY

    def collect() -> None:
        nonlocal answered, next_save
        for grades in [grades for grades in waiting if grades.done()]:
            result, (metrics, error) = waiting.pop(grades), outcome(grades)
            answered += 1
            if error is not None or run.task.metric in metrics:
                graded[result.row] = replace(result, metrics=metrics, error=describe(error) if error else None)
        run.observer.on_progress(label, answered, len(left), None)
        if time.monotonic() >= next_save:
            _save(results, graded)
            next_save = time.monotonic() + SAVE_EVERY

    try:
        for result in left:
            waiting[_begin(run.task, run.examples[result.index], results.folder, result)] = result
            collect()
        while waiting:
            wait(waiting, return_when=FIRST_COMPLETED)
            collect()
    finally:
        _save(results, graded)
    if left and not graded:
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


def _save(results: ResultsFolder, graded: Mapping[int, ExampleResult]) -> None:
    """Put grades into ``results.jsonl``, whose lines stay as they are otherwise."""
    path = results.folder / "results.jsonl"
    if graded:
        files.write_lines(path, (_with_grades(line, graded.get(line["row"])) for line in files.json_lines(path)))
        results.by_row.update(graded)


def _with_grades(line: dict[str, Any], result: ExampleResult | None) -> dict[str, Any]:
    if result is None:
        return line
    error = {} if result.error is None else {"error": result.error}
    return {key: value for key, value in line.items() if key != "error"} | {"metrics": result.metrics} | error
