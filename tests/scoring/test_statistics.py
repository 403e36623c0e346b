"""Statistics against the plain definitions, and where float32 would round them away."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from mdm.protocols import Draws, top_k
from mdm.protocols.draws import MAX_STEPS_CACHED, NoiseCache, host_keys
from mdm.scoring.statistics import StatsAccumulator, accumulate, statistics
from mdm.scoring.tiles import Scratch, top_two


@given(st.integers(0, 2**31), st.floats(0.1, 30))
def test_statistics_are_the_plain_definitions(seed, spread):
    logits = torch.randn(7, 50, generator=torch.Generator().manual_seed(seed)) * spread
    got = statistics(logits)
    p = logits.double().softmax(-1)
    top = p.topk(2, -1)
    assert torch.equal(got.token, top.indices[:, 0])
    torch.testing.assert_close(got.confidence.double(), top.values[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(got.margin.double(), top.values[:, 0] - top.values[:, 1], atol=1e-6, rtol=0)
    entropy = -(p * logits.double().log_softmax(-1)).sum(-1)
    torch.testing.assert_close(got.entropy.double(), entropy, atol=1e-5, rtol=1e-5)


@given(st.integers(0, 2**31), st.sampled_from([2, 7, 256, 300, 1024, 1536, 2048]), st.integers(1, 40))
def test_the_two_largest_are_found_and_ties_go_to_the_lower_index(seed, width, distinct):
    x = torch.randint(distinct, (10, width), generator=torch.Generator().manual_seed(seed)).float()
    values, indices = top_two(x)
    order = x.sort(dim=-1, descending=True, stable=True)
    assert torch.equal(values, order.values[..., :2])
    assert torch.equal(indices, order.indices[..., :2])


def test_many_rows_of_a_large_vocabulary_are_those_of_each_row():
    logits = torch.randn(11, 100_000, generator=torch.Generator().manual_seed(0)) * 4
    together = statistics(logits, never=int(logits[3].argmax()))
    names = ("token", "confidence", "log_odds", "entropy", "margin", "margin_rank")
    for t in (0, 3, 10):
        alone = statistics(logits[t : t + 1], never=int(logits[3].argmax()))
        for name in names:
            torch.testing.assert_close(getattr(together, name)[t : t + 1], getattr(alone, name), atol=0, rtol=0)


@pytest.mark.parametrize("never", [5, 2048, 3000, 6200])
@pytest.mark.parametrize("second", [9, 2047, 2060, 4100, 6300])
@pytest.mark.parametrize("step", [2048, 4096])
def test_a_vocabulary_added_in_pieces_gives_way_to_the_second_wherever_it_is(never, second, step):
    logits = torch.randn(6, 6400, generator=torch.Generator().manual_seed(never))
    logits[:4, never], logits[:4, second] = 20.0, 19.0
    logits[4, second] = 20.0
    reading = StatsAccumulator(never=never)
    for first in range(0, 6400, step):
        reading.add(logits[:, first : first + step], first)
    got, whole = reading.stats(), statistics(logits, never=never)
    assert got.token.tolist()[:5] == [second] * 5
    assert torch.equal(got.token, whole.token)
    torch.testing.assert_close(got.numbers, whole.numbers)


def test_near_certainty_the_order_is_kept():
    """Rests of 1e-8, 1e-10 and 1e-12: float32 rounds all three confidences to 1."""
    logits = torch.zeros(3, 4)
    logits[:, 1:] = -torch.tensor([[18.0], [23.0], [27.0]])
    got = statistics(logits)
    assert got.confidence.tolist() == [1.0, 1.0, 1.0]
    for key in (got.log_odds, got.margin_rank, -got.entropy):
        assert key.tolist() == sorted(key.tolist())
        assert len(set(key.tolist())) == 3


def test_a_token_never_drawn_keeps_its_probability():
    logits = torch.tensor([[1.0, 5.0, 2.0]])
    got = statistics(logits, never=1)
    assert got.token.tolist() == [2]
    torch.testing.assert_close(got.confidence, logits.softmax(-1)[:, 2])


def test_forbidden_tokens_do_not_spoil_the_entropy():
    logits = torch.tensor([[1.0, -torch.inf, 2.0]])
    torch.testing.assert_close(statistics(logits).entropy, statistics(logits[:, [0, 2]]).entropy)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.data())
def test_top_k_takes_the_best_eligible_and_breaks_ties_by_position(keys, data):
    eligible = data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys)))
    k = data.draw(st.integers(0, 14))
    got = top_k(torch.tensor(keys).float()[None], torch.tensor(eligible)[None], torch.tensor([k]))[0]
    order = sorted((i for i in range(len(keys)) if eligible[i]), key=lambda i: (-keys[i], i))
    assert got.nonzero()[:, 0].tolist() == sorted(order[:k])


def test_draws_are_uniform_and_keyed():
    row, step = torch.arange(64), torch.zeros(64, dtype=torch.long)
    at = torch.arange(100).expand(64, -1)
    draws = Draws(0, row, step)
    u = draws.uniform("a", at)
    assert 0.48 < u.mean() < 0.52 and 0.075 < u.var() < 0.09
    assert torch.equal(u[5:9], draws.rows(torch.arange(5, 9)).uniform("a", at[5:9]))
    for other in (draws.uniform("b", at), draws.uniform("a", at, 1), draws.later().uniform("a", at)):
        assert abs(torch.corrcoef(torch.stack([u.flatten(), other.flatten()]))[0, 1]) < 0.05
    assert not torch.equal(u, Draws(1, row, step).uniform("a", at))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4), st.integers(0, 2**40), st.integers(0, 999))
def test_keys_hashed_on_the_host_are_those_of_the_device(rows, seed, step):
    row, steps = torch.tensor(rows), torch.full((len(rows),), step)
    device = Draws(seed, row, steps)
    host = Draws(seed, row, steps, host_keys([seed] * len(rows), rows, [step] * len(rows)))
    at = torch.arange(3).expand(len(rows), 3)
    for where, candidate in ((at[:, 0], 0), (at, 0), (at, 7), (at[:, None], 2), (at[:, None], range(1, 5))):
        assert torch.equal(device.uniform("a", where, candidate), host.uniform("a", where, candidate))


@pytest.mark.parametrize(("rows", "width"), [(1, 5), (3, 7), (70, 1000)], ids=str)
def test_noise_made_ahead_is_that_of_its_step(rows, width):
    """The last takes too much room, and is made step by step."""
    row, first, start = torch.arange(rows) - 1, torch.arange(rows) * 2, torch.arange(rows) * width
    at = start[:, None] + torch.tensor([0, 2, width - 1])
    coming = NoiseCache(start, width)
    for ahead in [*range(2 * MAX_STEPS_CACHED + 1), 3] if rows < 10 else [0, 1]:
        plain, draws = Draws(9, row, first + ahead), Draws(9, row, first + ahead, noise_cache=coming, step_offset=ahead)
        for purpose, numbers in (("a", range(1, 8)), ("b", range(1, 8)), ("a", range(2)))[: 1 + ahead]:
            assert torch.equal(draws.block_gumbel(purpose, at, numbers), plain.gumbel(purpose, at[:, None], numbers))
    assert (coming.gumbel(draws, "a", at, range(1, 8)) is None) == (rows == 70)


def test_a_token_draw_follows_its_distribution():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    count, temperature = 20000, 0.8
    draws = Draws(0, torch.arange(count), torch.zeros(count, dtype=torch.long))
    keys = draws.token_keys(torch.zeros(count, dtype=torch.long))
    got = statistics(logits.expand(count, -1), temperature=temperature, keys=keys).token
    share = torch.bincount(got, minlength=4) / count
    torch.testing.assert_close(share, (logits / temperature).softmax(-1), atol=0.02, rtol=0)


@pytest.mark.parametrize("vocabulary", [7, 300, 1024, 5000])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_read_is_nothing_scored(vocabulary, temperature):
    keys = torch.zeros(0, dtype=torch.long)
    assert statistics(torch.empty(0, vocabulary), temperature=temperature, keys=keys).token.shape == (0,)


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.sampled_from([1, 40, 200]), st.sampled_from([300, 512, 2500]))
def test_numbers_do_not_depend_on_what_lay_in_the_scratch_before(seed, rows, width):
    random = torch.Generator().manual_seed(seed)
    logits, scratch = torch.randn(rows, width, generator=random) * 9, Scratch()
    best = int(logits[0].argmax())
    for given_before in (torch.full((209, 2048), torch.nan), logits.flip(1), logits):
        [reading] = accumulate(given_before, never=best, scratch=scratch)
        got = reading.stats()
    alone = statistics(logits, never=best)
    for name in ("token", "confidence", "log_odds", "entropy", "tail_odds", "runner_up_odds"):
        assert torch.equal(getattr(got, name), getattr(alone, name)), name


def test_a_broken_logit_shows_beside_forbidden_ones():
    logits = torch.tensor([[1.0, -torch.inf, 2.0], [1.0, torch.nan, -torch.inf]])
    assert statistics(logits).entropy.isnan().tolist() == [False, True]
