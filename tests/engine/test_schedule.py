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
    keeps_zeros = schedule == "dream" or schedule.startswith("maskgit")
    assert all(k >= 0 if keeps_zeros else k > 0 for k in counts)
    assert not keeps_zeros or len(counts) == steps


@given(st.sampled_from([name for name in SCHEDULES if name.startswith("maskgit")]), COUNT, COUNT, COUNT)
def test_known_slots_of_a_picture_count_for_its_schedule_alone(schedule, masks, steps, known):
    counts = num_transfer_tokens(schedule, masks, steps, masks + known)
    assert (sum(counts), len(counts)) == (masks, steps)
    left = [masks - sum(counts[: i + 1]) for i in range(steps)]
    whole = [masks + known - n for n in itertools.accumulate(num_transfer_tokens(schedule, masks + known, steps))]
    for before, after, due in zip([masks, *left], left[:-1], whole[:-1], strict=False):
        assert after == min(due, max(1, before - 1)), "one mask a step until the curve over all slots is reached"
    for other in set(SCHEDULES) - {name for name in SCHEDULES if name.startswith("maskgit")}:
        assert num_transfer_tokens(other, masks, steps, masks + known) == num_transfer_tokens(other, masks, steps)


def test_the_floor_of_a_picture_schedule_is_taken_in_float32():
    """cos(pi / 3) is less than a half there: of 16 slots 7 are left after two of three steps."""
    assert num_transfer_tokens("maskgit", 16, 3) == (3, 6, 7)


@given(COUNT, COUNT)
def test_even_is_even(masks, steps):
    counts = num_transfer_tokens("even", masks, steps)
    assert max(counts) - min(counts) <= 1 and list(counts) == sorted(counts, reverse=True)


@given(COUNT, COUNT)
def test_steps_are_split_evenly_and_no_block_goes_without(total, parts):
    steps = split(total, parts)
    assert len(steps) == parts and min(steps) >= 1
    assert sum(steps) == max(total, parts) if total >= parts else min(steps) == max(steps) == 1


@given(st.integers(0, 70), COUNT, st.integers(1, 100), st.booleans(), st.booleans())
def test_blocks_tile_the_generation(prompt, length, size, grid, rounds_up):
    found = blocks(prompt, length, size, grid=grid, rounds_up=rounds_up)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(found))
    first, last = found[0][0], found[-1][1]
    if grid:
        assert first % size == 0 and first <= prompt < found[0][1] and all(a % size == 0 for a, _ in found)
        end = prompt + length
        assert last % size == 0 and last - size < end <= last if rounds_up else last == end
    else:
        assert (first, last) == (prompt, prompt + length)
        assert all(b - a == size for a, b in found[:-1])
