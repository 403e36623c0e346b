"""What published recipes do to logits: top-p and top-k, certainties after the temperature, end tokens ranked last."""

from __future__ import annotations

import math
from dataclasses import replace

import mdm
import pytest
import torch
from hypothesis import given, strategies as st
from mdm.errors import MdmError
from mdm.models import Model
from mdm.protocols import Draws
from mdm.protocols.draws import token_gumbel
from mdm.protocols.settings import Settings, check_settings
from mdm.scoring.logit_rules import LogitRules
from mdm.scoring.readout import Readout
from mdm.scoring.statistics import statistics
from mdm.scoring.truncation import truncate
from mdm_bench.shapes import Shape, random_model

SIZE = 2200
"""A vocabulary of more than one tile."""


@pytest.fixture(scope="module")
def model():
    return random_model(Shape("dream", SIZE, 16, 1, 2, 2, 32))


def published(logits, temperature, top_p, top_k):
    """Dream's order of operations: temperature, top-p, top-k, softmax; one row after the other, in float64."""
    rows = []
    for row in (logits / (temperature or 1.0)).double():
        order = row.argsort(descending=True, stable=True)
        cumulative = row.softmax(-1)[order].cumsum(-1).tolist()
        kept = [i for i in range(len(row)) if i == 0 or top_p == 1 or cumulative[i - 1] <= top_p]
        kept = kept[: top_k or len(kept)]
        rows.append(torch.full_like(row, -torch.inf).scatter(0, order[kept], row[order[kept]]))
    return torch.stack(rows)


@given(
    st.integers(0, 2**31), st.sampled_from([0.05, 0.5, 0.9, 0.95, 1.0]), st.none() | st.integers(1, 40),
    st.sampled_from([0.1, 0.7, 1.0, 3.0]), st.sampled_from([3, 60, 90, 300]),
)  # fmt: skip
def test_truncation_keeps_what_the_published_order_keeps(seed, top_p, top_k, temperature, width):
    logits = torch.randn(4, width, generator=torch.Generator().manual_seed(seed)) * 2
    got = truncate(logits, temperature=temperature, top_p=top_p, top_k=top_k)
    assert torch.equal(got > -torch.inf, published(logits, temperature, top_p, top_k) > -torch.inf)
    assert torch.equal(got[got > -torch.inf], logits[got > -torch.inf])


def test_equals_of_the_last_token_stay_and_the_mask_never_stays_alone():
    logits = torch.tensor([[3.0, 1.0, 1.0, 0.0], [0.0, 9.0, 1.0, 1.0]])
    assert truncate(logits, top_k=2).isfinite().tolist() == [[True, True, True, False], [False, True, True, True]]
    alone = truncate(logits, top_p=0.1, never=1)
    assert alone.isfinite().tolist() == [[True, False, False, False], [False, True, True, True]]
    assert statistics(alone, never=1).token.tolist() == [0, 2]


def test_a_row_of_nan_is_still_one():
    logits = torch.randn(3, 100)
    logits[1, 7] = torch.nan
    assert statistics(truncate(logits, top_p=0.5)).confidence.isnan().tolist() == [False, True, False]


def with_ends(model, ends):
    return Model(replace(model.spec, eos_ids=tuple(ends)), model.body, model.lm_head)


def read(model, settings, *, eos_ids=(), fused=None, count=12, candidates=0):
    random = torch.Generator().manual_seed(3)
    readout = Readout(model, LogitRules({9: 1.0}, (11,)), settings, eos_ids, held=True, fused=fused)
    hidden = torch.randn(count, readout.cfg_branches, 16, generator=random) * 40
    tokens = torch.randint(SIZE, (3, 4), generator=random)
    row, at = torch.arange(count) % 3, torch.arange(count) % 4
    draws = Draws(0, torch.arange(count), row)
    if candidates:
        return readout.draw_tokens(hidden, tokens, row, at, draws, torch.arange(candidates))
    logits = LogitRules({9: 1.0}, (11,))(readout._merge_branches(model.head(hidden.flatten(0, 1))), None)
    return logits, draws.token_keys(at[:, None]), readout(hidden, tokens, row, at, draws)


GRID = [
    {"temperature": t, "top_p": p, "top_k": k, "score_after": after, "guidance": guidance}
    for t in (0.0, 0.1, 1.3) for p, k in ((1.0, None), (0.9, None), (0.6, 5), (1.0, 3)) for after in ("raw", "tempered")
    for guidance in (0.0, 0.5) if t > 0 or (after == "tempered") == (p < 1 or k is not None)
]  # fmt: skip


@pytest.mark.parametrize("options", GRID, ids=str)
def test_certainties_are_of_the_distribution_that_was_asked_for(model, options):
    """Tokens are those of the published order in either case; what they are drawn with is keyed noise."""
    settings = check_settings(options)
    logits, keys, stats = read(model, settings)
    drawn_from = published(logits, settings.temperature, settings.top_p, settings.top_k)
    drawn_from[:, model.spec.mask_id] = -torch.inf
    noise = token_gumbel(keys, torch.arange(SIZE)) if settings.temperature else 0.0
    token = (drawn_from + noise).argmax(-1)
    assert torch.equal(stats.token, token)
    scored = logits.double()
    if settings.tempered:
        scored = published(logits, settings.temperature, settings.top_p, settings.top_k)
    p = scored.softmax(-1)
    entropy = -(p * p.log().nan_to_num(neginf=0.0)).sum(-1)
    top = p.topk(2, -1).values
    torch.testing.assert_close(stats.confidence.double(), p.gather(1, token[:, None])[:, 0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(stats.entropy.double(), entropy, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(stats.margin.double(), top[:, 0] - top[:, 1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rank", ["as-scored", "last"])
@pytest.mark.parametrize("options", GRID, ids=str)
def test_all_ways_of_reading_give_the_same(model, options, rank):
    """Fused or apart (where logits of a whole row are needed both are apart), and draws for many candidates."""
    settings, ends = check_settings({**options, "eos_rank": rank}), (5, SIZE - 1)
    ways = [read(model, settings, eos_ids=ends, fused=fused)[2] for fused in (None, False)]
    assert torch.equal(ways[0].token, ways[1].token)
    torch.testing.assert_close(ways[0].numbers, ways[1].numbers, atol=2e-4, rtol=2e-4)
    if settings.temperature:
        tokens, confidences = read(model, settings, eos_ids=ends, candidates=3)
        first = read(model, settings, eos_ids=ends)[2]
        assert tokens.shape == (12, 3)
        settled = ~torch.isin(first.token, torch.tensor(ends))
        assert torch.equal(tokens[:, 0], first.token)
        torch.testing.assert_close(confidences[settled, 0], first.confidence[settled], atol=1e-5, rtol=1e-3)
        assert not confidences[~settled, 0].any()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_end_tokens_are_chosen_as_ever_and_count_as_nothing(model, temperature, fused):
    """LLaDA's rule: -inf before the softmax of the confidences, after the tokens were chosen."""
    ends = tuple(range(0, SIZE, 3))
    _, _, plain = read(model, Settings(temperature=temperature), fused=fused)
    logits, _, last = read(model, Settings(temperature=temperature, eos_rank="last"), eos_ids=ends, fused=fused)
    assert torch.equal(plain.token, last.token)
    is_end = torch.isin(last.token, torch.tensor(ends))
    assert 0 < is_end.sum() < len(is_end)
    logits[:, list(ends)] = -torch.inf
    p = logits.softmax(-1)
    torch.testing.assert_close(last.confidence, p.gather(1, last.token[:, None])[:, 0], atol=1e-6, rtol=1e-4)
    others = ~is_end
    entropy = -(p * p.log().nan_to_num(neginf=0.0)).sum(-1)
    torch.testing.assert_close(last.entropy[others], entropy[others], atol=1e-5, rtol=1e-4)
    # Whatever a sampler ranks by, an end token comes behind everything else.
    for key in (last.confidence, last.log_odds, -last.entropy, last.margin, last.margin_rank):
        assert key[is_end].max() < key[others].min()
    torch.testing.assert_close(last.entropy[is_end], torch.full_like(last.entropy[is_end], math.log(SIZE)))


def test_where_only_end_tokens_can_be_chosen_nothing_is_nan(model):
    settings = Settings(temperature=0.5, top_k=2, score_after="tempered", eos_rank="last")
    _, _, stats = read(model, settings, eos_ids=tuple(range(SIZE)))
    assert stats.numbers.isfinite().all() and not stats.confidence.any()


def dream_by_hand(model, prompt, length, temperature, top_p, top_k):
    """One token a step, the position of least entropy first; the plain loop of the published code, without a cache."""
    spec = model.spec
    canvas = torch.tensor([[*prompt, *[spec.mask_id] * length]])
    order, entropies = [], []
    for step in range(length):
        hidden = model.hidden(canvas, torch.arange(canvas.shape[1])[None])
        logits = model.head(hidden)[0]
        if spec.shift:
            logits = torch.cat([logits[:1], logits[:-1]])
        masked = (canvas[0] == spec.mask_id).nonzero()[:, 0]
        kept = published(logits[masked], temperature, top_p, top_k)
        p = kept.softmax(-1)
        entropy = -(p * p.log().nan_to_num(neginf=0.0)).sum(-1)
        draws = Draws(0, torch.zeros_like(masked), torch.full_like(masked, step))
        kept[:, spec.mask_id] = -torch.inf
        noise = token_gumbel(draws.token_keys(masked[:, None]), torch.arange(SIZE)) if temperature else 0.0
        at = int(entropy.argmin())
        canvas[0, masked[at]] = (kept + noise).argmax(-1)[at]
        order.append(int(masked[at]))
        entropies.append(float(entropy[at]))
    return canvas[0].tolist(), order, entropies


@pytest.mark.parametrize(("temperature", "top_p", "top_k"), [(0.1, 0.9, None), (0.0, 0.95, None), (0.7, 0.95, 20)])
@pytest.mark.parametrize("family", ["dream", "llada"])
def test_a_decode_in_dreams_order_is_the_published_loop(family, temperature, top_p, top_k):
    model = random_model(Shape(family, SIZE, 16, 2, 2, 2, 32))
    head = torch.nn.Linear(16, SIZE, bias=False).requires_grad_(False)
    head.weight.normal_(generator=torch.Generator().manual_seed(5)).mul_(2)  # some distributions are sharp then
    model = Model(model.spec, model.body, head)
    by_hand = dream_by_hand(model, [1, 2, 3], 10, temperature, top_p, top_k)
    [result] = mdm.decode(
        model, [[1, 2, 3]], "entropy", cache="none", gen_length=10, block_length=10, temperature=temperature,
        top_p=top_p, top_k=top_k, score_after="tempered",
    )  # fmt: skip
    assert (result.sequence, [line["positions"][0] for line in result.trace]) == by_hand[:2]
    assert [line["entropy"][0] for line in result.trace] == pytest.approx(by_hand[2], abs=1e-3)


@pytest.mark.parametrize("sampler", ["confidence", "entropy", "margin", "info-gain"])
def test_end_tokens_come_last_unless_nothing_else_is_left(sampler, model):
    ends = range(0, SIZE, 2)
    endless = with_ends(model, ends)
    options = {"cache": "none", "gen_length": 24, "block_length": 24, "allowed_tokens": [(0, 40)]}
    [result] = mdm.decode(endless, [[1, 2, 3]], sampler, eos_rank="last", **options)
    assert len(result.trace) == 24 and any(token in ends for token in result.tokens)
    # A step that commits an end token has nothing else to commit: all masks would have become end tokens.
    first = next(i for i, line in enumerate(result.trace) if line["tokens"][0] in ends)
    plain = mdm.decode(endless, [[1, 2, 3]], sampler, **options)[0]
    assert first > next(i for i, line in enumerate(plain.trace) if line["tokens"][0] in ends)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"top_p": 0.9}, "top_p changes nothing at temperature 0"),
        ({"top_k": 4}, "top_k changes nothing at temperature 0"),
        ({"score_after": "tempered"}, "score_after tempered changes nothing at temperature 0"),
        ({"top_p": 0.0, "temperature": 1.0}, "top_p"),
        ({"top_p": 1.1, "temperature": 1.0}, "top_p"),
        ({"top_k": 0, "temperature": 1.0}, "top_k"),
        ({"eos_rank": "first"}, "eos_rank"),
    ],
)
def test_what_changes_nothing_is_refused(options, culprit):
    with pytest.raises(MdmError, match=culprit):
        check_settings(options)


def test_the_rank_of_end_tokens_needs_some(model):
    with pytest.raises(MdmError, match="eos_rank: this dream model has no end token"):
        mdm.decode(with_ends(model, ()), [[1]], "confidence", gen_length=2, eos_rank="last")


@pytest.mark.parametrize("sampler", ["random", "left-to-right"])
def test_a_sampler_that_does_not_rank_by_certainty_refuses_a_rank(model, sampler):
    with pytest.raises(MdmError, match=f"eos_rank last does not apply to {sampler}"):
        mdm.decode(with_ends(model, [5]), [[1]], sampler, gen_length=2, eos_rank="last")


def test_the_likeliest_token_alone_is_the_greedy_decode(model):
    greedy = mdm.decode(model, [[1, 2, 3]], "confidence", gen_length=8)[0]
    for more in ({"top_p": 1e-6}, {"top_k": 1}):
        drawn = mdm.decode(model, [[1, 2, 3]], "confidence", gen_length=8, temperature=1.0, **more)[0]
        assert (drawn.tokens, drawn.trace) == (greedy.tokens, greedy.trace)
