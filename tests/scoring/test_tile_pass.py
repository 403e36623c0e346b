"""What is compiled decides as what is not, and says what it wants."""

from __future__ import annotations

import mdm
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mdm.cli import main
from mdm.protocols import Draws
from mdm.scoring import tiles_native
from mdm.scoring.statistics import accumulate
from mdm.scoring.tile_pass import tile_stats
from mdm.scoring.tiles import TokenDraw, merge_tiles
from mdm_testing.toy import toy_model

pytestmark = pytest.mark.usefixtures("compiler")


def test_the_compiled_pass_leaves_the_same():
    x = torch.randn(6, 5000, generator=torch.Generator().manual_seed(0)) * 5
    x[0] = x[0].round()
    x[1, 100:3000] = -torch.inf
    rows = torch.arange(6)
    draw = TokenDraw(Draws(0, rows, rows).token_keys(rows[:, None], torch.arange(2)), 0.8, 17)
    with torch.inference_mode():
        ours, theirs = merge_tiles(tile_stats(x, 3, draw, compile=True)), merge_tiles(tile_stats(x, 3, draw))
    for name in ("top", "best", "drawn", "logit"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    for name in ("rest", "fall", "value"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=1e-5)


@given(
    st.integers(0, 2**31), st.sampled_from([1, 2, 15, 16, 300, 512, 1536, 2048, 2049, 5000]), st.integers(1, 40),
    st.floats(0.1, 100), st.booleans(),
)  # fmt: skip
def test_the_native_pass_leaves_what_torch_leaves(seed, width, distinct, spread, forbidden):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(5, width, generator=random) * spread
    x[0] = torch.randint(distinct, (width,), generator=random).float()
    if forbidden and width > 2:
        x[1:3, torch.rand(width, generator=random) < 0.7] = -torch.inf
        x[1:3, torch.randperm(width, generator=random)[:2]] = torch.tensor([-3.0, 4.0])
    assert tiles_native.built() is not None
    ours, theirs = merge_tiles(tile_stats(x, 3, compile=True)), merge_tiles(tile_stats(x, 3))
    if width > 1:
        assert torch.equal(ours.top, theirs.top)
        assert torch.equal(ours.best, theirs.best)
        for compile in (False, True):
            lone = merge_tiles(tile_stats(x, 3, need_second_token=False, compile=compile))
            assert torch.equal(lone.top, theirs.top)
            assert torch.equal(lone.best[..., 0], theirs.best[..., 0])
    torch.testing.assert_close(ours.rest, theirs.rest, rtol=3e-6, atol=1e-37)
    torch.testing.assert_close(ours.fall, theirs.fall, rtol=3e-6, atol=1e-35)


def test_a_broken_logit_shows_in_the_native_pass_too():
    x = torch.tensor([[1.0, -torch.inf, 2.0], [1.0, torch.nan, -torch.inf]])
    [plain], [native_too] = accumulate(x), accumulate(x, compile=True)
    assert plain.stats().entropy.isnan().tolist() == native_too.stats().entropy.isnan().tolist() == [False, True]


def test_rows_of_the_native_pass_do_not_depend_on_threads_or_neighbours():
    x = torch.randn(70, 2048, generator=torch.Generator().manual_seed(0)) * 9
    threads = torch.get_num_threads()
    alone = [tiles_native.sums(x[t : t + 1], True) for t in range(70)]
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            for whole, parts in zip(tiles_native.sums(x, True), zip(*alone, strict=True), strict=True):
                assert torch.equal(whole, torch.cat(parts))
    finally:
        torch.set_num_threads(threads)


def test_a_compiler_that_does_not_take_it_leaves_the_pass_to_torch(monkeypatch):
    monkeypatch.setenv("CXX", "false")
    tiles_native.built.cache_clear()
    x = torch.randn(3, 300)
    try:
        with pytest.warns(UserWarning, match="false does not build the pass"):
            ours = merge_tiles(tile_stats(x, compile=True))
    finally:
        tiles_native.built.cache_clear()
    for mine, theirs in zip(ours, merge_tiles(tile_stats(x)), strict=True):
        assert mine is theirs is None or torch.equal(mine, theirs)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_compiled_decode_is_the_same_decode(temperature):
    settings = {"gen_length": 6, "block_length": 3, "temperature": temperature, "cache": "none"}
    plain, compiled = (
        mdm.decode(toy_model(), [[1, 2, 3], [4]], "info-gain", {"candidates": 3}, compile=on, **settings)
        for on in (False, True)
    )
    assert [(r.tokens, [line["positions"] for line in r.trace]) for r in plain] == [
        (r.tokens, [line["positions"] for line in r.trace]) for r in compiled
    ]


def test_without_a_compiler_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SystemExit) as stop:
        main(["generate", "1+1=", "--compile"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "no-such-compiler is not there" in said and said.count("\n") == 1
