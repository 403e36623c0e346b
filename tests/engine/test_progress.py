"""A sampler that gets nowhere is named; one that lingers, looks ahead or waits for a step of zero is not."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.protocols import BaseSampler, Commit, Evaluate, NoOptions, top_k
from mdm_testing.toy import MASK, toy_model


class Idle(BaseSampler):
    """Commits nothing."""

    def decide(self, state, scores, memory, draws):
        return Commit(scores.valid & False, scores.token)


class Undoes(BaseSampler):
    """Commits a token and masks it again, for ever."""

    works_on = "canvas"
    reads = "generated"
    pace = "own"

    def decide(self, state, scores, memory, draws):
        first = scores.positions == state.prompt_length[:, None]
        masked = state.masked.gather(1, scores.positions)
        return Commit(first & scores.valid, torch.where(masked, scores.token, state.mask_id))


class LooksOnly(BaseSampler):
    """Looks ahead in every step, and commits nothing."""

    def decide(self, state, scores, memory, draws):
        where = top_k(scores.log_odds, scores.valid, state.budget)[:, None]
        yield Evaluate(Commit(where, scores.token[:, None]), where.any(-1))
        return Commit(scores.valid & False, scores.token)


class Waits(BaseSampler):
    """Keeps to the budget, which may be zero."""

    def decide(self, state, scores, memory, draws):
        return Commit(top_k(scores.log_odds, scores.valid, state.budget), scores.token)


class Lingers(BaseSampler):
    """Fills its block at once, then replaces one token in each of three more steps before it goes on."""

    reads = "generated"
    pace = "own"

    def decide(self, state, scores, memory, draws):
        masked = state.masked.gather(1, scores.positions)
        last = scores.positions == state.block_bounds[:, 1:] - 1
        where = torch.where(masked.any(1, keepdim=True), masked, last & (state.block_step[:, None] <= 3))
        return Commit(where & scores.valid, torch.where(masked, scores.token, (scores.token + 1) % 250))

    def lingers(self, state, memory):
        return (state.block_step < 3) & ~state.masked_in_block.any(1)


@pytest.mark.parametrize("row_ids", [[0], [7]])
def test_a_sampler_that_commits_nothing_is_named(row_ids):
    with pytest.raises(
        mdm.MdmError, match=f"sampler Idle gets nowhere: step 1 of row {row_ids[0]} was to commit 1 of 4"
    ):
        mdm.decode(toy_model(), ["hi"], Idle(NoOptions()), gen_length=4, row_ids=row_ids)


def test_one_idle_row_is_enough_and_every_cache_notices():
    class OneIdle(Waits):
        def decide(self, state, scores, memory, draws):
            commit = super().decide(state, scores, memory, draws)
            return Commit(commit.where & (state.row_id != 1)[:, None], commit.tokens)

    for cache in ("none", "prefix", "dual"):
        with pytest.raises(mdm.MdmError, match="OneIdle gets nowhere: step 1 of row 1"):
            mdm.decode(toy_model(), ["hi", "ho", "ha"], OneIdle(NoOptions()), gen_length=4, cache=cache)


@pytest.mark.parametrize("sampler", [Undoes])
def test_the_steps_of_a_block_are_bounded(sampler):
    with pytest.raises(
        mdm.MdmError, match=rf"{sampler.__name__} gets nowhere: row 0 has spent \d+ steps in a block of 2"
    ):
        mdm.decode(toy_model(), ["hi"], sampler(NoOptions()), gen_length=2)


def test_a_sampler_that_only_looks_ahead_is_named():
    with pytest.raises(mdm.MdmError, match="LooksOnly gets nowhere: .* in the last 16 steps, though it looked ahead"):
        mdm.decode(toy_model(), ["hi"], LooksOnly(NoOptions()), gen_length=2)


def test_steps_of_zero_are_legal():
    [result] = mdm.decode(toy_model(), ["hi"], Waits(NoOptions()), gen_length=4, steps=12, schedule="dream")
    assert MASK not in result.sequence
    assert any(not line["positions"] for line in result.trace)


def test_a_row_may_linger_in_a_block_without_masks():
    [result] = mdm.decode(toy_model(), ["hi"], Lingers(NoOptions()), gen_length=8, block_length=4, tokens_per_step=4)
    kinds = [(line["step"], line["kind"], line["positions"]) for line in result.trace if line["positions"]]
    assert kinds == [
        (0, "commit", [2, 3, 4, 5]), (1, "edit", [5]), (2, "edit", [5]), (3, "commit", [6, 7, 8, 9]),
        (4, "edit", [9]), (5, "edit", [9]),
    ]  # fmt: skip
    paid = sum(sum(line["entropy"]) for line in result.trace if line["kind"] == "commit")
    assert result.cumulative_entropy == pytest.approx(paid)
