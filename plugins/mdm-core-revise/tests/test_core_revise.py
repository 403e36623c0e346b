"""core: checks and revisions against the rule written for one row; rows that check at different steps; its options."""

from __future__ import annotations

import mdm
import pytest
from mdm_core_revise import CoreOptions
from slow_rules import PROMPTS, agree, look, tiny
from tiny_families import MASK


def rule(options, k, scale=1.0, seen=None):
    o = CoreOptions(**options)

    def step(canvas, said, span, t):
        steps, masks = -(-len(span) // k), [i for i in span if canvas[i] == MASK]
        key = "confidence" if o.base == "confidence" else "margin"
        size, more = divmod(len(span), steps)
        due = size + (t < more)
        after = {i: said[i].token for i in sorted(masks, key=lambda i: -getattr(said[i], key))[:due]}
        if t % o.every or not int(0.25 * steps) <= t < int(0.75 * steps):
            return after
        old = [i for i in span if canvas[i] != MASK and i < span.stop - 16]
        checked = sorted(old, key=lambda i: said[i].margin)[: o.m]
        again = look(tiny(scale), [MASK if i in checked else v for i, v in enumerate(canvas)])
        may = checked
        if o.revise == "core":
            may = [i for i in checked if again[i].token != canvas[i] and again[i].confidence >= 0.3]
        by = {i: again[i].margin if o.revise == "margin" else float(again[i].p[canvas[i]]) for i in may}
        revised = sorted(may, key=by.__getitem__)[: min(o.remask_k, due)]
        if seen is not None:
            seen.append((len(checked), len(may), len(revised)))
        return after | {i: again[i].token for i in revised}

    return lambda: step


@pytest.mark.parametrize(
    ("options", "k", "scale"),
    [
        ({"every": 1}, 1, 1.0),
        ({"every": 3, "m": 4, "remask_k": 2}, 2, 1.0),
        ({"every": 2, "remask_k": 3, "base": "margin"}, 3, 2.0),
        ({"every": 2, "m": 2, "revise": "margin"}, 2, 2.0),
        ({}, 2, 1.0),
    ],
)
def test_a_step_is_the_rule(options, k, scale):
    seen, lengths, block = [], [34, 24, 20], 24
    results = agree("core", options, rule(options, k, scale, seen), lengths, block, scale, tokens_per_step=k)
    blocks = [min(block, length - start) for length in lengths for start in range(0, length, block)]
    checks = sum(checked > 0 for checked, *_ in seen)
    assert checks and sum(r.forwards for r in results) == sum(-(-size // k) for size in blocks) + checks
    assert any(revised for *_, revised in seen) or not options


def test_a_block_within_the_tail_is_never_checked():
    [result] = mdm.decode(tiny(), PROMPTS[:1], "core", {"every": 1}, gen_length=16, block_length=16)
    assert all(line["kind"] == "commit" for line in result.trace) and result.forwards == 16


def test_any_token_at_random_is_keyed():
    def revised(seed):
        results = mdm.decode(
            tiny(), PROMPTS, "core", {"every": 1, "m": 8, "revise": "random"}, gen_length=22, tokens_per_step=2,
            block_length=22, seed=seed,
        )  # fmt: skip
        return [(x["step"], x["positions"]) for result in results for x in result.trace if x["kind"] == "edit"]

    assert revised(0) == revised(0) != revised(1)


@pytest.mark.parametrize("schedule", ["dream", "cosine"])
def test_a_step_in_which_the_schedule_commits_nothing_revises_nothing(schedule):
    results = mdm.decode(
        tiny(), PROMPTS, "core", {"every": 1, "revise": "margin"}, gen_length=20, block_length=20, steps=30,
        schedule=schedule,
    )  # fmt: skip
    for result in results:
        steps = {line["step"] for line in result.trace if line["kind"] == "commit" and line["positions"]}
        assert all(line["step"] in steps for line in result.trace if line["kind"] == "edit")
        assert MASK not in result.sequence


@pytest.mark.parametrize(
    "wrong", [{"every": 0}, {"m": 0}, {"remask_k": 0}, {"base": "entropy"}, {"revise": "confidence"}]
)
def test_options_out_of_their_range_are_refused(wrong):
    with pytest.raises(mdm.MdmError, match=next(iter(wrong))):
        mdm.decode(tiny(), PROMPTS[:1], "core", wrong, gen_length=2)
