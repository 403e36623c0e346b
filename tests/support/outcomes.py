"""Results of examples that were never decoded, for tests of what is made of them."""

from __future__ import annotations

from mdm.runs.results import ExampleResult


def outcome(index: int, right: float = 1.0, **changes) -> ExampleResult:
    fields = {
        "id": f"e{index}", "index": index, "repeat": 0, "row": index, "digest": "d", "prompt": "p", "completion": "c",
        "metrics": {"ok": right}, "tokens": 4, "cumulative_entropy": 0.1 * index, "forwards": 4, "rows": 9,
        "seconds": 0.5, "tokens_until_eos": 3, "block_steps": [2, 2],
    }  # fmt: skip
    return ExampleResult(**{**fields, **changes})
