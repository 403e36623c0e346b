"""p2: what is kept and what is masked again, step by step; its options."""

from __future__ import annotations

import math

import mdm
import pytest
from slow_rules import PROMPTS, agree, tiny
from tiny_families import MASK


def rule(eta, committed, k):
    def step(canvas, said, span, t):
        held = {i: canvas[i] for i in span if canvas[i] != MASK}

        def score(i):
            if i not in held:
                return math.log(said[i].confidence)
            return eta * math.log(said[i].confidence if committed == "likeliest" else said[i].p[held[i]])

        kept = sorted(span, key=score, reverse=True)[: len(held) + k]
        return {i: held.get(i, said[i].token) if i in kept else MASK for i in span}

    return lambda: step


@pytest.mark.parametrize("eta", [0.0, 1.0, 1.6])
@pytest.mark.parametrize("committed", ["likeliest", "held"])
@pytest.mark.parametrize("k", [1, 2])
def test_a_step_is_the_rule(eta, committed, k):
    lengths = [16, 10, 6]
    results = agree("p2", {"eta": eta, "committed": committed}, rule(eta, committed, k), lengths, 16, tokens_per_step=k)
    assert [result.forwards for result in results] == [length // k for length in lengths]
    back = sum(line["kind"] == "remask" and len(line["positions"]) for result in results for line in result.trace)
    assert bool(back) == (eta > 0)


def test_without_eta_it_is_confidence_on_the_whole_canvas():
    shape = {"gen_length": 12, "block_length": 12, "schedule": "cosine", "steps": 5}
    ours = mdm.decode(tiny(), PROMPTS, "p2", {"eta": 0.0}, **shape)
    plain = mdm.decode(tiny(), PROMPTS, "confidence", **shape)
    assert [r.tokens for r in ours] == [r.tokens for r in plain]


@pytest.mark.parametrize("wrong", [{"eta": -0.1}, {"committed": "planner"}])
def test_options_out_of_their_range_are_refused(wrong):
    with pytest.raises(mdm.MdmError, match=next(iter(wrong))):
        mdm.decode(tiny(), PROMPTS[:1], "p2", wrong, gen_length=2)
