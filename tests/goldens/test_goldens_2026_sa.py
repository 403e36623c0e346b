"""CORE, Saber, CreditDecoding, LocalLeap, DUS and Slow-Fast against their published code on the same tiny weights.

Compared is what each forward changed on the canvas, and how many forwards there were. Where a fault of the published
code decides, its name (of the goldens' README) says up to which forward both are the same.
"""

from __future__ import annotations

from typing import Any

import mdm
import pytest
from goldens import cases
from samplers2026 import MASK, Change, changed, changes, llada, traces

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


@pytest.mark.parametrize("case", cases("samplers2026", "traces_slowfast"))
def test_slow_fast(case):
    """Up to the first forward that the published code runs on a canvas cut off behind the cycle (SF3), if it does."""
    lengths = case["forward_lengths"]
    whole = [length == len(case["output"][0]) for length in lengths]
    options = {name: case["params"][name] for name in SLOW_FAST}
    if all(whole):
        agree(case, "slow-fast", options)
    else:
        until = whole.index(False)
        ours, theirs = changed(decode(case, "slow-fast", options)), changes(case)
        assert ours[:until] == theirs[:until] and until >= case["params"]["k_exploration_steps"] and ours != theirs


@pytest.mark.parametrize("case", cases("samplers2026", "traces_saber"))
def test_saber(case):
    """Up to the forward in which S1 or S2 strikes, if one does; in a last one, without the overwriting."""
    result = decode(case, "saber", {"n": case["params"]["n"]})
    ours, theirs = changed(result), changes(case)
    until = min(_backs_out_of_its_block(case, theirs), _picks_beyond_the_masks(case))
    assert ours[:until] == theirs[:until] and until >= min(len(theirs), 7)
    assert result.forwards == case["forwards"] == len(theirs)
    if until >= len(theirs) - 1:
        decoded = [s for s in case["steps"] if s["nfe"] == len(theirs) and s["kind"] == "decode"]
        assert ours[-1] == {p: t for s in decoded for p, t in zip(s["positions"], s["tokens"], strict=True)}
    if until == len(theirs):
        assert result.sequence == case["output"][0]


def _backs_out_of_its_block(case: dict[str, Any], steps: list[Change]) -> int:
    """The first of a case's steps that takes a token of an earlier block back (S2); or how many steps there are."""

    def block(position: int) -> int:
        return (position - len(case["prompt"][0])) // case["params"]["block_length"]

    for n, step in enumerate(steps):
        now = max(block(p) for p, token in step.items() if token != MASK)
        if any(token == MASK and block(p) < now for p, token in step.items()):
            return n
    return len(steps)


def _picks_beyond_the_masks(case: dict[str, Any]) -> int:
    """The first step with fewer masks than it commits (S1); or how many steps there are."""
    return min([nfe - 1 for nfe in case["forwards_with_fewer_masks_than_n"]] + [case["forwards"]])
