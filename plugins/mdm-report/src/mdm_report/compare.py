"""Runs set against each other, paired by example.

The statistics are scipy's: an interval of the mean difference from a percentile bootstrap over examples, and for wins
against losses the exact binomial test, which on accuracies of 0 and 1 is McNemar's exact test (McNemar 1947).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from statistics import fmean
from typing import Any

from mdm import registry
from mdm.errors import MdmError, suggest
from mdm.runs import config
from mdm.runs.config import RunConfig
from mdm.runs.results import ExampleResult
from mdm.runs.summary import summarise
from mdm.runs.variants import Variant, jobs

from mdm_report import pictures

Key = tuple[str, str]
"""An example: its id and the digest of what it says."""
RESAMPLES = 9999


@dataclass(frozen=True)
class Contender:
    """One row of a run, to be compared."""

    folder: Path
    config: RunConfig
    job: Variant

    @property
    def line(self) -> tuple[str, ...]:
        """What it is, but for its pace."""
        return self.job.model, self.job.sampler, self.config.cache, str(self.folder)

    def by_example(self) -> dict[Key, list[ExampleResult]]:
        """The decodings of each example, in the order of the repeats."""
        found: dict[Key, list[ExampleResult]] = {}
        for outcome in sorted(self.job.results.by_row.values(), key=lambda outcome: (outcome.index, outcome.repeat)):
            found.setdefault((outcome.id, outcome.digest), []).append(outcome)
        return found


def compare(
    folders: Sequence[Path], *, baseline: str | None = None, metric: str | None = None, intersect: bool = False
) -> list[dict[str, Any]]:
    """One record for each model, sampler and pace of the runs: its summary, and how it stands against the baseline.

    Args:
        folders: of runs.
        baseline: a label or a sampler; of several of that sampler each is set against the one at its own pace.
            None: the first.
        metric: the grade to compare; None: the task's accuracy.
        intersect: compare the examples that all have, instead of refusing runs of different ones.

    Raises:
        MdmError: no run's folder, different tasks, different examples.
    """
    contenders = [contender for folder in folders for contender in _contenders(folder)]
    names = _labels(contenders)
    decoded = [contender.by_example() for contender in contenders]
    keys = _shared(contenders, names, decoded, intersect)
    task = contenders[0].config.task
    plugin = registry.resolve("task", task)
    metric = metric or str(plugin.metric)
    known = {name for found in decoded for key in keys for outcome in found[key] for name in outcome.metrics}
    if metric not in known:
        raise MdmError(f"{task} has no grade {metric!r}.{suggest(metric, known)} There are: {_all(known)}")
    records = []
    for contender, label, found in zip(contenders, names, decoded, strict=True):
        job = contender.job
        outcomes = [outcome for key in keys for outcome in found[key]]
        repeats = contender.config.repeats
        records.append(
            {
                "label": label, "run": str(contender.folder), "model": job.model, "sampler": job.sampler,
                "tokens_per_step": job.tokens_per_step, "cache": contender.config.cache, "task": task,
            } | summarise(outcomes, metric, len(keys), repeats) | {
                f"{cost}_per_example": fsum(getattr(outcome, cost) for outcome in outcomes) / len(outcomes)
                for cost in ("forwards", "rows", "seconds")
            }
        )  # fmt: skip
    rivals = _rivals(contenders, names, baseline)
    for i, rival in enumerate(rivals):
        if rival is not None:
            records[i]["against"] = {"label": names[rival], **_against(keys, decoded[i], decoded[rival], metric)}
    return records


def _contenders(folder: Path) -> list[Contender]:
    if not (folder / "config.yaml").is_file():
        raise MdmError(f"{folder} is not a run's folder: it has no config.yaml")
    settled = config.parse(RunConfig, folder / "config.yaml")
    found = [Contender(folder, settled, job) for job in jobs(settled, folder)]
    empty = next((contender.job.label for contender in found if not contender.job.results.by_row), None)
    if empty is not None:
        raise MdmError(f"{folder} holds no results of {empty} yet: let the run go on first")
    return found


def _labels(contenders: Sequence[Contender]) -> list[str]:
    """The shortest of what tells them apart; the sampler always."""
    parts = [
        (
            contender.job.model,
            contender.job.sampler,
            f"K{contender.job.tokens_per_step or 1}",
            contender.config.cache,
            str(contender.folder),
        )
        for contender in contenders
    ]
    shown = [len({part[i] for part in parts}) > 1 or i == 1 for i in range(5)]
    short = [" ".join(part[i] for i in range(4) if shown[i]) for part in parts]
    if len(set(short)) == len(short):
        return short
    long = [f"{label} ({part[4]})" for label, part in zip(short, parts, strict=True)]
    if len(set(long)) < len(long):
        raise MdmError("the same run twice")
    return long


def _shared(
    contenders: Sequence[Contender], names: Sequence[str], decoded: Sequence[Mapping[Key, Any]], intersect: bool
) -> list[Key]:
    """The examples to compare, in the order of the first contender."""
    first = contenders[0]
    other = next((contender for contender in contenders if contender.config.task != first.config.task), None)
    if other is not None:
        raise MdmError(
            f"{first.folder} is of {first.config.task} and {other.folder} of {other.config.task}: nothing to compare"
        )
    keys = [key for key in decoded[0] if all(key in found for found in decoded)]
    everything = {key for found in decoded for key in found}
    if not keys:
        raise MdmError("the runs have no example in common: other data, another seed or other options of the task")
    if len(keys) < len(everything) and not intersect:
        short = min(range(len(decoded)), key=lambda i: len(decoded[i].keys() & everything))
        lacking = next(key for found in decoded for key in found if key not in decoded[short])
        raise MdmError(
            f"{names[short]} in {contenders[short].folder} lacks {len(everything) - len(decoded[short])} of "
            f"{len(everything)} examples, {lacking[0]} for one: --intersect compares the {len(keys)} that all have"
        )
    return keys


def _rivals(contenders: Sequence[Contender], names: Sequence[str], baseline: str | None) -> list[int | None]:
    """For each contender the one it is set against, None for a baseline itself."""
    if baseline is not None and baseline in names:
        chosen = [names.index(baseline)]
    elif baseline is None:
        chosen = [i for i, contender in enumerate(contenders) if contender.line == contenders[0].line]
    else:
        chosen = [i for i, contender in enumerate(contenders) if contender.job.sampler == baseline]
        if not chosen:
            raise MdmError(f"no baseline {baseline!r}.{suggest(baseline, names)} There are: {_all(names)}")

    def likeness(i: int, j: int) -> tuple[bool, ...]:
        one, two = contenders[i], contenders[j]
        return (
            one.job.tokens_per_step == two.job.tokens_per_step,
            one.job.model == two.job.model,
            one.config.cache == two.config.cache,
            one.folder == two.folder,
        )

    return [None if i in chosen else max(chosen, key=lambda j: likeness(i, j)) for i in range(len(contenders))]


def _against(
    keys: Iterable[Key], ours: Mapping[Key, list[ExampleResult]], theirs: Mapping[Key, list[ExampleResult]], metric: str
) -> dict[str, Any]:
    """Differences are ours minus theirs, of the means of each example's repeats."""
    from_scipy = _scipy()
    keys = list(keys)
    pairs = [(_grade(ours[key], metric), _grade(theirs[key], metric)) for key in keys]
    wins, losses = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    entropies = [
        (_entropy(ours[key]), _entropy(theirs[key]))
        for key in keys
        if any(outcome.decoded for outcome in ours[key]) and any(outcome.decoded for outcome in theirs[key])
    ]
    test = from_scipy.binomtest(wins, wins + losses) if wins + losses else None
    return {
        "wins": wins,
        "ties": len(pairs) - wins - losses,
        "losses": losses,
        "difference": fmean(a - b for a, b in pairs),
        "difference_ci95": _bootstrap([a - b for a, b in pairs]),
        "p_value": float(test.pvalue) if test else 1.0,
        "test": "mcnemar-exact" if {x for pair in pairs for x in pair} <= {0.0, 1.0} else "sign-exact",
        "entropy_difference": fmean(a - b for a, b in entropies) if entropies else 0.0,
        "entropy_difference_ci95": _bootstrap([a - b for a, b in entropies]),
    }


def _grade(outcomes: Sequence[ExampleResult], metric: str) -> float:
    return fmean(outcome.metrics.get(metric, 0.0) for outcome in outcomes)


def _entropy(outcomes: Sequence[ExampleResult]) -> float:
    return fmean(outcome.cumulative_entropy for outcome in outcomes if outcome.decoded)


def _bootstrap(differences: Sequence[float]) -> list[float]:
    """The 95 % percentile interval of a mean; the same numbers every time."""
    if len(set(differences)) < 2:  # nothing varies
        return [differences[0], differences[0]] if differences else [0.0, 0.0]
    import numpy

    got = _scipy().bootstrap(
        (numpy.asarray(differences),), numpy.mean, n_resamples=RESAMPLES, method="percentile",
        batch=max(1, 10**7 // len(differences)), rng=numpy.random.default_rng(0),
    )  # fmt: skip
    return [float(got.confidence_interval.low), float(got.confidence_interval.high)]


def _scipy() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise MdmError("comparing needs scipy: pip install scipy") from error
    return stats


def _all(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def plot(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy against rows per example, one line a sampler over its paces, with 95 % intervals.

    Raises:
        MdmError: matplotlib is missing, or ``path`` is no picture.
    """
    figure = pictures.figure(path, figsize=(7, 4.5))
    lines: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        lines.setdefault(tuple(record[key] for key in ("model", "sampler", "cache", "run")), []).append(record)
    axes = figure.subplots()
    for number, points in enumerate(lines.values()):
        points = sorted(points, key=lambda record: record["rows_per_example"])
        x = [record["rows_per_example"] for record in points]
        y = [record["accuracy"] for record in points]
        low = [max(0.0, record["accuracy"] - record["accuracy_ci95"][0]) for record in points]
        high = [max(0.0, record["accuracy_ci95"][1] - record["accuracy"]) for record in points]
        label = " ".join(word for word in points[0]["label"].split() if word != f"K{points[0]['tokens_per_step'] or 1}")
        marker = "osD^vP*X"[number // 10 % 8]  # colours repeat after ten
        axes.errorbar(x, y, yerr=[low, high], marker=marker, capsize=2, linewidth=1, elinewidth=0.6, label=label)
        for record, at in zip(points, zip(x, y, strict=True), strict=True):
            if record["tokens_per_step"]:
                text = f"K{record['tokens_per_step']}"
                axes.annotate(text, at, xytext=(3, 3), textcoords="offset points", fontsize=7)
    axes.set(xlabel="rows through the model per example", ylabel=records[0]["metric"])
    rows = [record["rows_per_example"] for record in records if record["rows_per_example"]]
    if rows and max(rows) > 5 * min(rows):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="x", which="minor", labelsize="x-small")
    axes.set_title(records[0]["task"], fontsize="medium")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    pictures.save(figure, path)
