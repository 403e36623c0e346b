"""dus: its rounds, for blocks of any length and with holes; its options."""

from __future__ import annotations

import mdm
import pytest
from slow_rules import PROMPTS, agree, tiny
from tiny_families import MASK


def dilated(length, base=2, skip=1):
    """The rounds of a block, as lists of places in it."""
    step, left, rounds = length // base**skip, list(range(length)), []
    while step:
        rounds.append([i for i in left if i % step == 0])
        left = [i for i in left if i % step]
        step //= base
    return merged([*rounds, left])


def binary(length):
    rounds, spans = [], [(0, length - 1)]
    while spans:
        rounds.append(sorted((a + b) // 2 for a, b in spans))
        halves = [half for a, b in spans for half in ((a, (a + b) // 2 - 1), ((a + b) // 2 + 1, b))]
        spans = [(a, b) for a, b in halves if a <= b]
    return merged(rounds)


def merged(rounds):
    *rest, last = [each for each in rounds if each]
    return [*rest[:-1], rest[-1] + last] if rest and len(last) < len(rest[-1]) else [*rest, last]


def rule(rounds):
    def step(canvas, said, span, t):
        return {span.start + i: said[span.start + i].token for i in rounds(len(span))[t]}

    return lambda: step


@pytest.mark.parametrize("block", [1, 2, 3, 5, 12, 16, 17])
@pytest.mark.parametrize(
    ("options", "rounds"),
    [
        ({}, dilated),
        ({"base": 3}, lambda n: dilated(n, 3)),
        ({"base": 5, "skip": 2}, lambda n: dilated(n, 5, 2)),
        ({"skip": 64}, lambda n: dilated(n, 2, 64)),
        ({"mode": "binary"}, binary),
    ],
)
def test_rounds_are_the_rules(options, rounds, block):
    agree("dus", options, rule(rounds), [2 * block, block + block // 2], block)


def test_a_block_of_32_takes_5_rounds():
    [result] = mdm.decode(tiny(), PROMPTS[:1], "dus", gen_length=32, block_length=32)
    assert [len(line["positions"]) for line in result.trace] == [2, 2, 4, 8, 16] and result.forwards == 5
    assert mdm.registry.resolve("sampler", "dus").pace == "own"


def test_rounds_without_masks_are_skipped():
    """Of an infill, whose block of 8 begins with its first hole and ends with the last: places 0, 3 and 7."""
    prompt = [9, 10, MASK, 12, 13, MASK, 15, 16, 17, MASK, 19]
    [result] = mdm.decode(tiny(), [prompt], "dus", gen_length=0)
    assert [line["positions"] for line in result.trace] == [[2], [5, 9]] and result.forwards == 2


@pytest.mark.parametrize("wrong", [{"base": 1}, {"skip": 0}, {"mode": "spaced"}])
def test_options_out_of_their_range_are_refused(wrong):
    with pytest.raises(mdm.MdmError, match=next(iter(wrong))):
        mdm.decode(tiny(), PROMPTS[:1], "dus", wrong, gen_length=2)


def test_certainty_plays_no_part():
    with pytest.raises(mdm.MdmError, match="eos_rank|eos-rank"):
        mdm.decode(tiny(), PROMPTS[:1], "dus", gen_length=2, eos_rank="last")
