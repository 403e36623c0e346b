"""What every sampler keeps to, whatever the prompt; and that its page in the docs says what it is."""

from __future__ import annotations

import runpy
from typing import Any

import mdm
import pytest
import torch
from goldens import ROOT
from hypothesis import HealthCheck, given, settings, strategies as st
from mdm import registry
from tiny_families import MASK, save

ONE_AT_LEAST = {
    "confidence": {}, "entropy": {}, "margin": {}, "random": {}, "left-to-right": {}, "maskgit": {},
    "pc": {}, "linear-position": {},
    "info-gain": {"candidates": 3}, "lookum": {"candidates": 3}, "sdar-static": {}, "sdar-dynamic": {"threshold": 0.3},
    "fastdllm-threshold": {"threshold": 0.3}, "fastdllm-factor": {}, "klass": {"threshold": 0.2, "kl_threshold": 1.0},
    "fastdllm-v2": {"threshold": 0.3, "sub_block": 2}, "eb": {"gamma": 2.0}, "beam": {"beam_size": 2, "candidates": 3},
    "credit": {"threshold": 0.1}, "soar": {}, "prophet": {"late": 0.1}, "freedave": {}, "dcd": {"decode_param": 0.1},
    "slow-fast": {"high_confidence_threshold": 0.05}, "local-leap": {"anchor_threshold": 0.05}, "dus": {},
    "particles": {"particles": 2},
}  # fmt: skip
SCHEDULED = {
    "confidence", "entropy", "margin", "random", "left-to-right", "maskgit", "pc", "linear-position", "info-gain",
    "lookum", "sdar-static", "beam", "particles",
}  # fmt: skip
REVISERS: dict[str, dict[str, Any]] = {
    "remdm": {"loop_steps": 3},
    "joint-threshold": {"threshold": 0.3, "edit_threshold": 0.1, "max_post_steps": 3},
    "core": {"every": 2},
    "saber": {},
    "wino": {"threshold": 0.05},
    "p2": {},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("models") / "llada", "llada"), device="cpu", dtype="float32")


def test_all_of_ours_are_here():
    ours = runpy.run_path(str(ROOT / "docs/samplers.py"))["OURS"]
    assert {e.name for e in registry.entries("sampler") if e.dist in ours} == {*ONE_AT_LEAST, *REVISERS}


@pytest.mark.parametrize("sampler", [*ONE_AT_LEAST, *REVISERS])
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    prompt=st.lists(st.integers(0, 249) | st.just(MASK), min_size=1, max_size=10),
    length=st.integers(1, 9), block=st.integers(1, 6), k=st.integers(1, 3),
    cache=st.sampled_from(["none", "prefix", "dual"]),
)  # fmt: skip
def test_promises(model, sampler, prompt, length, block, k, cache):
    options = ONE_AT_LEAST | REVISERS
    cache = "none" if sampler == "wino" else cache
    [result] = mdm.decode(
        model, [prompt], sampler, options[sampler], cache=cache, gen_length=length, block_length=block,
        tokens_per_step=k,
    )  # fmt: skip
    canvas = prompt + [MASK] * length
    for line in result.trace:
        masks = [p for p, t in enumerate(canvas) if t == MASK]
        if line["kind"] in ("edit", "remask"):
            assert sampler in REVISERS and not set(line["positions"]) & set(masks)
            assert all(p >= len(prompt) or prompt[p] == MASK for p in line["positions"])
        else:
            assert set(line["positions"]) <= set(masks)
        if sampler in ONE_AT_LEAST:
            assert line["positions"]
        if sampler in SCHEDULED:
            assert len(line["positions"]) <= k
            first = len(prompt) if masks[0] >= len(prompt) else None
            stop = len(prompt) if first is None else first + ((masks[0] - first) // block + 1) * block
            assert all(p < stop for p in line["positions"])
        for p, t in zip(line["positions"], line["tokens"], strict=True):
            canvas[p] = t
    assert canvas == result.sequence and MASK not in canvas
    if sampler == "remdm":
        assert len(result.trace) <= 2 * 3 + len(prompt) + length + 3
    if sampler == "joint-threshold":
        assert result.trace[-1]["step"] < (1 + 3) * (len(prompt) + length)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("sampler", [s for s in [*ONE_AT_LEAST, *REVISERS] if s not in ("margin", "left-to-right")])
def test_a_row_does_not_depend_on_its_neighbours(model, sampler, cache):
    if sampler == "wino" and cache != "none":
        pytest.skip("it needs whole forwards, and is refused by name")
    prompts = [torch.randint(0, 250, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (5, 11, 3)]
    options, shape = (ONE_AT_LEAST | REVISERS)[sampler], {"gen_length": 10, "block_length": 5}

    def essence(result):
        return [(x["step"], x["positions"], x["tokens"], x["kind"]) for x in result.trace], result.rows

    together = mdm.decode(model, prompts, sampler, options, cache=cache, **shape)
    refilled = mdm.decode(model, prompts, sampler, options, cache=cache, batch_size=2, **shape)
    [alone] = mdm.decode(model, prompts[:1], sampler, options, cache=cache, row_ids=[0], **shape)
    assert [essence(r) for r in together] == [essence(r) for r in refilled]
    assert essence(alone) == essence(together[0])


def test_the_page_is_not_stale():
    made = runpy.run_path(str(ROOT / "docs/samplers.py"))
    assert made["PAGE"].read_text() == made["page"](), "run: python docs/samplers.py"
