"""Pictures of MMaDA, given and made as ids, against the published code on the same tiny weights."""

from __future__ import annotations

import pytest
from goldens import facts
from mdm.engine.schedule import num_transfer_tokens

SCHEDULES = (facts("images", "mmada/images_schedules") or {"cases": []})["cases"]


def schedule_name(published: str) -> str:
    return "maskgit" if published == "cosine" else f"maskgit-{published}"


@pytest.mark.parametrize("case", SCHEDULES, ids=lambda c: f"{c['schedule']}-n{c['tokens']}-t{c['steps']}")
def test_schedule(case):
    """The published canvas keeps one mask at the end, whose code is given all the same."""
    *counts, last = case["committed_in_canvas"]
    expected = (*counts, last + case["masks_left_in_canvas"][-1])
    assert num_transfer_tokens(schedule_name(case["schedule"]), case["tokens"], case["steps"]) == expected
