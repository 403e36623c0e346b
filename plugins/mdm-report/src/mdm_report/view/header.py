"""What stands above a decoding: what is right, what was answered, how it was judged, and under which settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mdm import registry
from mdm.errors import MdmError, blamed
from mdm.protocols.settings import Settings
from mdm.runs.grading import digest
from mdm.runs.results import ExampleResult
from mdm.runs.run import open_task, read_examples
from mdm.runs.variants import AUTOREGRESSIVE

from mdm_report.runs import Key, RunVariant, summary_rows


@dataclass
class Told:
    """What the tasks of runs tell of their examples, as far as these can be read."""

    metric: str = "accuracy"
    references: dict[Key, str] = field(default_factory=dict)
    answers: dict[tuple[str, int], str | None] = field(default_factory=dict)
    """A variant's folder and a row -> what the task reads as the answer in the completion."""
    fault: str | None = None
    """why there is less than could be"""


def ask(variants: Sequence[RunVariant], rows: Sequence[Collection[int]]) -> Told:
    """Read the examples of ``rows``, those of each variant, once more: results keep neither reference nor answer."""
    told = Told()
    try:
        told.metric = str(registry.resolve("task", variants[0].config.task).metric)
        for folder in {variant.folder: None for variant in variants}:
            of_run = [(v, shown) for v, shown in zip(variants, rows, strict=True) if v.folder == folder]
            results = [(v, v.results.by_row[row]) for v, shown in of_run for row in sorted(shown)]
            if results:
                _ask_run(told, results)
    except MdmError as error:
        told.fault = str(error)
    return told


def _ask_run(told: Told, results: Sequence[tuple[RunVariant, ExampleResult]]) -> None:
    config = results[0][0].config
    upto = config.model_copy(update={"limit": 1 + max(result.index for _, result in results)})
    with open_task(upto) as task:
        examples = read_examples(upto, task)
        for variant, result in results:
            if result.index >= len(examples):
                continue
            example = examples[result.index]
            if (example.id, digest(example)) != (result.id, result.digest):
                continue  # the data is not what it was
            told.references[result.id, result.digest] = example.reference
            if result.completion:
                with blamed(f"task {config.task!r} failed in answer"):
                    told.answers[str(variant.results.folder), result.row] = task.answer(example, result.completion)


def verdict(result: ExampleResult, metric: str) -> tuple[str, str]:
    """A result's kind (right, wrong, graded, open or failed), and how it is said."""
    if result.error is not None:
        return "failed", f"failed: {result.error}"
    if metric not in result.metrics:
        return "open", "not graded"
    grade = result.grade(metric)
    if grade in (0, 1):
        return ("right", "right") if grade else ("wrong", "wrong")
    return "graded", f"{metric} {grade:.3g}"


def settings(variant: RunVariant) -> list[tuple[str, str]]:
    """What decided how a variant decoded, by name: what its configuration sets, and what auto became."""
    config, resolved = variant.config, _summary(variant).get("resolved") or {}
    by_default = {name: info.get_default() for name, info in type(config).model_fields.items()}
    changed = {name: getattr(config, name) for name in Settings.model_fields}
    facts: dict[str, Any] = {"model": variant.model, "sampler": variant.sampler}
    if variant.sampler != AUTOREGRESSIVE:
        facts["cache"] = resolved.get("cache", config.cache)
        facts |= config.options_of("sampler", variant.sampler) | config.options_of("cache", config.cache)
    facts |= {name: value for name, value in changed.items() if value != by_default[name]}
    facts |= {"tokens_per_step": variant.tokens_per_step, "seed": config.seed, "task": config.task}
    facts |= variant.task_options() | {name: resolved.get(name) for name in ("device", "dtype")}
    return [(name, _said(value)) for name, value in facts.items() if value is not None and value != []]


def _summary(variant: RunVariant) -> dict[str, Any]:
    return next((row for row in summary_rows(variant.folder) if row.get("variant") == variant.label), {})


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def state(variant: RunVariant) -> str:
    """What a variant lacks; empty where all of it is decoded."""
    found, config = variant.results.by_row.values(), variant.config
    failed = sum(result.error is not None for result in found)
    expected = _summary(variant).get("expected") or (config.limit and config.limit * config.repeats)
    parts = [f"{failed} failed"] if failed else []
    if expected is None or len(found) < expected:
        parts.insert(0, f"incomplete: {len(found)}{f' of {expected}' if expected else ''} decoded")
    return ", ".join(parts)


def labels(variants: Iterable[RunVariant]) -> list[str]:
    """What tells the variants apart: where they are of several runs, the run's folder, as far as it takes."""
    variants = list(variants)
    folders = list({variant.folder.resolve(): None for variant in variants})
    if len(folders) == 1 and len({variant.label for variant in variants}) == len(variants):
        return [variant.label for variant in variants]
    names = {folder: folder.name for folder in folders}
    if len(set(names.values())) < len(folders):
        names = {folder: f"{folder.parent.name}/{folder.name}" for folder in folders}
    return [f"{names[variant.folder.resolve()]}: {variant.label}" for variant in variants]
