"""saber: what is committed and taken back, step by step, in one block and in several; its option."""

from __future__ import annotations

from math import ceil
from statistics import fmean

import mdm
import pytest
from slow_rules import PROMPTS, agree, tiny
from tiny_families import MASK


def rule(n):
    def make():
        committed, last = {}, {}

        def step(canvas, said, span, t):
            masks, tau = [i for i in span if canvas[i] == MASK], fmean(committed.values()) if committed else 1
            sure = {i: said[i].confidence for i in span}
            passing = [i for i in masks if sure[i] > tau]
            chosen = passing if len(passing) >= n else sorted(masks, key=lambda i: -sure[i])[:n]
            committed.update({i: sure[i] for i in chosen})
            after = {i: said[i].token for i in chosen}
            if len(chosen) < len(masks):
                f = max(n, len(passing))
                standing = sorted({*span} - {*masks} | {*chosen}, key=lambda i: sure[i] - last.get(i, 0))
                after |= dict.fromkeys(standing[: min(max(n // 2, ceil(f / 8)), f - 1)], MASK)
            last.update(sure)
            return after

        return step

    return make


@pytest.mark.parametrize("n", [1, 2, 3, 5, 30])
@pytest.mark.parametrize(("block", "scale"), [(6, 1.0), (16, 1.0), (16, 3.0)])
def test_a_step_is_the_rule(n, block, scale):
    results = agree("saber", {"n": n}, rule(n), [16, 10, 6], block, scale)
    back = sum(len(line["positions"]) for result in results for line in result.trace if line["kind"] == "remask")
    assert back or n != 2


def test_nothing_is_taken_back_before_its_block():
    results = mdm.decode(tiny(), PROMPTS, "saber", {"n": 4}, gen_length=24, block_length=8)
    for result in results:
        reached = 0
        for line in result.trace:
            blocks = [(p - result.prompt_tokens) // 8 for p in line["positions"]]
            assert len({*blocks}) == 1 and blocks[0] >= reached
            reached = blocks[0]


def test_it_sets_its_own_pace():
    """A step of one more token than are taken back, at least: so it ends within as many steps as there are tokens."""
    [result] = mdm.decode(tiny(), PROMPTS[:1], "saber", gen_length=24, block_length=24)
    assert result.forwards <= 24 and mdm.registry.resolve("sampler", "saber").pace == "own"


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 1.5}])
def test_options_out_of_their_range_are_refused(wrong):
    with pytest.raises(mdm.MdmError, match="n"):
        mdm.decode(tiny(), PROMPTS[:1], "saber", wrong, gen_length=2)
