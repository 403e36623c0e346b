"""LLaDA2.0 against the published code on the same tiny weights. The ids of the goldens are not the published ones."""

from __future__ import annotations

import json
import shutil
from functools import partial

import mdm
import pytest
from goldens import ABSENT, cases, committed, folder, forwards, steps

FAMILY = "models2026/llada2"
IDS = {"mask_token_id": 250, "eos_token_id": 251}
END = IDS["eos_token_id"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The golden checkpoint, its configuration with the ids that no published one names."""
    if not folder(FAMILY).is_dir():
        pytest.skip(ABSENT)
    copy = tmp_path_factory.mktemp("llada2")
    for path in (folder(FAMILY) / "checkpoint").iterdir():
        shutil.copyfile(path, copy / path.name)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | IDS))
    return mdm.load_model(copy, dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("name", "block_length"), [(f"case{n}", size) for n in range(3) for size in (4, 8)] + [("case1", 32)]
)
def test_forward(model, name, block_length):
    forwards(partial(model.score_logits, block_length=block_length), FAMILY, name, f"bc{block_length}")


def decoded(model, params, prompts, cache="none", **more):
    """Steps are counted a block in the goldens, and the schedule is of the whole block, prompt or not (L5)."""
    size, length = params["block_size"], params["max_new_tokens"]
    start = len(prompts[0]) // size
    count = -(-(len(prompts[0]) + length) // size) - start
    return mdm.decode(
        model, prompts, "sdar-dynamic", {"threshold": min(params["threshold"], 1.0)}, cache=cache, gen_length=length,
        block_length=size, steps=params["steps_per_block"] * count, **more,
    )  # fmt: skip


def up_to(end, tokens):
    """The tokens up to the first ``end``, with it."""
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


SINGLE = [c for c in cases(FAMILY, "traces_llada20") if c.values[0] is None or "steps" in c.values[0]]


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize("case", SINGLE)
def test_trace(model, case, cache):
    [result] = decoded(model, case["params"], case["prompt"], cache)
    assert committed(result.trace) == steps(case)
    assert result.sequence == case["output"][0]
    assert result.cumulative_entropy == pytest.approx(case["cumulative_entropy_blockcausal"], abs=2e-4)
    if cache == "none":  # the block cache stores each block with a forward of its own
        assert result.forwards == case["forwards"]


@pytest.mark.parametrize("case", SINGLE)
def test_the_published_class_generates_the_same(model, case):
    """The hub's own ``generate``, made greedy (L1), up to the first end token, where it stops (L4)."""
    [result] = decoded(model, case["params"], case["prompt"])
    [published] = case["hub_generate"]["output"]
    assert up_to(END, result.tokens) == up_to(END, published)


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize("case", cases(FAMILY, "traces_llada20", "batch"))
def test_batch(model, case, cache):
    results = decoded(model, case["params"], case["prompt"], cache)
    for row, result, output in zip(case["rows"], results, case["output"], strict=True):
        assert committed(result.trace) == steps(row)
        assert result.sequence == output
        assert result.cumulative_entropy == pytest.approx(row["cumulative_entropy_blockcausal"], abs=2e-4)


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize("case", cases(FAMILY, "traces_llada20", "hub_eos_early_stop"))
def test_stopping_at_the_end(model, case, cache):
    """The hub leaves off inside a block and returns the prompt too; the answer's tokens are what binds (L4)."""
    names = {"block_length": "block_size", "gen_length": "max_new_tokens", "steps": "steps_per_block"}
    params = {names.get(key, key): value for key, value in case["params"].items()}
    [result] = decoded(model, params, case["prompt"], cache, stop_at_eos=True, eos_token_id=case["eos_id"])
    assert up_to(case["eos_id"], result.tokens) == case["output"][0][len(case["prompt"][0]) :]
