"""d2Cache: the sets of its rule against plain Python, and decodes under it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, strategies as st
from mdm import api
from mdm.errors import MdmError
from mdm_featurecache.d2cache import D2Cache, density, inflated, nucleus
from mdm_testing.counters import counting
from mdm_testing.probe import decode, essence, looking, plain, prompts
from mdm_testing.toy import MASK, toy_model

ALL = {"p": 1.0}
FEW = {"p": 0.0, "k": 1}


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.floats(0.3, 4), st.integers(0, 3))
def test_density_is_the_gaussian_s_share_of_what_is_known(known, sigma, padding):
    canvas = torch.tensor([[True] * len(known) + [False] * padding])
    given_known = torch.tensor([known + [False] * padding])
    far = range(-30, len(known) + 30)
    for at, value in enumerate(density(given_known, canvas, sigma)[0, : len(known)].tolist()):
        weight = {j: math.exp(-((at - j) ** 2) / (2 * sigma**2)) for j in far}
        seen = [w for j, w in weight.items() if j < 0 or known[min(j, len(known) - 1)]]
        assert value == pytest.approx(sum(seen) / sum(weight.values()), abs=1e-5)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=12), st.sampled_from([0, 0.3, 0.6, 1])
)
def test_the_nucleus_is_filled_from_the_top(items, p):
    importance, eligible = (torch.tensor([column]) for column in zip(*items, strict=True))
    left = sorted((i for i, (_, may) in enumerate(items) if may), key=lambda i: -items[i][0])
    total, wanted = sum(items[i][0] for i in left), set(left[:1])
    for n in range(1, len(left) + 1):
        share = sum(items[i][0] for i in left[:n]) / total
        if abs(share - p) < 1e-6 and p < 1:
            return  # a matter of rounding
        wanted |= set(left[:n]) if share <= p else set()
    found = nucleus(importance.float(), eligible, p)[0].nonzero().flatten().tolist()
    assert set(found) == wanted


@given(st.lists(st.booleans(), min_size=1, max_size=16), st.integers(0, 5))
def test_what_lies_close_between_two_is_filled_in(run, width):
    chosen = [i for i, on in enumerate(run) if on]
    wanted = {i for a, b in pairwise(chosen) if b - a <= width for i in range(a, b)} | set(chosen)
    assert set(inflated(torch.tensor([run]), width)[0].nonzero().flatten().tolist()) == wanted


@pytest.mark.parametrize("sampler", [plain, looking])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_to_compute_all_is_no_cache(sampler, shift, guidance):
    model = toy_model(shift=shift)
    none, everything = (
        decode(model, prompts(), sampler(), cache, cache_options=options, guidance=guidance, tokens_per_step=2)
        for cache, options in (("none", None), ("d2cache", ALL))
    )
    assert [essence(r) for r in none] == [essence(r) for r in everything]


SOME = {"p": 0.3, "k": 2, "sigma": 2.0, "inflate_w": 3}


@pytest.mark.parametrize(
    ("sampler", "options", "more"),
    [
        (looking, FEW, {"guidance": 1.5}), (looking, FEW, {"shift": True}), (looking, SOME, {"max_rows": 2}),
        (looking, SOME, {"temperature": 0.7}), (plain, SOME, {"guidance": 1.5}), (plain, SOME, {"shift": True}),
    ],
)  # fmt: skip
def test_rows_of_a_batch_have_their_own_sets(sampler, options, more):
    """Of other lengths, some of them ending while others begin, with a lookahead too."""
    settings = {"cache_options": options} | more
    model, lengths = toy_model(shift=settings.pop("shift", False)), [10, 3, 8, 6]
    together = decode(model, prompts(), sampler(), "d2cache", gen_length=lengths, batch_size=3, **settings)
    assert all(MASK not in result.sequence for result in together)
    for i in (1, 3):
        [alone] = decode(
            model, [prompts()[i]], sampler(), "d2cache", gen_length=lengths[i], row_ids=[i], **settings
        )  # fmt: skip
        assert essence(alone) == essence(together[i])


def test_each_step_runs_what_was_chosen_and_no_more():
    with counting(toy_model()) as counts:
        decode(toy_model(), prompts(lengths=(20,)), plain(), "d2cache", cache_options=FEW, gen_length=8)
    # All; then a mask, what was committed, and one other position.
    assert (counts.model_calls, counts.positions) == (8, 28 + 7 * 3)


def test_masks_of_the_block_come_first_and_then_those_up_to_a_block_s_end():
    ran = []

    class Watching(D2Cache):
        def learn(self, seen, memory):
            masked = seen.before.masked & seen.plan.query
            ran.append([int((masked & (seen.before.blocks == n)).sum()) for n in range(3)])
            return super().learn(seen, memory)

    decode(toy_model(), prompts(lengths=(5,)), plain(), Watching(D2Cache.Options(p=0, k=6)), gen_length=12)
    assert [row[0] for row in ran] == [4, 3, 2, 1, *[0] * 8]
    assert all(sum(row) == min(6, 12 - n) for n, row in enumerate(ran) if n)  # the first step runs all
    # The sixth mask lies in the second block until two masks are left of the first, and so none of the third is run.
    assert [row[2] for row in ran[1:3]] == [0, 0]


def test_what_a_lookahead_does_not_run_counts_as_unknown():
    seen = []

    class Asking(type(looking())):
        def _decide(self, state, scores):
            asking = super()._decide(state, scores)
            answer = yield next(asking)
            seen.append(answer.unscored[0].tolist())
            try:
                asking.send(answer)
            except StopIteration as end:
                return end.value

    sampler = Asking(looking().options)
    decode(toy_model(), prompts(lengths=(5,)), sampler, "d2cache", cache_options=FEW, gen_length=4, block_length=4)
    assert [len(set(step)) for step in seen] == [1] * 4
    assert seen[0][0] == 0  # all is run in the first step
    assert seen[1][0] == 2  # and then one of three


@pytest.mark.parametrize(
    ("attention", "kv", "line"),
    [("block-causal", True, "'d2cache' is for full models"), ("full", False, "'d2cache' needs keys and values")],
)
def test_models_that_it_is_not_for_are_refused(attention, kv, line):
    with pytest.raises(MdmError, match=line):
        decode(toy_model(attention, kv=kv), prompts(), plain(), "d2cache")


@pytest.mark.parametrize("options", [{"p": 1.5}, {"k": 0}, {"sigma": 0.0}, {"inflate_w": -1}, {"current_k": 3}])
def test_options_are_bounded(options):
    with pytest.raises(MdmError, match=next(iter(options))):
        api.decode(toy_model(), prompts(), cache="d2cache", cache_options=options, gen_length=4)


def test_its_name_and_class_are_one():
    assert D2Cache.Options().model_dump() == {"p": 0.1, "k": 32, "sigma": 10.0, "inflate_w": 0}
