"""The cache keeps what every cache promises, saves what it is for, and is as exact as it says."""

import pytest
from mdm_interval import Interval, IntervalOptions
from mdm_testing import parametrize_with_checks, toy_model
from mdm_testing.probe import Watched, decode, essence, looking, plain, prompts


@parametrize_with_checks("cache", ["interval"])
def test_conforms(check):
    check()


def interval(every):
    return Interval(IntervalOptions(every=every))


def test_between_two_runs_of_the_canvas_it_runs_the_block():
    run = {}

    class Watching(Interval):
        def plan(self, state, spec):
            plan = super().plan(state, spec)
            run[int(state.step)] = int(plan.query.sum())
            return plan

    decode(toy_model(), prompts(lengths=(5,)), plain(), Watching(IntervalOptions(every=3)), gen_length=8)
    assert [run[step] for step in range(8)] == [13, 4, 4, 13] * 2


@pytest.mark.parametrize("sampler", [plain, looking])
@pytest.mark.parametrize(("attention", "every"), [("full", 1), ("block-causal", 1), ("block-causal", 3)])
def test_it_is_exact_where_it_says_so(sampler, attention, every):
    model = toy_model(attention)
    exact, kept = (decode(model, prompts(), sampler(), cache) for cache in ("none", interval(every)))
    assert list(map(essence, kept)) == list(map(essence, exact))


def test_on_full_attention_the_steps_in_between_are_approximate():
    exact, kept = Watched(plain()), Watched(plain())
    for sampler, cache in ((exact, "none"), (kept, interval(4))):
        decode(toy_model(), prompts(lengths=(5,)), sampler, cache, block_length=4)
    off = [
        float((a.scores.entropy - b.scores.entropy).abs().max())
        for a, b in zip(exact.decided[:2], kept.decided[:2], strict=True)
    ]
    assert off[0] < 1e-3 < off[1]
