"""credit: credits over the whole vocabulary, in a dictionary of one row, against the sampler's few of each position."""

from __future__ import annotations

import math

import mdm
import pytest
import torch
from mdm_credit import CreditOptions
from slow_rules import PROMPTS, agree, tiny
from tiny_families import MASK


def rule(options, fused=None):
    o = CreditOptions(**options)

    def make():
        credit = {}

        def step(canvas, said, span, t):
            if t == 0:
                credit.clear()
            for key in credit:
                credit[key] *= o.decay_beta
            sure, token = {}, {}
            for i in (i for i in span if canvas[i] == MASK):
                key = i, said[i].token
                credit[key] = credit.get(key, 0.0) + said[i].confidence ** o.boost_gamma
                logits = said[i].logits.clone()
                for (at, v), c in credit.items():
                    if at == i:
                        logits[v] += o.credit_alpha * math.log1p(c)
                p = logits.softmax(-1)
                token[i] = int(p.masked_fill(torch.arange(len(p)) == MASK, -1).argmax())
                sure[i] = float(p[token[i]])
                if fused is not None:
                    fused.append(token[i] != said[i].token)
            bound = min(o.threshold, max(sure.values()) - 1e-5)
            return {i: token[i] for i in sure if sure[i] >= bound}

        return step

    return make


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"credit_alpha": 3.0},
        {"credit_alpha": 3.0, "boost_gamma": 1.0, "decay_beta": 1.0},
        {"threshold": 0.5, "decay_beta": 0.0},
        {"threshold": 0.6, "credit_alpha": 0.0},
        {"threshold": 1.0, "credit_alpha": 5.0, "boost_gamma": 0.0},
    ],
)
@pytest.mark.parametrize("block", [6, 16])
def test_a_step_is_the_rule(options, block):
    agree("credit", options, rule(options), [16, 11, 6], block)


def test_credit_may_outweigh_the_likeliest_token():
    fused = []
    options = {"threshold": 1.0, "credit_alpha": 10.0, "boost_gamma": 0.0, "decay_beta": 1.0}
    agree("credit", options, rule(options, fused), [16, 11, 6], 16)
    assert any(fused)


def test_without_credit_it_is_the_threshold():
    shape = {"gen_length": 12, "block_length": 12}
    ours = mdm.decode(tiny(2.0), PROMPTS, "credit", {"credit_alpha": 0.0}, **shape)
    plain = mdm.decode(tiny(2.0), PROMPTS, "fastdllm-threshold", {"threshold": 0.9}, **shape)
    assert [r.tokens for r in ours] == [r.tokens for r in plain]
    assert [r.forwards for r in ours] == [r.forwards for r in plain]


def test_end_tokens_come_last_where_they_are_to():
    """Of two tokens that may be drawn the end token is committed alone: where every mask says so, the first of them."""
    end, other = 7, 8
    banned = [v for v in range(256) if v not in (end, other, MASK)]
    results = mdm.decode(
        tiny(), PROMPTS, "credit", gen_length=12, block_length=12, suppressed_tokens=banned, eos_token_id=end,
        eos_rank="last",
    )  # fmt: skip
    lines = [line["tokens"] for result in results for line in result.trace]
    assert {end} < {token for line in lines for token in line}
    assert all(line == [end] or end not in line for line in lines)


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.1}, {"credit_alpha": -1}, {"boost_gamma": -0.1}, {"decay_beta": 1.1}]
)
def test_options_out_of_their_range_are_refused(wrong):
    with pytest.raises(mdm.MdmError, match=next(iter(wrong))):
        mdm.decode(tiny(), PROMPTS[:1], "credit", wrong, gen_length=2)
