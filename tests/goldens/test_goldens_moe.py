"""LLaDA-MoE and SDAR-MoE against the published code on the same tiny weights. All cases bind."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import mdm
import pytest
from goldens import ABSENT, cases, committed, folder, forwards, steps

LLADA, SDAR = "models2026/llada_moe", "models2026/sdar_moe"
MASK = 250


def load(family: str, into: Path) -> Any:
    """The golden checkpoint; neither published config.json names the mask, and here is no tokenizer that would."""
    golden = folder(family) / "checkpoint"
    if not golden.is_dir():
        pytest.skip(ABSENT)
    config = json.loads((golden / "config.json").read_text()) | {"mask_token_id": MASK}
    (into / "config.json").write_text(json.dumps(config))
    (into / "model.safetensors").symlink_to(golden / "model.safetensors")
    return mdm.load_model(into, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def llada(tmp_path_factory):
    return load(LLADA, tmp_path_factory.mktemp("llada-moe"))


@pytest.fixture(scope="module")
def sdar(tmp_path_factory):
    return load(SDAR, tmp_path_factory.mktemp("sdar-moe"))


@pytest.mark.parametrize("name", ["case0", "case1", "case2"])
def test_llada_forward(llada, name):
    forwards(llada.score_logits, LLADA, name)


@pytest.mark.parametrize("name", ["case0", "case1", "case2"])
@pytest.mark.parametrize("size", [4, 8])
def test_sdar_forward(sdar, name, size):
    forwards(partial(sdar.score_logits, block_length=size), SDAR, name, f"bc{size}")


def settled(case: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Sampler, options and settings of a case: LLaDA's loop, or SDAR's, which schedules each block by itself."""
    p, [prompt] = case["params"], case["prompt"]
    settings = {key: p[key] for key in ("gen_length", "block_length")}
    if "steps" in p:
        return "confidence", {}, settings | {"steps": p["steps"]}
    rule = p["remasking_strategy"].rsplit("_", 1)[-1]
    if rule == "sequential":
        return "left-to-right", {}, settings | {"tokens_per_step": p["block_length"] // p["denoising_steps"]}
    options = {"threshold": p["confidence_threshold"]} if rule == "dynamic" else {}
    return f"sdar-{rule}", options, settings | {"steps": p["denoising_steps"] * blocks(p, prompt)}


def blocks(p: dict[str, Any], prompt: list[int]) -> int:
    """How many blocks of the grid hold the answer."""
    return -(-(len(prompt) + p["gen_length"]) // p["block_length"]) - len(prompt) // p["block_length"]


def same(result: mdm.DecodeResult, case: dict[str, Any], entropy: str) -> None:
    assert committed(result.trace) == steps(case)
    assert {line["kind"] for line in result.trace} == {"commit"}
    assert {step["kind"] for step in case["steps"]} == {"decode"}
    assert result.sequence == case["output"][0]
    assert result.cumulative_entropy == pytest.approx(case[entropy], abs=1e-4)


@pytest.mark.parametrize("case", cases(LLADA, "traces"))
def test_llada_trace(llada, case):
    sampler, options, settings = settled(case)
    [result] = mdm.decode(llada, case["prompt"], sampler, options, **settings)
    same(result, case, "cumulative_entropy_fullforward")
    assert result.forwards == case["forwards"]


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize("case", cases(SDAR, "traces"))
def test_sdar_trace(sdar, case, cache):
    sampler, options, settings = settled(case)
    [result] = mdm.decode(sdar, case["prompt"], sampler, options, cache=cache, **settings)
    same(result, case, "cumulative_entropy_blockcausal")
    # The published count holds the call that keeps the prompt, and one that keeps each finished block.
    assert result.forwards == case["forwards"] - 1 - blocks(case["params"], case["prompt"][0])


@pytest.mark.parametrize(
    ("family", "cache", "entropy"),
    [(LLADA, "none", "fullforward"), (SDAR, "none", "blockcausal"), (SDAR, "block", "blockcausal")],
)
def test_a_row_among_others(request, family, cache, entropy):
    """Each case again, in a batch with the prompts of the others, which route to experts of their own."""
    model = request.getfixturevalue({LLADA: "llada", SDAR: "sdar"}[family])
    found = [c.values[0] for c in cases(family, "traces")]
    prompts = [case["prompt"][0] for case in found]
    for n, case in [*enumerate(found)][::2]:
        sampler, options, settings = settled(case)
        results = mdm.decode(model, prompts, sampler, options, cache=cache, **settings)
        same(results[n], case, f"cumulative_entropy_{entropy}")
