"""Accuracy, cost and memory of cache modes, as Markdown for caches.md: ``python docs/make_caches.py``.

A mode inside the layers runs whole canvases through the model and computes a part of most layers. So what is counted
is layer-tokens: over all calls of a layer the positions that it computes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from make_refresh import CASES, decoded
from mdm import registry
from mdm.engine.memory import kept_bytes
from mdm_testing.counters import layers_run

DLLM = [(100, 7, 0.25), (100, 7, 0.5), (100, 7, 0.0), (100, 4, 0.25), (100, 2, 0.25), (4, 4, 0.25), (100, 100, 0.25)]
POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("none", {}), ("prefix", {}), ("dual", {}),
    *(
        ("dllm-cache", {"prompt_refresh": prompt, "answer_refresh": answer, "ratio": ratio})
        for prompt, answer, ratio in [*DLLM, (100, 100, 0.0), (1, 1, 0.25)]
    ),
]  # fmt: skip
COLUMNS = ("task", "cache", "accuracy", "cum. entropy", "layer-tokens", "kept bytes of a token")


def measured(case: str, cache: str, options: Mapping[str, Any], sampler: str, limit: int) -> list[str]:
    """One row of the table."""
    model, results, accuracy, calls = decoded(case, cache, options, sampler, limit, layers_run)
    entropy = sum(result.cumulative_entropy for result in results) / limit
    layer_tokens = sum(len(row) for _, rows in calls for row in rows) / limit
    mode = registry.resolve("cache", cache)
    kept = kept_bytes(model, 1, features=mode.inside_layers) if mode.uses_kv else 0
    named = ", ".join([cache, *(f"{option} {value}" for option, value in options.items())])
    return [case, named, f"{accuracy:.1%}", f"{entropy:.3f}", f"{layer_tokens:.0f}", f"{kept:,}"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=200, help="examples a row")
    parser.add_argument("--sampler", default="confidence")
    given = parser.parse_args(arguments)
    print("|", " | ".join(COLUMNS), "|")
    print("|---|---|", "---:|" * 4, sep="")
    for case in CASES:
        for cache, options in POLICIES:
            print("|", " | ".join(measured(case, cache, options, given.sampler, given.limit)), "|", flush=True)


if __name__ == "__main__":
    main()
