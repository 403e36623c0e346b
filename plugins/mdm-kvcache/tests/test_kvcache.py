"""What each mode runs and keeps, on canvases drawn at random."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from mdm.engine.canvas import block_numbers
from mdm.protocols import ModelSpec, State
from mdm_bench.shapes import Shape, random_model
from mdm_kvcache import Dual, KVOptions, Prefix
from mdm_testing.counters import counting
from mdm_testing.probe import decode, essence, looking, plain, prompts
from mdm_testing.toy import toy_model

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
    bounds = torch.tensor([starts, stops]).T
    return State(
        tokens=torch.zeros(rows, length, dtype=torch.long), masked=real, in_canvas=real, targets=real,
        starts=bounds, blocks=block_numbers(bounds, length), prompt_length=zero, row_id=zero, request=zero,
        block=zero, entered_block=torch.tensor([draw(st.booleans()) for _ in range(rows)]),
        step=zero, block_step=torch.tensor([draw(st.integers(0, 5)) for _ in range(rows)]), budget=zero + 1,
        planned=zero + 1,
        mask_id=0,
    )  # fmt: skip


@pytest.mark.parametrize("mode", [Prefix, Dual])
@given(state=states(), refresh=st.just("block") | st.integers(1, 4))
def test_a_row_refreshes_whole_or_runs_its_window(mode, state, refresh):
    plan = mode(KVOptions(refresh=refresh)).plan(state, SPEC)
    for row in range(len(state.tokens)):
        start, stop = state.block_bounds[row].tolist()
        inside = refresh != "block" and int(state.block_step[row]) % refresh == 0
        due = bool(state.entered_block[row]) or inside
        whole = state.in_canvas[row].nonzero()[:, 0].tolist()
        window = [p for p in whole if start <= p < (stop if mode is Dual else len(whole))]
        assert plan.window[row].nonzero()[:, 0].tolist() == window
        assert plan.query[row].nonzero()[:, 0].tolist() == (whole if due else window)
        assert plan.write[row].nonzero()[:, 0].tolist() == (whole if due else [])


@pytest.mark.parametrize(("mode", "stop"), [(Prefix, 10), (Dual, 8)])
def test_never_runs_the_block_that_was_left_beside_the_one_that_begins(mode, stop):
    at = torch.arange(11)
    slots = (at >= 2) & (at < 10) & ~((at >= 4) & (at < 6))  # the second block is visible from the start
    starts, zero = torch.tensor([[2, 4, 6, 8, 10]] * 3), torch.zeros(3, dtype=torch.long)
    state = State(
        tokens=torch.zeros(3, 11, dtype=torch.long), masked=slots.expand(3, -1), in_canvas=(at < 10).expand(3, -1),
        targets=slots.expand(3, -1), starts=starts, blocks=block_numbers(starts, 11),
        prompt_length=zero + 2, row_id=zero,
        request=zero, block=torch.tensor([0, 2, 2]), entered_block=torch.tensor([True, True, False]),
        step=torch.tensor([0, 2, 3]), block_step=torch.tensor([0, 0, 1]), budget=zero + 1, planned=zero + 1, mask_id=0,
    )  # fmt: skip
    plan = mode(KVOptions(refresh="never")).plan(state, SPEC)
    run = [row.nonzero()[:, 0].tolist() for row in plan.query]
    assert run == [list(range(10)), [2, 3, *range(6, stop)], list(range(6, stop))]
    assert [row.nonzero()[:, 0].tolist() for row in plan.write] == [*run[:2], []]


@pytest.mark.parametrize("cache", ["prefix", "dual"])
@pytest.mark.parametrize("sampler", [plain, looking], ids=["plain", "looking"])
def test_never_is_exact_where_finished_blocks_cannot_change(cache, sampler):
    model = toy_model("block-causal")
    exact = decode(model, prompts(), sampler(), gen_length=14)
    kept = decode(model, prompts(), sampler(), cache, cache_options={"refresh": "never"}, gen_length=14)
    assert [essence(r) for r in exact] == [essence(r) for r in kept]


@pytest.mark.parametrize(
    ("cache", "refresh", "spent"),
    [  # three blocks of four behind a prompt of five: row-tokens of each block's first step and of its three others
        ("prefix", "block", 17 + 3 * 12 + 17 + 3 * 8 + 17 + 3 * 4),
        ("prefix", "never", 17 + 3 * 12 + 12 + 3 * 8 + 8 + 3 * 4),
        ("dual", "block", 3 * (17 + 3 * 4)),
        ("dual", 2, 3 * (17 + 4 + 17 + 4)),
        ("dual", "never", 17 + 3 * 4 + 2 * (8 + 3 * 4)),
    ],
)
def test_row_tokens_of_a_policy(cache, refresh, spent):
    with counting(toy_model()) as counts:
        decode(toy_model(), prompts(lengths=(5,)), plain(), cache, cache_options={"refresh": refresh}, gen_length=12)
    assert (counts.model_calls, counts.positions) == (12, spent)


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_in_a_canvas_of_one_block_never_is_block(cache):
    once, each = (
        decode(toy_model(), prompts(), looking(), cache, cache_options={"refresh": refresh}, gen_length=4)
        for refresh in ("never", "block")
    )
    assert [essence(r) for r in once] == [essence(r) for r in each]


@pytest.mark.parametrize("cache", ["prefix", "dual"])
@pytest.mark.parametrize("refresh", ["never", "block", 2])
@pytest.mark.parametrize("block_length", [3, 8])
def test_what_is_kept_does_not_depend_on_neighbours_where_a_window_is_the_whole_canvas(cache, refresh, block_length):
    """Where logits are shifted, the position before the window runs too: behind one token that makes it all."""
    model = random_model(Shape("dream", 64, 32, 3, 2, 2, 64), seed=1)
    for weight in model.body.layers.parameters():  # as they are made, layers hardly change what passes them
        weight.data *= 10
    settings = {"cache_options": {"refresh": refresh}, "gen_length": 8, "block_length": block_length}
    for token in range(8):
        alone = decode(model, [[token]], plain(), cache, **settings)
        together = decode(model, [[token], [1, 2, 3, 4, 5]], plain(), cache, **settings)
        assert essence(alone[0]) == essence(together[0])
