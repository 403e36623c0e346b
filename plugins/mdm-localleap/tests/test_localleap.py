"""local-leap: what is committed is what the rule says, step by step; its options."""

from __future__ import annotations

import mdm
import pytest
from slow_rules import PROMPTS, agree, tiny
from tiny_families import MASK


def rule(k, anchor, neighbor, radius):
    def step(canvas, said, span, t):
        masks = [i for i in span if canvas[i] == MASK]
        due = sorted(masks, key=lambda i: -said[i].confidence)[:k]
        anchors = [i for i in due if said[i].confidence >= anchor]
        leaps = [
            i for i in masks if said[i].confidence >= neighbor and any(abs(i - other) <= radius for other in anchors)
        ]
        return {i: said[i].token for i in {*due, *leaps}}

    return lambda: step


@pytest.mark.parametrize(
    ("k", "anchor", "neighbor", "radius"), [(1, 0.3, 0.2, 3), (2, 0.5, 0.1, 1), (2, 0.0, 0.0, 2), (3, 0.3, 0.3, 0)]
)
def test_a_step_is_the_rule(k, anchor, neighbor, radius):
    options = {"anchor_threshold": anchor, "neighbor_threshold": neighbor, "radius": radius}
    results = agree("local-leap", options, rule(k, anchor, neighbor, radius), [12, 8, 6], 6, tokens_per_step=k)
    leaps = sum(len(line["positions"]) > k for result in results for line in result.trace)
    assert bool(leaps) == (radius > 0)


def test_the_defaults_are_the_published_ones():
    agree("local-leap", {}, rule(1, 0.9, 0.75, 4), [12, 8], 6, scale=2.0)


@pytest.mark.parametrize("schedule", ["dream", "cosine"])
def test_a_step_in_which_the_schedule_commits_nothing_has_no_anchors(schedule):
    results = mdm.decode(
        tiny(), PROMPTS, "local-leap", {"anchor_threshold": 0.0}, gen_length=6, block_length=6, steps=12,
        schedule=schedule,
    )  # fmt: skip
    assert all(MASK not in result.sequence for result in results)


@pytest.mark.parametrize("wrong", [{"anchor_threshold": 1.1}, {"neighbor_threshold": -0.1}, {"radius": -1}])
def test_options_out_of_their_range_are_refused(wrong):
    with pytest.raises(mdm.MdmError, match=next(iter(wrong))):
        mdm.decode(tiny(), PROMPTS[:1], "local-leap", wrong, gen_length=2)
