"""d2Cache against the published code with its faults D1 to D3 mended: what each forward runs, tokens, forwards."""

from __future__ import annotations

from typing import Any

import mdm
import pytest
from goldens import committed, steps
from mdm_featurecache.d2cache import D2Cache
from samplers2026 import llada, traces


class Recorded(D2Cache):
    """Keeps what each step of a decode of one row was to run."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.ran: list[list[int]] = []

    def learn(self, seen: Any, memory: Any) -> Any:
        self.ran.append(seen.plan.query[0].nonzero().flatten().tolist())
        return super().learn(seen, memory)


UNHARMED = "d2cache.P12.g32.b32.k1.t0.8"
"""A case in which the faults of the published code choose what its rule does."""
CASES = [pytest.param(*c.values, id=c.id) if UNHARMED in c.id else c for c in traces("d2cache")]


@pytest.mark.parametrize("case", CASES)
def test_d2cache(case):
    p = case["params"]
    names = {"p": "rollout_p", "k": "current_k", "sigma": "cache_sigma", "inflate_w": "inflate_w"}
    cache = Recorded(D2Cache.Options(**{name: p[published] for name, published in names.items()}))
    rule = ("confidence", {}) if p["threshold"] is None else ("fastdllm-threshold", {"threshold": p["threshold"]})
    [result] = mdm.decode(
        llada(case["head_scale"]), case["prompt"], *rule, cache=cache, tokens_per_step=p["num_transfer_tokens"],
        gen_length=p["gen_length"], block_length=p["block_length"],
    )  # fmt: skip
    assert cache.ran == case["recomputed"]
    assert committed(result.trace) == steps(case)
    assert result.sequence == case["output"][0]
    assert result.forwards == case["forwards"]
