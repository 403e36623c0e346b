"""CORE, Saber, CreditDecoding, LocalLeap, DUS and Slow-Fast against their published code on the same tiny weights.

Compared is what each forward changed on the canvas, and how many forwards there were. Where a fault of the published code
decides, its name (of the goldens' README) says up to which forward both are the same.
"""

from __future__ import annotations

from typing import Any

import mdm
import pytest
from goldens import cases
from samplers2026 import Change, changed, changes, llada, traces

SIZES = ("gen_length", "block_length", "steps")


def decode(case: dict[str, Any], sampler: str, options: dict[str, Any]) -> mdm.Result:
    sizes = {name: case["params"][name] for name in SIZES if name in case["params"]}
    [result] = mdm.decode(llada(case["head_scale"]), case["prompt"], sampler, options, cache="none", **sizes)
    return result


def agree(case: dict[str, Any], sampler: str, options: dict[str, Any]) -> None:
    result = decode(case, sampler, options)
    assert changed(result) == changes(case)
    assert result.sequence == case["output"][0]
    assert result.forwards == case["forwards"]


@pytest.mark.parametrize("case", traces("core"))
def test_core(case):
    p, env = case["params"], case["params"]["env"]
    options = {"every": int(env["REVISE_EVERY"]), "m": int(env["CANDIDATE_M"]), "base": env["BASE_MASKING"]}
    options |= {"remask_k": p["remask_k"], "revise": p["remasking"].removesuffix("_remask")}
    agree(case, "core", options)


@pytest.mark.parametrize("case", traces("credit"))
def test_credit(case):
    names = ("threshold", "credit_alpha", "boost_gamma", "decay_beta")
    agree(case, "credit", {name: case["params"][name] for name in names})


@pytest.mark.parametrize("case", traces("localleap"))
def test_local_leap(case):
    names = ("anchor_threshold", "neighbor_threshold", "radius")
    agree(case, "local-leap", {name: case["params"][name] for name in names})


@pytest.mark.parametrize("case", traces("dus"))
def test_dus(case):
    p = case["params"]
    agree(case, "dus", {"mode": p["scheduler"], "base": p["base"], "skip": p["base_skip"]})


SLOW_FAST = (
    "k_exploration_steps", "cycle_len_confidence_threshold", "cycle_length_stability_window",
    "cycle_length_stability_std_dev_threshold", "high_confidence_threshold",
)  # fmt: skip


@pytest.mark.parametrize("case", traces("slowfast"))
def test_slow_fast(case):
    agree(case, "slow-fast", {name: case["params"][name] for name in SLOW_FAST})


@pytest.mark.parametrize("case", cases("samplers2026", "traces_saber"))
def test_saber(case):
    result = decode(case, "saber", {"n": case["params"]["n"]})
    print(len(changed(result)), len(changes(case)), result.forwards, case["forwards"])
    for i, (a, b) in enumerate(zip(changed(result), changes(case))):
        if a != b: print(i, a, b); break
    assert changed(result) == changes(case)
    assert result.forwards == case["forwards"]
