"""Compares variants of finished runs, paired by example."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import Any

from mdm import registry
from mdm.errors import MdmError, MdmWarning, suggest
from mdm.runs.results import ExampleResult
from mdm.runs.summary import summarise

from mdm_report.paired import paired
from mdm_report.parallelism import by_sampler
from mdm_report.runs import Key, RunVariant, one_task, read_run, summary_rows


def compare(
    folders: Sequence[Path], *, baseline: str | None = None, metric: str | None = None, intersect: bool = False
) -> list[dict[str, Any]]:
    """One record for each variant of the runs: its summary, and its differences to the baseline.

    Args:
        folders: the folders of the runs.
        baseline: a label or a sampler; None: the first variant. A baseline of several paces is met at the same pace.
        metric: the grade to compare; None: the task's accuracy.
        intersect: compare the examples that all variants have, instead of refusing runs of different ones.

    Raises:
        MdmError: a folder is not a run's or has no results yet; the runs are of different tasks or different examples;
            the baseline or the metric is unknown; results are not graded.
    """
    variants = [variant for folder in folders for variant in _with_results(folder)]
    labels = _labels(variants)
    results = [variant.by_example() for variant in variants]
    task = one_task(variants)
    keys = _examples_to_compare(variants, labels, results, intersect)
    of_task = str(registry.resolve("task", task).metric)
    _warn_of_other_options(variants, labels)
    metric = metric or of_task
    if metric == of_task:
        for variant in variants:
            _check_graded(variant, metric)
    known = {name for examples in results for key in keys for result in examples[key] for name in result.metrics}
    if metric not in known:
        raise MdmError(f"{task} has no grade {metric!r}.{suggest(metric, known)} There are: {_listed(known)}")
    records = [
        _record(variant, label, [result for key in keys for result in examples[key]], metric, len(keys))
        for variant, label, examples in zip(variants, labels, results, strict=True)
    ]
    for name, speed in (("aup", "tokens_per_forward"), ("aup_until_eos", "tokens_per_forward_until_eos")):
        for record, aup in zip(records, by_sampler(records, speed), strict=True):
            record[name] = aup
    for i, other in enumerate(_baselines(variants, labels, baseline)):
        if other is not None:
            records[i]["against"] = {"label": labels[other], **paired(keys, results[i], results[other], metric)}
    return records


def _record(
    variant: RunVariant, label: str, results: Sequence[ExampleResult], metric: str, examples: int
) -> dict[str, Any]:
    """What is reported of one variant; costs are also given per decoding."""
    return {
        "label": label, "run": str(variant.folder), "model": variant.model, "sampler": variant.sampler,
        "tokens_per_step": variant.tokens_per_step, "swept": dict(variant.variant.options),
        "cache": variant.config.cache, "task": variant.config.task,
    } | summarise(results, metric, examples, variant.config.repeats) | {
        f"{cost}_per_example": fsum(getattr(result, cost) for result in results) / len(results)
        for cost in ("forwards", "rows", "seconds")
    } | {"complete": variant_is_complete(variant)}  # fmt: skip


def variant_is_complete(variant: RunVariant) -> bool:
    """Whether all of its examples are decoded, as the run's summary says; a run without one has been stopped."""
    return any(row.get("variant") == variant.label and row.get("complete") for row in summary_rows(variant.folder))


def _with_results(folder: Path) -> list[RunVariant]:
    variants = read_run(folder)
    for variant in variants:
        if not variant.results.by_row:
            raise MdmError(f"{folder} holds no results of {variant.label} yet: let the run go on first")
    return variants


def _check_graded(variant: RunVariant, metric: str) -> None:
    results = variant.results.by_row.values()
    left = sum(not result.graded(metric) for result in results)
    task = registry.resolve("task", variant.config.task)
    if left == len(results) and task.answers == "image" and not task.options_to_grade:
        raise MdmError(
            f"{variant.config.task} grades nothing, so there is no accuracy to compare: mdm fid and mdm clip-score "
            f"score the pictures of {variant.folder}"
        )
    if left:
        raise MdmError(
            f"{left} of {len(results)} results of {variant.label} in {variant.folder} are not graded yet: "
            f"use mdm grade {variant.folder}"
        )


def _warn_of_other_options(variants: Sequence[RunVariant], labels: Sequence[str]) -> None:
    """Say where the grades come from other options of the task, which also ``mdm grade`` may set."""
    options = [variant.task_options() for variant in variants]
    for name in dict.fromkeys(name for of in options for name in of):
        values = [of.get(name) for of in options]
        other = next((i for i, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            warnings.warn(
                f"graded with other options of the task: {name} is {values[0]} for {labels[0]}, {values[other]} for "
                f"{labels[other]}", MdmWarning, stacklevel=3,
            )  # fmt: skip


def _labels(variants: Sequence[RunVariant]) -> list[str]:
    """The shortest labels that tell the variants apart; they always name the sampler."""
    parts = [(v.model, v.sampler, v.swept, f"K{v.tokens_per_step or 1}", v.config.cache) for v in variants]
    shown = [i == 1 or len({part[i] for part in parts}) > 1 for i in range(5)]
    labels = [" ".join(word for word, show in zip(part, shown, strict=True) if show and word) for part in parts]
    if len(set(labels)) < len(labels):
        labels = [f"{label} ({variant.folder})" for label, variant in zip(labels, variants, strict=True)]
    if len(set(labels)) < len(labels):
        raise MdmError("the same run twice")
    return labels


def _examples_to_compare(
    variants: Sequence[RunVariant], labels: Sequence[str], results: Sequence[Mapping[Key, Any]], intersect: bool
) -> list[Key]:
    """The examples that all variants have, in the order of the first one."""
    common = [key for key in results[0] if all(key in examples for examples in results)]
    if not common:
        raise MdmError("the runs have no example in common: other data, another seed or other options of the task")
    every = {key: None for examples in results for key in examples}
    if len(common) < len(every) and not intersect:
        i = min(range(len(results)), key=lambda i: len(results[i]))
        missing = next(key for key in every if key not in results[i])
        raise MdmError(
            f"{labels[i]} in {variants[i].folder} lacks {len(every) - len(results[i])} of {len(every)} examples, "
            f"{missing[0]} for one: --intersect compares the {len(common)} that all have"
        )
    return common


def _baselines(variants: Sequence[RunVariant], labels: Sequence[str], baseline: str | None) -> list[int | None]:
    """For each variant the index of the one it is compared with; None for a baseline itself."""
    if baseline is None:
        candidates = [i for i, variant in enumerate(variants) if _but_pace(variant) == _but_pace(variants[0])]
    elif baseline in labels:
        candidates = [labels.index(baseline)]
    else:
        candidates = [i for i, variant in enumerate(variants) if variant.sampler == baseline]
    if not candidates:
        assert baseline is not None
        raise MdmError(f"no baseline {baseline!r}.{suggest(baseline, labels)} There are: {_listed(labels)}")

    def likeness(one: RunVariant, other: RunVariant) -> tuple[bool, ...]:
        return (
            one.tokens_per_step == other.tokens_per_step,
            one.model == other.model,
            one.config.cache == other.config.cache,
            one.folder == other.folder,
        )

    return [
        None if i in candidates else max(candidates, key=lambda j: likeness(variant, variants[j]))
        for i, variant in enumerate(variants)
    ]


def _but_pace(variant: RunVariant) -> tuple[str, ...]:
    """What identifies a variant but for its pace."""
    return variant.model, variant.sampler, variant.swept, variant.config.cache, str(variant.folder)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
