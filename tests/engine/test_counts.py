"""What a decode costs beside the model, counted: it may not grow unnoticed."""

from __future__ import annotations

from dataclasses import fields

import mdm
import pytest
from mdm.protocols import State, upload
from mdm_testing.counters import counting
from mdm_testing.probe import prompts
from mdm_testing.toy import EOS, toy_model

SAMPLERS = {
    "confidence": {}, "fastdllm-threshold": {}, "eb": {}, "klass": {}, "remdm": {},
    "joint-threshold": {"max_post_steps": 3},
    "info-gain": {}, "lookum": {"threshold": 0.3}, "info-gain-all": {"candidates": "all"},
}  # fmt: skip

STATE = sum(field.type == "Tensor" for field in fields(State)) + 1
"""Copies to the device as rows come: their state, and for which of them scores are known."""
MEMORY = {"klass": 3, "remdm": 1, "joint-threshold": 3}
"""The same of what samplers remember of rows, and which of these linger."""


def waits(sampler, cache="none", attention="full", **settings):
    """Waits of a decode, and the steps that it takes."""
    counts, steps = counted(sampler, cache, attention, **settings)
    return counts.syncs, steps


def counted(sampler, cache="none", attention="full", **settings):
    """Counts of a decode, and the steps that it takes."""
    model, given = toy_model(attention), prompts()[:2]
    steps = []
    with counting(model) as counts:
        mdm.decode(
            model, given, sampler.removesuffix("-all"), SAMPLERS[sampler], cache=cache, block_length=4,
            on_step=lambda event: steps.append(event.lines), **({"gen_length": 8} | settings),
        )  # fmt: skip
    return counts, sum(any(line["kind"] != "fill" for line in lines) for lines in steps)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("cache", ["none", "prefix", "dual", "block"])
def test_a_step_waits_once_whatever_the_rows_and_layers(sampler, cache):
    """Beside one wait a step, there may be one at the end, for the last trace."""
    syncs, steps = waits(sampler, cache, "block-causal" if cache == "block" else "full")
    assert steps <= syncs <= steps + 1


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("cache", ["none", "prefix", "dual", "block"])
@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.wide), 0.8])
def test_no_copy_to_the_device_waits_and_numbers_that_come_again_stay_there(sampler, cache, temperature):
    attention = "block-causal" if cache == "block" else "full"
    upload._on_device.cache_clear()
    counts, steps = counted(sampler, cache, attention, temperature=temperature)
    assert counts.pageable == 0
    rows_come = STATE + MEMORY.get(sampler, 0)
    assert rows_come < counts.to_device <= rows_come + 3 * steps
    counts, _ = counted(sampler, cache, attention, temperature=temperature)
    assert (counts.to_device, counts.pageable) == (rows_come, 0)


@pytest.mark.parametrize("settings", [{"temperature": 0.8}, {"guidance": 0.5}, {"tokens_per_step": 3}], ids=str)
def test_a_step_waits_once_under_every_setting(settings):
    syncs, steps = waits("info-gain", "dual", **settings)
    assert syncs <= steps + 1


@pytest.mark.parametrize("sampler", ["confidence", "info-gain"])
def test_only_rows_that_come_cost_a_wait_of_their_own(sampler):
    syncs, steps = waits(sampler, "dual", gen_length=[8, 3], batch_size=1)
    assert syncs <= steps + 1


def test_a_stop_at_eos_is_foreseen_where_candidates_agree():
    syncs, steps = waits("info-gain", stop_at_eos=True, eos_token_id=EOS)
    assert syncs <= steps + 1


@pytest.mark.parametrize(("cache", "most"), [("none", 202), ("prefix", 222), ("dual", 217)])
def test_operations_beside_the_model(cache, most):
    """A token of Info-Gain, one row of eight candidates: composite operations as what they are made of."""
    model, given = toy_model(), prompts()[:1]
    with counting(model) as counts:
        mdm.decode(model, given, "info-gain", cache=cache, gen_length=16, block_length=16)
    assert counts.operations / 16 <= most
