"""The head and the pass over its logits, together and apart: the same numbers, the same decodes, no large tensor."""

from __future__ import annotations

from itertools import pairwise

import mdm
import pytest
import torch
from hypothesis import given, strategies as st
from mdm.models import Model
from mdm.protocols import Draws
from mdm.protocols.settings import Settings
from mdm.scoring import readout as readouts
from mdm.scoring.logit_rules import LogitRules
from mdm.scoring.readout import Readout
from mdm.scoring.tiles import TILE
from mdm_bench.shapes import Shape, random_model
from mdm_testing.counters import counting

VOCAB = 2 * TILE + 900
RULES = LogitRules(
    {3: 0.5, TILE: 2.0, VOCAB - 2: -1.0}, (5, TILE + 1), ((0, 700), (TILE - 9, TILE + 40), (4200, VOCAB))
)


@pytest.fixture(scope="module")
def model():
    return random_model(Shape("llada", VOCAB, 16, 1, 2, 2, 32))


def read(model, fused, *, rules=None, count=9, guidance=0.0, temperature=0.0):
    random = torch.Generator().manual_seed(1)
    readout = Readout(
        model, rules or LogitRules(), Settings(guidance=guidance, temperature=temperature), held=True, fused=fused
    )  # fmt: skip
    assert readout.fused == fused
    hidden = torch.randn(count, readout.cfg_branches, 16, generator=random) * 30
    tokens = torch.randint(VOCAB, (3, 4), generator=random)
    row, at = torch.arange(count) % 3, torch.arange(count) % 4
    draws = Draws(0, row, row)
    stats = readout(hidden, tokens, row, at, draws)
    drawn = readout.draw_tokens(hidden, tokens, row, at, draws, torch.arange(1, 3)) if temperature else ()
    return stats, drawn


@pytest.mark.parametrize("head", ["plain", "bias", "tied"])
@pytest.mark.parametrize("rules", [None, RULES])
@pytest.mark.parametrize(("guidance", "temperature"), [(0.0, 0.0), (1.5, 0.0), (0.0, 0.8)])
def test_head_and_pass_together_give_what_they_give_apart(model, head, rules, guidance, temperature):
    lm_head = torch.nn.Linear(16, VOCAB, bias=head == "bias").requires_grad_(False)
    if head == "tied":
        lm_head.weight = model.body.embed_tokens.weight
    model = Model(model.spec, model.body, lm_head)
    how = {"rules": rules, "guidance": guidance, "temperature": temperature}
    (stats, drawn), (apart, drawn_apart) = read(model, True, **how), read(model, False, **how)
    assert torch.equal(stats.token, apart.token)
    for name in ("confidence", "log_odds", "entropy", "margin", "margin_rank", "held"):
        torch.testing.assert_close(getattr(stats, name), getattr(apart, name), rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(drawn, drawn_apart, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_no_rows_are_read_too(model, fused):
    stats, drawn = read(model, fused, count=0, temperature=0.8, rules=RULES)
    assert stats.token.shape == stats.entropy.shape == (0,)
    assert drawn[0].shape == drawn[1].shape == (0, 2)


def test_a_head_that_is_no_plain_matrix_runs_whole(model):
    class Scaled(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    hooked = torch.nn.Linear(16, VOCAB)
    hooked.register_forward_hook(lambda module, given, out: out * 2)
    for head in (Scaled(16, VOCAB), hooked):
        assert not Readout(Model(model.spec, model.body, head), LogitRules(), Settings()).fused
    keep = LogitRules(processors=(lambda ids, logits: logits,))
    assert (
        not Readout(model, keep, Settings()).fused and not Readout(model, LogitRules(), Settings(), logits=True).fused
    )
    assert Readout(model, LogitRules(), Settings()).fused


@given(
    st.dictionaries(st.integers(0, 29), st.floats(-3, 3), max_size=4),
    st.lists(st.integers(0, 29), max_size=4),
    st.none() | st.lists(st.tuples(st.integers(0, 29), st.integers(0, 30)), max_size=3),
    st.lists(st.integers(1, 29), max_size=4),
)
def test_rules_of_parts_are_the_rules_of_the_whole(penalties, suppressed, allowed, cuts):
    rules = LogitRules(penalties, tuple(suppressed), None if allowed is None else tuple(allowed))
    logits = torch.randn(2, 30)
    edges = [0, *sorted(set(cuts)), 30]
    parts = [rules.within(a, b)(logits[:, a:b], None) for a, b in pairwise(edges)]
    assert torch.equal(torch.cat(parts, 1), rules(logits, None))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_together_no_tensor_is_larger_than_a_tile_of_the_rows(model, monkeypatch, temperature):
    monkeypatch.setattr(readouts, "PASS_ELEMENTS", 40 * TILE)
    with torch.inference_mode(), counting(model) as counts:
        read(model, True, count=40, temperature=temperature, rules=RULES)
    assert counts.largest <= 1.2 * 40 * TILE < 40 * VOCAB / 2


SETTINGS = [
    {"cache": "none"}, {"cache": "dual"}, {"cache": "prefix", "guidance": 0.7}, {"cache": "dual", "temperature": 0.9},
    {"cache": "none", "suppressed_tokens": [9, TILE + 3], "allowed_tokens": [(0, 3000), (4100, 4200)]},
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_decode_is_the_same_together_and_apart(model, monkeypatch, settings):
    def decode():
        return [
            (r.sequence, [line["positions"] for line in r.trace])
            for r in mdm.decode(
                model, [[1, 2, 3], [7]], "info-gain", {"candidates": 3}, gen_length=8, block_length=4, **settings
            )
        ]

    together = decode()
    monkeypatch.setattr(Model, "head_is_matrix", False)
    assert together == decode()


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize(("settings", "branches"), [({}, 1), ({"guidance": 0.7}, 2)], ids=str)
def test_the_head_runs_on_what_is_read(family, settings, branches):
    """A block of 4: fresh scores, then every mask weighed while there is a choice; each candidate leaves one less."""
    model = random_model(Shape(family, 300, 16, 1, 2, 2, 32))
    with counting(model) as counts:
        mdm.decode(
            model, [[1, 2, 3]], "info-gain", {"candidates": "all"}, cache="dual", gen_length=4, block_length=4,
            **settings,
        )  # fmt: skip
    assert counts.head_rows == branches * (4 + sum(n * (n - 1) for n in (4, 3, 2)))


@pytest.mark.parametrize("fused", [True, False])
def test_all_draws_of_a_position_take_the_head_once(model, fused):
    readout = Readout(model, LogitRules(), Settings(temperature=0.8), fused=fused)
    rows = torch.arange(5)
    with counting(model) as counts:
        tokens, _ = readout.draw_tokens(
            torch.randn(5, 1, 16), rows[:, None], rows, rows * 0, Draws(0, rows, rows), torch.arange(1, 8)
        )
    assert tokens.shape == (5, 7) and counts.head_rows == 5


@pytest.mark.parametrize("apart", [False, True])
def test_a_dual_lookahead_makes_no_tensor_larger_than_the_logits_it_reads(model, apart, monkeypatch):
    """8 candidates that read 7 masks each; the model itself is small beside its vocabulary."""
    if apart:
        monkeypatch.setattr(Model, "head_is_matrix", False)
    with counting(model) as counts:
        mdm.decode(model, [[1, 2, 3]], "info-gain", {"candidates": 8}, cache="dual", gen_length=8, block_length=8)
    assert counts.largest <= 1.2 * 8 * 7 * VOCAB
