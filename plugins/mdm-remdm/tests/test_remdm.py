"""ReMDM commits and re-masks as many tokens a step as it is told, whatever the schedule says."""

from __future__ import annotations

import mdm
import pytest
from mdm_testing import toy_model


def test_it_sets_its_own_pace():
    [result] = mdm.decode(toy_model(), [[1, 2, 3]], "remdm", {"unmask_k": 4}, gen_length=16)
    assert max(len(line["positions"]) for line in result.trace) == 4
    assert mdm.registry.resolve("sampler", "remdm").pace == "own"


def test_a_canvas_of_one_mask_has_nothing_to_take_back_at_first():
    [result] = mdm.decode(toy_model(), [[1, 2, 3]], "remdm", {"loop_steps": 3}, gen_length=1)
    assert all(line["positions"] == [3] for line in result.trace)
    assert len(result.trace) == 5  # decoded, and twice taken back and decoded anew


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_a_token_that_is_masked_behind_an_end_token_is_no_standstill(temperature):
    """It is filled in again at once, so that as many masks are left as before."""
    model = mdm.load_model("tiny", device="cpu")
    for seed in range(20):
        results = mdm.decode(
            model, ["1+1=", "12+3="], "remdm", gen_length=12, seed=seed, temperature=temperature, eos_token_id=3,
            stop_at_eos=True,
        )  # fmt: skip
        assert all(model.spec.mask_id not in result.tokens for result in results)
