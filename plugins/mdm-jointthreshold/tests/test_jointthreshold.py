"""joint-threshold: its rule step by step, rows that diverge, budgets, and what a temperature edits by what."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm_jointthreshold import JointThreshold, JointThresholdOptions
from mdm_testing import toy_model
from mdm_testing.probe import Watched, essence, prompts
from mdm_testing.toy import MASK

PROMPTS = prompts(250, (5, 11, 3, 8, 1, 6, 14, 2))
LENGTHS = [8, 6, 12, 3, 9, 8, 4, 10]
SHAPE = {"gen_length": LENGTHS, "block_length": 4}
SPEED = {"threshold": 0.5, "edit_threshold": 0.0}


def edits(results):
    """How many tokens were replaced in each result."""
    return [sum(len(x["positions"]) for x in result.trace if x["kind"] == "edit") for result in results]


@pytest.mark.parametrize(
    ("attention", "cache", "exact"),
    [("full", "none", True), ("block-causal", "none", True), ("block-causal", "block", True), ("full", "dual", False)],
)
@pytest.mark.parametrize("more", [{}, {"temperature": 0.6}])
def test_eight_rows_edit_each_as_it_does_alone(attention, cache, exact, more):
    """Of other lengths and in other blocks, some making room for others; under a cache that is exact as without one."""
    model, options = toy_model(attention), {"max_post_steps": 5}
    together = mdm.decode(model, PROMPTS, "joint-threshold", options, cache, batch_size=5, **SHAPE, **more)
    assert min(edits(together)) > 0 and sum(edits(together)) > 100
    for i, prompt in enumerate(PROMPTS):
        shape = SHAPE | {"gen_length": LENGTHS[i], "row_ids": [i]}
        alone_under = "none" if exact else cache
        [alone] = mdm.decode(model, [prompt], "joint-threshold", options, alone_under, **shape, **more)
        assert essence(alone) == essence(together[i]) and alone.forwards == together[i].forwards
        assert alone.cumulative_entropy == pytest.approx(together[i].cumulative_entropy, abs=1e-4)


@pytest.mark.parametrize("options", [{}, SPEED, {"min_tokens": 3, "max_post_steps": 1}, {"threshold": 1.0}])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_step_is_the_rule(options, temperature):
    """Recomputed from the canvas and the scores of each step; with a temperature the drawn token commits and edits."""
    rule = JointThresholdOptions(**options)
    watched = Watched(JointThreshold(rule))
    mdm.decode(toy_model(), PROMPTS[:3], watched, gen_length=[6, 4, 3], block_length=4, temperature=temperature)
    drawn = 0
    for seen in watched.decided:
        for b in range(len(seen.state.step)):
            at = seen.scores.positions[b][seen.scores.valid[b]].tolist()
            token, sure = (x[b][: len(at)].tolist() for x in (seen.scores.token, seen.scores.confidence))
            stands = [seen.state.tokens[b, i].item() for i in at]
            masks = [n for n, t in enumerate(stands) if t == MASK]
            commit = [n for n in masks if sure[n] > rule.threshold]
            if len(commit) < rule.min_tokens:
                commit = sorted(masks, key=lambda n: -seen.scores.log_odds[b, n].item())[: rule.min_tokens]
            edit = [
                n for n in range(len(at)) if n not in masks and token[n] != stands[n] and sure[n] > rule.edit_threshold
            ]
            named = seen.commit.where[b].nonzero().flatten().tolist()
            assert named == sorted(commit + edit)
            assert [seen.commit.tokens[b, n].item() for n in named] == [token[n] for n in named]
            drawn += sum(sure[n] < 0.3 for n in named)
    assert drawn or not temperature or rule.edit_threshold


def test_a_block_is_left_when_a_step_changes_nothing_or_the_budget_is_spent():
    def after(options):
        """Steps that began without masks, in the one block."""
        [result] = mdm.decode(toy_model(), PROMPTS[:1], "joint-threshold", options, gen_length=4, block_length=4)
        last = max(line["step"] for line in result.trace if line["kind"] == "commit" and line["positions"])
        return result.trace[-1]["step"] - last, result.trace[-1]

    for budget in (0, 1, 3):
        assert after(SPEED | {"max_post_steps": budget})[0] == budget
    steps, line = after({"edit_threshold": 1.0})
    assert steps == 1 and not line["positions"] and line["forwards"] == 1  # one forward looks once more
    assert mdm.registry.resolve("sampler", "joint-threshold").pace == "own"


@pytest.mark.parametrize(("cache", "options"), [("none", {}), ("prefix", SPEED), ("dual", SPEED)])
def test_an_answer_ends_where_a_finished_block_ends_it(options, cache):
    """No token is filled in behind an end token that is edited later, and none is decoded behind one that stays."""
    model, given, options = toy_model(), PROMPTS[:4], options | {"max_post_steps": 4}
    shape = SHAPE | {"gen_length": LENGTHS[:4]}
    plain = mdm.decode(model, given, "joint-threshold", options, cache, **shape)
    filled = 0
    for end in {result.tokens[1] for result in plain}:
        results = mdm.decode(
            model, given, "joint-threshold", options, cache, stop_at_eos=True, eos_token_id=end, **shape
        )
        for result, free, prompt in zip(results, plain, given, strict=True):
            lines = [line for line in result.trace if line["positions"]]
            fills = [line for line in lines if line["kind"] == "fill"]
            blocks = [free.tokens[i : i + 4] for i in range(0, len(free.tokens), 4)]
            first = next((n for n, block in enumerate(blocks) if end in block), len(blocks))
            kept = 4 * (first + 1)
            assert result.tokens == free.tokens[:kept] + [end] * (len(free.tokens) - kept)
            assert len(fills) == (len(free.tokens) > kept)
            assert not fills or (lines[-1] is fills[0] and fills[0]["positions"][0] == len(prompt) + kept)
            filled += len(fills)
    assert filled


def test_guidance_and_rules_apply_to_edits():
    model, banned = toy_model(), [token for token in range(0, 259, 2) if token != MASK]
    results = mdm.decode(
        model, PROMPTS, "joint-threshold", suppressed_tokens=banned, guidance=0.7, eos_rank="last", **SHAPE
    )
    assert min(edits(results)) > 0
    assert all(token % 2 for result in results for line in result.trace for token in line["tokens"])


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.1}, {"edit_threshold": -0.1}, {"max_post_steps": 101}, {"min_tokens": 0}]
)
def test_options_out_of_their_range_are_refused(wrong):
    with pytest.raises(mdm.MdmError, match=next(iter(wrong))):
        mdm.decode(toy_model(), PROMPTS[:1], "joint-threshold", wrong, gen_length=2)


def test_the_longest_budget_is_within_the_engines():
    options = SPEED | {"max_post_steps": 100}
    [result] = mdm.decode(toy_model(), PROMPTS[:1], "joint-threshold", options, gen_length=1, block_length=1)
    assert len(result.tokens) == 1 and torch.tensor(result.tokens).lt(MASK).all()
