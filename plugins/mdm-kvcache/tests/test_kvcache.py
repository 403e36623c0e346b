"""What each mode runs and keeps, on canvases drawn at random."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mdm.protocols import ModelSpec
from mdm.state import State
from mdm_kvcache import Dual, KVOptions, Prefix

SPEC = ModelSpec("toy", 8, 7)


@st.composite
def states(draw):
    length = draw(st.integers(2, 12))
    rows = draw(st.integers(1, 4))
    lengths = [draw(st.integers(1, length)) for _ in range(rows)]
    starts = [draw(st.integers(0, n - 1)) for n in lengths]
    stops = [draw(st.integers(s + 1, n)) for s, n in zip(starts, lengths, strict=True)]
    at = torch.arange(length)
    real = at < torch.tensor(lengths)[:, None]
    zero = torch.zeros(rows, dtype=torch.long)
    return State(
        tokens=torch.zeros(rows, length, dtype=torch.long), masked=real, real=real, slots=real,
        starts=torch.tensor(starts)[:, None], prompt_length=zero, row_id=zero, request=zero,
        span=torch.tensor([starts, stops]).T, entered=torch.tensor([draw(st.booleans()) for _ in range(rows)]),
        step=zero, block_step=torch.tensor([draw(st.integers(0, 5)) for _ in range(rows)]), budget=zero + 1,
        mask_id=0,
    )  # fmt: skip


@pytest.mark.parametrize("mode", [Prefix, Dual])
@given(state=states(), refresh=st.none() | st.integers(1, 4))
def test_a_row_refreshes_whole_or_runs_its_window(mode, state, refresh):
    plan = mode(KVOptions(refresh=refresh)).plan(state, SPEC)
    for row in range(len(state.tokens)):
        start, stop = state.span[row].tolist()
        due = bool(state.entered[row]) or bool(refresh and state.block_step[row] % refresh == 0)
        whole = state.real[row].nonzero()[:, 0].tolist()
        window = [p for p in whole if start <= p < (stop if mode is Dual else len(whole))]
        assert plan.window[row].nonzero()[:, 0].tolist() == window
        assert plan.query[row].nonzero()[:, 0].tolist() == (whole if due else window)
        assert plan.write[row].nonzero()[:, 0].tolist() == (whole if due else [])
