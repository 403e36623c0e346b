"""Accuracy and cost of each refresh policy, as Markdown for benchmarks.md: ``python docs/make_refresh.py``.

A run counts forwards and rows, which are the same under every policy; what a cache saves is row-tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from mdm import api, registry
from mdm_testing.counters import counting

Counted = TypeVar("Counted")
CASES = {
    "sudoku, generated, one block of 16": ("sudoku", {"mode": "generate"}, 16),
    "sudoku, generated, blocks of 4": ("sudoku", {"mode": "generate"}, 4),
    "equations, one block": ("equations", {}, 16),
}
POLICIES = [("none", ""), *((cache, policy) for cache in ("prefix", "dual") for policy in ("block", 4, 2, 1, "never"))]
COLUMNS = ("task", "cache", "options", "accuracy", "cum. entropy", "forwards", "rows", "row-tokens")


def decoded(
    case: str, cache: str, options: Mapping[str, object], sampler: str, limit: int,
    watch: Callable[[Any], AbstractContextManager[Counted]],
) -> tuple[Any, list[api.Result], float, Counted]:  # fmt: skip
    """The model, ``limit`` decoded examples of a case, their accuracy, and what ``watch`` has counted of the model."""
    name, settings, block_length = CASES[case]
    plugin = registry.resolve("task", name)
    task = plugin(plugin.Options(**settings))
    model = api.load_model("tiny", device="cpu")
    examples = list(islice(task.examples(seed=0), limit))
    canvases = [model.lay_out(task.prompt(example, model.spec.prompt_style)) for example in examples]
    with watch(model) as counts:
        results = api.decode(
            model, canvases, sampler, cache=cache, cache_options=dict(options), block_length=block_length,
            batch_size=50,
        )  # fmt: skip
    right = sum(
        task.grade(example, model.decode(result.sequence[canvas.context :]))["accuracy"]
        for example, result, canvas in zip(examples, results, canvases, strict=True)
    )
    return model, results, right / limit, counts


def measured(case: str, cache: str, options: Mapping[str, object], sampler: str, limit: int) -> list[str]:
    """One row of the table: the case, the cache, its options, and what they cost."""
    watch = partial(counting, operations=False)
    _, results, accuracy, counts = decoded(case, cache, options, sampler, limit, watch)
    entropy, forwards, rows = (
        sum(getattr(result, key) for result in results) / limit for key in ("cumulative_entropy", "forwards", "rows")
    )
    costs = f"{entropy:.3f}", f"{forwards:.1f}", f"{rows:.1f}", f"{counts.positions / limit:.0f}"
    shown = ", ".join(f"{option} {value}" for option, value in options.items())
    return [case, cache, shown, f"{accuracy:.1%}", *costs]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=300, help="examples a row")
    parser.add_argument("--sampler", default="info-gain")
    given = parser.parse_args(arguments)
    print("|", " | ".join(COLUMNS), "|")
    print("|---|---|---|", "---:|" * 5, sep="")
    for case in CASES:
        for cache, refresh in POLICIES:
            options = {"refresh": refresh} if refresh else {}
            print("|", " | ".join(measured(case, cache, options, given.sampler, given.limit)), "|", flush=True)


if __name__ == "__main__":
    main()
