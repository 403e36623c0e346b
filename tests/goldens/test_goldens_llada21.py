"""Token editing of LLaDA2.1: joint-threshold against the published code on the same tiny weights."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import mdm
import pytest
from goldens import ABSENT, cases, facts, folder

FAMILY = "models2026/llada2"
CASES = [c for c in cases(FAMILY, "traces_llada21") if not c.id.startswith("informative")]
"""Without what does not bind: the hub's code, whose mask is none (quirk L2)."""
KINDS = {"commit": "decode", "edit": "edit"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The published keys name no mask, and these weights come without the tokenizer that does: so config.json does."""
    if not folder(FAMILY).is_dir():
        pytest.skip(ABSENT)
    copy, checkpoint = tmp_path_factory.mktemp("llada2"), folder(FAMILY) / "checkpoint"
    config = json.loads((checkpoint / "config.json").read_text())
    mask = {"mask_token_id": facts(FAMILY, "traces_llada21")["mask_id"]}
    (copy / "config.json").write_text(json.dumps(config | mask))
    (copy / "model.safetensors").symlink_to(checkpoint / "model.safetensors")
    return mdm.load_model(copy, dtype="float32", device="cpu")


def decoded(model: Any, case: dict[str, Any], cache: str, **more: Any) -> mdm.Result:
    """A case's prompt, decoded with the settings that are its parameters."""
    params = case["params"]
    options = {
        "threshold": params["threshold"], "edit_threshold": min(1.0, params["editing_threshold"]),
        "max_post_steps": params["max_post_steps"], "min_tokens": params["num_to_transfer"],
    }  # fmt: skip
    settings = {"gen_length": params["max_new_tokens"], "block_length": params["block_size"]} | more
    if params.get("eos_early_stop"):
        settings |= {"stop_at_eos": True, "eos_token_id": case["eos_id"]}
    [result] = mdm.decode(model, case["prompt"], "joint-threshold", options, cache, **settings)
    return result


def changes(trace: list[Any]) -> list[tuple[int, str, list[int], list[int]]]:
    """Forwards made so far, what happened, and where; as a golden has it."""
    forwards, out = 0, []
    for line in trace:
        forwards += line["forwards"]
        if line["positions"] and line["kind"] != "fill":
            out.append((forwards, KINDS[line["kind"]], line["positions"], line["tokens"]))
    return out


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize("case", CASES)
def test_trace(model, case, cache):
    result = decoded(model, case, cache)
    golden = [(s["nfe"], s["kind"], s["positions"], s["tokens"]) for s in case["steps"]]
    assert changes(result.trace) == golden
    assert result.forwards == case["forwards"]
    assert sum(len(line["positions"]) for line in result.trace if line["kind"] == "edit") == case["n_edits"]
    assert result.cumulative_entropy == pytest.approx(case["cumulative_entropy_blockcausal"], abs=1e-4)
    entropies = [pytest.approx(s["entropy"], abs=1e-4) for s in case["steps"]]
    assert [x["entropy"] for x in result.trace if x["positions"] and x["kind"] != "fill"] == entropies
    # Behind an end token the published code leaves masks, and ours has end tokens.
    output = [case["eos_id"] if token == model.spec.mask_id else token for token in case["output"][0]]
    assert result.sequence == output and output.count(case["eos_id"]) >= case["masks_left"]


@pytest.mark.parametrize("case", [c for c in CASES if c.values[0] is None or "sglang_joint_threshold" in c.values[0]])
def test_sglang_differs_in_forwards_alone(model, case):
    """It finds a block's budget spent only after one forward more (quirk L7); its records and output are the same."""
    spent, result = case["sglang_joint_threshold"], decoded(model, case, "none")
    assert all(one["same_steps_in_order"] and one["same_output"] for one in spent.values())
    size, limit = case["params"]["block_size"], case["params"]["max_post_steps"]
    blocks: dict[int, list[list[str]]] = {}
    for _, step in groupby(result.trace, lambda line: line["step"]):
        lines = [line for line in step if line["positions"]]
        block = lines[0]["positions"][0] // size if lines else max(blocks)
        blocks.setdefault(block, []).append([line["kind"] for line in lines])
    after = [steps[1 + max(n for n, kinds in enumerate(steps) if "commit" in kinds) :] for steps in blocks.values()]
    exhausted = sum(len(steps) == limit and (not limit or steps[-1] == ["edit"]) for steps in after)
    assert {one["forwards"] for one in spent.values()} == {result.forwards + exhausted}
