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


def test_what_was_filled_behind_an_end_token_goes_with_it():
    """Tokens stand behind the first end token only where the model put them before it; else they are end tokens."""
    model, end, taken = toy_model(), None, 0
    given = [[n, 2, 3] for n in range(6)]
    for result in mdm.decode(model, given, "remdm", {"loop_steps": 4, "init_unmask_ratio": 0.4}, gen_length=10):
        end = result.trace[0]["tokens"][0]
        [row] = mdm.decode(
            model, [result.sequence[:3]], "remdm", {"loop_steps": 4, "init_unmask_ratio": 0.4}, gen_length=10,
            stop_at_eos=True, eos_token_id=end, row_ids=[0],
        )  # fmt: skip
        canvas, fills = [*result.sequence[:3], *[model.spec.mask_id] * 10], set()
        for line in row.trace:
            for position, token in zip(line["positions"], line["tokens"], strict=True):
                canvas[position] = token
            if line["kind"] == "remask":
                taken += len(fills & set(line["positions"])) > 0
            fills = fills - set(line["positions"]) | (set(line["positions"]) if line["kind"] == "fill" else set())
            ends = [position for position, token in enumerate(canvas) if position > 2 and token == end]
            assert not fills or min(ends) < min(fills), "a fill stands where no end token is before it"
        assert canvas == row.sequence and model.spec.mask_id not in canvas
    assert taken
