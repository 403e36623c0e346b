"""What MaskGIT ranks masks by, step for step."""

from __future__ import annotations

import math
from dataclasses import replace

import mdm
import pytest
import torch
from mdm.protocols import Draws
from mdm_greedy.maskgit import MaskGIT, MaskGITOptions
from mdm_testing.toy import toy_model

PROMPTS = [[3, 14, 15, 9, 2, 6, 5], [8, 9, 7], [1, 2, 3, 4, 5]]
LENGTHS = [12, 5, 9]


class Watched(MaskGIT):
    """Notes what it saw and committed in each step."""

    def __init__(self, options: MaskGITOptions) -> None:
        super().__init__(options)
        self.seen = []

    def decide(self, state, scores, memory, draws):
        commit = super().decide(state, scores, memory, draws)
        self.seen.append((state, scores, draws, commit))
        return commit


def share(anneal: str, step: int, steps: int) -> float:
    left = [1 - j / steps for j in range(1, step + 1)]
    return {"none": 1.0, "linear": left[-1], "published": math.prod(left)}[anneal]


@pytest.mark.parametrize("schedule", ["even", "maskgit"])
@pytest.mark.parametrize("anneal", ["published", "linear", "none"])
def test_a_step_commits_the_best_by_log_p_and_noise(anneal, schedule):
    """Each row by its own step of its own block: rows are in steps and blocks of different lengths."""
    sampler = Watched(MaskGITOptions(rank_temperature=0.7, anneal=anneal))
    mdm.decode(
        toy_model(), PROMPTS, sampler, gen_length=LENGTHS, block_length=5, tokens_per_step=2, temperature=0.8,
        schedule=schedule, batch_size=2,
    )  # fmt: skip
    factors = set()
    for state, scores, draws, commit in sampler.seen:
        noise = draws.gumbel("rank", scores.positions)
        for row in range(len(state.step)):
            valid, budget = scores.valid[row], int(state.budget[row])
            t = 0.7 * share(anneal, int(state.block_step[row]) + 1, int(state.planned[row]))
            factors.add(round(t, 6))
            key = scores.confidence[row].double().log() + t * noise[row] if t else scores.log_odds[row]
            best = key.masked_fill(~valid, -torch.inf).topk(min(budget, int(valid.sum()))).indices
            assert set(commit.where[row].nonzero()[:, 0].tolist()) == set(best.tolist())
    assert len(factors) > 2 or anneal == "none"
    assert (0.0 in factors) == (anneal != "none"), "the last step of a block has no noise, unless it never falls"


def test_without_a_rank_temperature_it_is_confidence():
    plain, ranked = (
        mdm.decode(toy_model(), PROMPTS, name, options, gen_length=12, tokens_per_step=2, schedule="maskgit")
        for name, options in (("confidence", {}), ("maskgit", {"rank_temperature": 0}))
    )
    assert [r.trace for r in plain] == [r.trace for r in ranked]


def test_the_rank_temperature_leaves_the_token_draw_alone():
    """Greedy tokens under ranking noise are the likeliest ones: in the first step those of the confidence sampler."""
    [plain] = mdm.decode(toy_model(), PROMPTS[:1], "confidence", gen_length=12, steps=1)
    firsts = set()
    for seed in range(4):
        [ranked] = mdm.decode(toy_model(), PROMPTS[:1], "maskgit", gen_length=12, steps=6, seed=seed)
        line = ranked.trace[0]
        assert [plain.sequence[p] for p in line["positions"]] == line["tokens"]
        firsts.add(tuple(line["positions"]))
    assert len(firsts) > 1


def test_noise_does_not_lift_a_token_that_counts_as_uncertain():
    """An end token waits, as ``eos_rank`` asks, at any rank temperature."""
    sampler = Watched(MaskGITOptions(rank_temperature=1e4, anneal="none"))
    mdm.decode(toy_model(), PROMPTS[:1], sampler, gen_length=6, steps=6)
    state, scores, _, _ = sampler.seen[0]
    numbers = scores.numbers.clone()
    numbers[0, 1, 0], numbers[0, 1, 1] = 0.0, -90.0
    for seed in range(5):
        draws = Draws(seed, state.row_id, state.step)
        commit = sampler.decide(
            state.replace(budget=scores.valid.sum(1) - 1), replace(scores, numbers=numbers), sampler.begin(state), draws
        )
        assert not commit.where[0, 1] and commit.where[0].sum() == 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rank_temperature": -1}, "rank_temperature=-1: should be greater than or equal to 0"),
        ({"rank_temperature": float("inf")}, "rank_temperature=inf: should be a finite number"),
        ({"anneal": "cosine"}, "anneal=cosine: should be 'published', 'linear' or 'none'"),
        ({"temperature": 1}, "temperature"),
    ],
)
def test_bad_options_are_named(options, says):
    with pytest.raises(mdm.MdmError, match=says):
        mdm.decode(toy_model(), PROMPTS, "maskgit", options, gen_length=4)
