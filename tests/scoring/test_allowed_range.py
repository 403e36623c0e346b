"""The head runs on the range of the allowed tokens alone, and nothing but the cost shows it."""

from __future__ import annotations

import math
from dataclasses import replace

import mdm
import pytest
import torch
from mdm.models import Model
from mdm.protocols import Draws
from mdm.protocols.settings import Settings
from mdm.scoring.logit_rules import LogitRules
from mdm.scoring.readout import Readout
from mdm.scoring.tiles import TILE
from mdm_bench.shapes import Shape, random_model
from mdm_testing.counters import counting

VOCAB = 2 * TILE + 900
RANGES = {
    "start": ((0, 700),), "end": ((VOCAB - 64, VOCAB),), "one token": ((TILE + 7, TILE + 8),),
    "a tile": ((TILE, 2 * TILE),), "over a tile": ((TILE - 1, 2 * TILE + 1),), "two": ((9, 40), (TILE - 5, TILE + 5)),
}  # fmt: skip
END = 20
SETTINGS = [
    {}, {"temperature": 0.8}, {"guidance": 1.5, "temperature": 0.8}, {"temperature": 0.8, "top_p": 0.7},
    {"temperature": 0.8, "top_k": 3, "score_after": "tempered"}, {"eos_rank": "last"}, {"guidance": 0.7},
]  # fmt: skip


@pytest.fixture(scope="module")
def model():
    made = random_model(Shape("llada", VOCAB, 16, 1, 2, 2, 32))
    made.lm_head.weight.data *= 60  # its logits are next to equal: no two candidates would differ by more than rounding
    return made


def rules_of(allowed):
    """With a token suppressed and one penalised, inside and outside of the range where there is room."""
    start = allowed[0][0]
    wide = allowed[-1][1] - start > 8
    inside = {start + 1: 0.5, start + 3: -0.7} if wide else {start: 0.5}
    return LogitRules({**inside, (start + 3000) % VOCAB: 2.0}, ((start + 4000) % VOCAB, *([start + 2] if wide else [])),
                      allowed)  # fmt: skip


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("allowed", RANGES.values(), ids=RANGES)
def test_the_range_alone_gives_what_the_whole_vocabulary_gives(model, allowed, settings, fused):
    if fused and ("top_p" in settings or "top_k" in settings):
        pytest.skip("what is truncated is not fused")
    random = torch.Generator().manual_seed(1)
    ends = (END, allowed[0][0] + 1)
    readout, whole = (
        Readout(model, rules_of(allowed), Settings(**settings), ends, held=True, fused=fused) for _ in range(2)
    )
    whole.span, whole.span_rules = (0, VOCAB), whole.rules
    hidden = torch.randn(9, readout.cfg_branches, 16, generator=random)
    row, at = torch.arange(9) % 3, torch.arange(9) % 4
    tokens = torch.randint(VOCAB, (3, 4), generator=random)
    tokens[0] = torch.tensor([allowed[0][0], allowed[-1][1] - 1, allowed[0][0] - 1, 5])
    draws = Draws(0, row, row)
    ours, theirs = (r(hidden, tokens, row, at, draws) for r in (readout, whole))
    assert torch.equal(ours.token, theirs.token)
    assert all(any(a <= token < b for a, b in allowed) for token in ours.token.tolist())
    torch.testing.assert_close(ours.numbers, theirs.numbers, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.held, theirs.held, atol=1e-7, rtol=1e-5)
    if "temperature" in settings:
        drawn = [r.draw_tokens(hidden, tokens, row, at, draws, torch.arange(1, 4)) for r in (readout, whole)]
        assert torch.equal(drawn[0][0], drawn[1][0])
        torch.testing.assert_close(drawn[0][1], drawn[1][1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("place", ["first", "last", "outside"])
def test_the_mask_in_a_range_keeps_its_probability_and_is_not_chosen(model, place, fused):
    mask = 300
    model = Model(replace(model.spec, mask_id=mask), model.body, model.lm_head)
    start = {"first": mask, "last": mask - 5, "outside": mask - 6}[place]
    readout, whole = (Readout(model, LogitRules(allowed=((start, start + 6),)), Settings(), fused=fused) for _ in "ab")
    whole.span, whole.span_rules = (0, VOCAB), whole.rules
    hidden, rows = torch.randn(40, 1, 16, generator=torch.Generator().manual_seed(3)), torch.arange(40)
    ours, theirs = (r(hidden, rows[:, None], rows, rows * 0, None) for r in (readout, whole))
    assert torch.equal(ours.token, theirs.token) and mask not in ours.token.tolist()
    torch.testing.assert_close(ours.numbers, theirs.numbers, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("sampler", ["confidence", "info-gain", "maskgit", "klass", "remdm"])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9, "guidance": 0.7}], ids=str)
@pytest.mark.parametrize("cache", ["none", "dual"])
def test_a_decode_is_the_same(model, monkeypatch, sampler, settings, cache):
    def decode():
        results = mdm.decode(
            model, [[1, 2, 3], [7]], sampler, {"candidates": 3} if sampler == "info-gain" else {}, cache=cache,
            gen_length=6, block_length=3, allowed_tokens=[(50, TILE + 900)], suppressed_tokens=[TILE, 3],
            **settings,
        )  # fmt: skip
        return [(r.sequence, [line["positions"] for line in r.trace]) for r in results]

    alone = decode()
    monkeypatch.setattr(Model, "head_is_matrix", False)
    assert alone == decode()


@pytest.mark.parametrize(("settings", "branches"), [({}, 1), ({"guidance": 0.7}, 2), ({"temperature": 1.0}, 1),
                                                    ({"temperature": 1.0, "top_p": 0.9}, 1)], ids=str)  # fmt: skip
def test_the_head_makes_the_logits_of_the_range(model, settings, branches):
    """8 masks, one a step; of 4 candidates of a lookahead each is read wherever masks are left."""
    with counting(model) as counts:
        mdm.decode(model, [[1, 2, 3]], "confidence", gen_length=8, block_length=8, allowed_tokens=[(100, 164)],
                   **settings)  # fmt: skip
    assert counts.head_rows == branches * sum(range(1, 9))
    assert counts.head_logits == 64 * counts.head_rows
    with counting(model) as counts:
        mdm.decode(model, [[1, 2, 3]], "info-gain", {"candidates": "all"}, gen_length=4, block_length=4,
                   allowed_tokens=[(TILE - 3, TILE + 61)], **settings)  # fmt: skip
    assert counts.head_logits == 64 * counts.head_rows > 0


@pytest.mark.parametrize(
    ("rules", "choices"),
    [
        ({}, 300),
        ({"suppressed": (3, 4)}, 300),
        ({"allowed": ((10, 20),)}, 10),
        ({"allowed": ((10, 20), (15, 30)), "suppressed": (3, 12)}, 19),
        ({"allowed": ((290, 300),)}, 9),
    ],
)
def test_an_unscored_mask_counts_as_all_that_can_be_drawn(rules, choices):
    model = random_model(Shape("llada", 300, 16, 1, 2, 2, 32))
    assert model.spec.mask_id == 299
    assert Readout(model, LogitRules(**rules), Settings()).choices == choices


def test_masks_behind_the_window_count_ln_of_the_range(model):
    """In the first of two blocks a lookahead under the dual cache leaves 2 masks unscored."""

    def first_step(**settings):
        [result] = mdm.decode(
            model, [[1, 2, 3]], "info-gain", {"candidates": "all"}, cache="dual", gen_length=4, block_length=2,
            trace="full", **settings,
        )  # fmt: skip
        return result.trace[0]

    most = first_step(allowed_tokens=[(100, 104)], suppressed_tokens=[100])
    uncertainty = [candidate["H"] for candidate in most["weighed"]]
    # One mask of the block is scored, between 0 and ln 3 nats, and two are not.
    assert all(2 * math.log(3) / 3 <= h <= math.log(3) + 1e-6 for h in uncertainty)
