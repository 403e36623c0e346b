"""slow-fast: cycles step by step, against the rule written for one row; its options."""

from __future__ import annotations

from statistics import fmean, pstdev

import mdm
import pytest
from mdm_slowfast import SlowFastOptions
from slow_rules import PROMPTS, agree, tiny
from tiny_families import MASK


def rule(options, seen=None):
    o = SlowFastOptions(**options)

    def make():
        cycle = {}

        def begin(at):
            cycle.update(start=at, stop=None, steps=0, estimates=[])

        def step(canvas, said, span, t):
            masks = [i - span.start for i in span if canvas[i] == MASK]
            if t == 0:
                begin(0)
            if cycle["steps"] == o.k_exploration_steps and not any(i < cycle["stop"] for i in masks):
                begin(cycle["stop"])
            sure = {i: said[span.start + i].confidence for i in masks}
            slow = cycle["steps"] < o.k_exploration_steps
            if slow:
                cycle["steps"] += 1
                explore(cycle, [i for i in masks if sure[i] >= o.cycle_len_confidence_threshold])
            within = masks if slow else [i for i in masks if i < cycle["stop"]]
            high = [i for i in within if sure[i] >= o.high_confidence_threshold]
            chosen = high if len(high) > 1 else [max(within, key=sure.__getitem__)]
            if seen is not None:
                seen.append((slow, len(high), cycle["start"]))
            return {span.start + i: said[span.start + i].token for i in chosen}

        return step

    def explore(cycle, far):
        if cycle["stop"] is not None:
            return
        cycle["estimates"].append((max(far) if far else cycle["start"]) + 1)
        last = cycle["estimates"][-o.cycle_length_stability_window :]
        full = len(last) == o.cycle_length_stability_window
        if full and pstdev(last) < o.cycle_length_stability_std_dev_threshold:
            cycle["stop"] = last[-1]
        if cycle["stop"] is None and cycle["steps"] == o.k_exploration_steps:
            cycle["stop"] = int(fmean(last))

    return make


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"high_confidence_threshold": 0.3},
        {"k_exploration_steps": 2, "cycle_len_confidence_threshold": 0.5},
        {"k_exploration_steps": 1, "cycle_length_stability_window": 3, "cycle_len_confidence_threshold": 0.7},
        {"k_exploration_steps": 3, "cycle_length_stability_window": 3, "cycle_len_confidence_threshold": 0.6,
         "high_confidence_threshold": 0.5},
        {"k_exploration_steps": 4, "cycle_len_confidence_threshold": 0.6,
         "cycle_length_stability_std_dev_threshold": 0.0},
        {"k_exploration_steps": 2, "cycle_length_stability_window": 1, "cycle_len_confidence_threshold": 0.9},
    ],
)  # fmt: skip
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_cycles_are_the_rules(options, scale):
    agree("slow-fast", options, rule(options), [16, 11, 7], 11, scale)


def test_the_rule_of_these_tests_has_been_everywhere():
    """Slow and fast steps, of many sure masks and of a single one, in a first cycle and a later one."""
    seen = []
    options = {"k_exploration_steps": 2, "cycle_len_confidence_threshold": 0.5, "high_confidence_threshold": 0.5}
    agree("slow-fast", options, rule(options, seen), [24, 14, 9], 12)
    assert {slow for slow, _, _ in seen} == {True, False} and {min(high, 2) for _, high, _ in seen} == {0, 1, 2}
    assert any(start > 0 for _, _, start in seen)


def test_it_sets_its_own_pace():
    assert mdm.registry.resolve("sampler", "slow-fast").pace == "own"


@pytest.mark.parametrize(
    "wrong",
    [
        {"k_exploration_steps": 0}, {"cycle_len_confidence_threshold": 1.1}, {"cycle_length_stability_window": 0},
        {"cycle_length_stability_std_dev_threshold": -1}, {"high_confidence_threshold": -0.1},
    ],
)  # fmt: skip
def test_options_out_of_their_range_are_refused(wrong):
    with pytest.raises(mdm.MdmError, match=next(iter(wrong))):
        mdm.decode(tiny(), PROMPTS[:1], "slow-fast", wrong, gen_length=2)
