"""Each published sampler against the published code on the same tiny weights.

``WHY_NOT`` names the cases that a fault of the published code decides (numbers: the quirks in the goldens' README).
"""

from __future__ import annotations

from typing import Any

import mdm
import pytest
from goldens import ABSENT, cases, committed, folder, steps


def load(family: str) -> Any:
    if not folder(family).is_dir():
        pytest.skip(ABSENT)
    return mdm.load_model(folder(family) / "checkpoint", dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def llada():
    return load("llada")


@pytest.fixture(scope="module")
def sdar():
    return load("sdar")


@pytest.fixture(scope="module")
def dream():
    return load("dream")


def one(case: dict[str, Any]) -> list[int]:
    """The prompt of a case of one prompt."""
    prompt = case["prompt"]
    return prompt[0] if isinstance(prompt[0], list) else prompt


def binding(found: list[Any], why_not: dict[str, str]) -> list[Any]:
    """The cases, those that do not bind marked as failing for the reason given."""
    marked = []
    for c in found:
        reason = next((why for part, why in why_not.items() if part in c.id), None)
        marks = [*c.marks, pytest.mark.xfail(reason=reason, strict=True)] if reason else c.marks
        marked.append(pytest.param(*c.values, id=c.id, marks=marks))
    return marked


def baseline(case: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Sampler, its options and the decode settings of a case of the Info-Gain repository's baselines."""
    p, name = case["params"], case["name"].removeprefix("igrepo.")
    settings = {k: p[k] for k in ("steps", "gen_length", "block_length") if k in p}
    settings["guidance"] = p.get("cfg_scale", 0.0)
    pc = {k: p[k] for k in ("lambd", "alpha") if k in p}
    pc["baseline"] = str(folder("llada") / "baseline_freq.json")
    for prefix, sampler, options in (
        ("pc_sampler", "pc", pc),
        ("linear_position", "linear-position", pc),
        ("eb", "eb", {"gamma": p.get("gamma")}),
        ("fast_dllm_threshold", "fastdllm-threshold", {"threshold": p.get("threshold")}),
        ("fast_dllm_factor", "fastdllm-factor", {"factor": p.get("factor"), "accept_last": True}),
        ("fast_dllm_fixed", "confidence", {}),
        ("remdm", "remdm", {k: p.get(k) for k in ("init_unmask_ratio", "unmask_k", "loop_steps")}),
    ):
        if name.startswith(prefix):
            return sampler, options, settings
    return name.split("_")[0], {}, settings


BASELINES = binding(
    cases("llada", "traces_igrepo_baselines"),
    {
        "margin_b8": "the published margin leaves the block (quirk 3)",
        "entropy_cfg1.5_b8": "the published entropy leaves the block (quirk 3)",
    },
)


@pytest.mark.parametrize("case", BASELINES)
def test_baseline(llada, case):
    sampler, options, settings = baseline(case)
    [result] = mdm.decode(llada, [one(case)], sampler, options, cache="none", **settings)
    assert committed(result.trace) == steps(case)
    assert result.sequence == case["output"][0]
    assert result.forwards == case["forwards"]
    if not settings["guidance"]:
        assert result.cumulative_entropy == pytest.approx(case["cumulative_entropy_fullforward"], abs=1e-4)
    kinds = {"decode": "commit", "remask": "remask"}
    assert [line["kind"] for line in result.trace] == [kinds[s["kind"]] for s in case["steps"]]


FASTDLLM = [c for c in cases("llada", "traces_fastdllm") if c.values[0] is None or "_thr" in c.id or "_factor" in c.id]


@pytest.mark.parametrize("case", FASTDLLM)
def test_fastdllm(llada, case):
    p = case["params"]
    cache = "prefix" if "prefix" in case["name"] else "dual" if "dual" in case["name"] else "none"
    rule = "factor" if "factor" in p else "threshold"
    [result] = mdm.decode(
        llada, [one(case)], f"fastdllm-{rule}", {rule: p[rule]}, cache=cache,
        gen_length=p.get("gen_length") or p["max_new_tokens"], block_length=p.get("block_length") or p["block_size"],
    )  # fmt: skip
    assert committed(result.trace) == steps(case)


SDAR = binding(
    [c for c in cases("sdar", "traces") if "sequential" not in c.id],
    {
        "overwrites": "the published code overwrites known tokens (quirk 18)",
        "P12.bl8.static_3": "the published code overwrites known tokens (quirk 18)",
    },
)


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize("case", SDAR)
def test_sdar(sdar, case, cache):
    p, prompt = case["params"], one(case)
    size = p["block_length"]
    stop = -(-(len(prompt) + p["gen_length"]) // size)
    rule = p["remasking_strategy"].rsplit("_", 1)[1]
    options = {"threshold": p["confidence_threshold"]} if rule == "dynamic" else {}
    [result] = mdm.decode(
        sdar, [prompt], f"sdar-{rule}", options, cache=cache, gen_length=p["gen_length"], block_length=size,
        steps=p["denoising_steps"] * (stop - len(prompt) // size),
    )  # fmt: skip
    assert committed(result.trace) == steps(case)
    assert result.cumulative_entropy == pytest.approx(case["cumulative_entropy_blockcausal"], abs=1e-4)


DREAM = cases("dream", "traces_fastdllm", only="nocache")


@pytest.mark.parametrize("case", DREAM)
def test_dream_without_a_cache(dream, case):
    """The published threshold never commits more than m // steps, here 1: it is plain confidence."""
    p = case["params"]
    sampler, schedule = ("entropy", "dream") if p["alg"] == "entropy" else ("confidence", "even")
    [result] = mdm.decode(
        dream, [one(case)], sampler, cache="none", schedule=schedule, steps=p["steps"],
        gen_length=p["max_new_tokens"], block_length=p["max_new_tokens"],
    )  # fmt: skip
    assert committed(result.trace) == steps(case)
