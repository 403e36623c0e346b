"""FreeDave, SOAR, DCD and Prophet against the traces of their published code."""

from __future__ import annotations

import mdm
import pytest
from goldens import committed, steps
from samplers2026 import changed, changes, llada, traces


def freedave_cases() -> list:
    """FreeDave's, less eager acceptance, which the plugin has not (fault F1)."""
    return [c for c in traces("freedave") if "eager" not in c.id]


@pytest.mark.parametrize("case", freedave_cases())
def test_freedave(case):
    p = case["params"]
    options = {
        "draft_steps": p["draft_steps"],
        "confidence_threshold": p["confidence_threshold"],
        "order": "left-to-right" if p["alg_temp"] == -1 else "confidence",
    }
    cache = case["name"].split(".")[1]
    [result] = mdm.decode(
        llada(case["head_scale"]), case["prompt"], "freedave", options, cache=cache,
        gen_length=p["max_gen_length"], block_length=p["block_length"],
    )  # fmt: skip
    assert committed(result.trace) == steps(case)
    assert result.sequence == case["output"][0]
    assert result.forwards == case["forwards"]
    if p["confidence_threshold"] is None:  # with one, the published code also runs a draft that adds nothing
        assert result.rows == case["rows"]


@pytest.mark.parametrize("case", traces("soar"))
def test_soar(case):
    """``pbs`` is the position beam without parallel steps, which its code runs a forward a beam."""
    p = case["params"]
    beam = case["name"].startswith("soar")
    options = {"max_beam_size": p["max_beam_size"]} if beam else {"max_beam_size": p["beam_size"], "threshold": 1.0}
    [result] = mdm.decode(
        llada(case["head_scale"]), case["prompt"], "soar", options, cache="none",
        gen_length=p["gen_length"], block_length=p["block_length"],
    )  # fmt: skip
    assert committed(result.trace) == steps(case)
    assert result.sequence == case["output"][0]
    assert result.rows == case["rows"] and (result.forwards == case["forwards"] or not beam)


def dcd_cases() -> list:
    """DCD's without a cache: its caches follow the window (fault DC1 in one that does not bind)."""
    return [c for c in traces("dcd") if c.values[0] is None or c.values[0]["params"]["cache_type"] == "none"]


@pytest.mark.parametrize("case", dcd_cases())
def test_dcd(case):
    p = case["params"]
    options = {name: p[name] for name in ("initial_window_length", "max_window_length", "decode_algo", "decode_param")}
    [result] = mdm.decode(
        llada(case["head_scale"]), case["prompt"], "dcd", options, cache="none", gen_length=p["generate_length"],
        stop_at_eos=True, eos_token_id=p["eos_id"],
    )  # fmt: skip
    assert changed(result) == changes(case)
    assert result.sequence == case["output"][0]
    assert result.forwards == case["forwards"]


@pytest.mark.parametrize("case", traces("prophet"))
def test_prophet(case):
    p = case["params"]
    [prompt] = case["prompt"]
    options = {"answer_start": p["answer_start_pos"] - len(prompt), **(p["early_exit_thresholds"] or {})}
    [result] = mdm.decode(
        llada(case["head_scale"]), case["prompt"], "prophet", options, cache="none",
        gen_length=p["gen_length"], block_length=p["block_length"], steps=p["steps"],
    )  # fmt: skip
    assert changed(result) == changes(case)
    assert result.sequence == case["output"][0]
    assert result.forwards == case["forwards"]
