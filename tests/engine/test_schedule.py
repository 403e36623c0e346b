"""Budgets and blocks add up, whatever is asked."""

from __future__ import annotations

import itertools

from hypothesis import given, strategies as st
from mdm.engine.schedule import blocks, num_transfer_tokens, split
from mdm.protocols.settings import SCHEDULES

COUNT = st.integers(1, 80)


@given(st.sampled_from(SCHEDULES), COUNT, COUNT)
def test_a_schedule_commits_every_mask_within_its_steps(schedule, masks, steps):
    counts = num_transfer_tokens(schedule, masks, steps)
    assert sum(counts) == masks
    assert len(counts) <= steps
    assert all(k >= 0 if schedule == "dream" else k > 0 for k in counts)


@given(COUNT, COUNT)
def test_even_is_even(masks, steps):
    counts = num_transfer_tokens("even", masks, steps)
    assert max(counts) - min(counts) <= 1 and list(counts) == sorted(counts, reverse=True)


@given(COUNT, COUNT)
def test_steps_are_split_evenly_and_no_block_goes_without(total, parts):
    steps = split(total, parts)
    assert len(steps) == parts and min(steps) >= 1
    assert sum(steps) == max(total, parts) if total >= parts else min(steps) == max(steps) == 1


@given(st.integers(0, 70), COUNT, st.integers(1, 100), st.booleans())
def test_blocks_tile_the_generation(prompt, length, size, grid):
    found = blocks(prompt, length, size, grid=grid)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(found))
    first, last = found[0][0], found[-1][1]
    if grid:
        assert first % size == last % size == 0 and first <= prompt and last - size < prompt + length <= last
    else:
        assert (first, last) == (prompt, prompt + length)
        assert all(b - a == size for a, b in found[:-1])
