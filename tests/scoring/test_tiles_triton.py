"""The GPU kernel, run on the card or else by Triton's interpreter, against the pass in torch."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata

import pytest
import torch
from hypothesis import given, settings, strategies as st
from mdm.protocols import Draws
from mdm.scoring.tile_pass import tile_stats
from mdm.scoring.tiles import Tiles, TokenDraw, merge_tiles
from packaging.version import Version

kernels = pytest.importorskip("mdm.scoring.tiles_triton", reason="Triton is not installed")

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
OLD = Version(metadata.version("triton")) < Version("3.7") and Version(metadata.version("numpy")) >= Version("2.5")
pytestmark = pytest.mark.skipif(DEVICE == "cpu" and OLD, reason="this Triton's interpreter wants a numpy before 2.5")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@st.composite
def logits(draw):
    """Rows of logits: any width, any type, coarse ones full of ties, some tokens or whole stretches at -inf."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rows = draw(st.integers(1, 2))
    width = draw(st.integers(2, 700) | st.integers(2000, 2100) | st.integers(16_300, 17_500))
    x = torch.randn(rows, width, generator=random) * draw(st.sampled_from([0.1, 3.0, 40.0]))
    if draw(st.booleans()):
        x = x.round()
    banned = draw(st.sampled_from(["none", "some", "front", "back"]))
    if banned == "some":
        x = x.masked_fill(torch.rand(x.shape, generator=random) < 0.3, -torch.inf)
    elif banned != "none":
        cut = slice(0, width // 2) if banned == "front" else slice(width // 2 + 1, width)
        x[:, cut] = -torch.inf
    x[:, width // 2] = 1.0
    return x.to(DTYPES[draw(st.sampled_from(list(DTYPES)))])


def kernel(x, first=0, draw=None):
    """Tiles of the kernel, on the CPU."""
    if draw is not None:
        draw = TokenDraw(draw.keys.to(DEVICE), draw.temperature, draw.never)
    return Tiles(*(part if part is None else part.cpu() for part in kernels.tile_stats(x.to(DEVICE), first, draw)))


@settings(max_examples=15)
@given(logits(), st.integers(0, 5))
def test_the_kernel_leaves_what_the_pass_in_torch_leaves(x, first):
    ours, theirs = merge_tiles([kernel(x, first)]), merge_tiles(tile_stats(x, first))
    assert torch.equal(ours.top_tokens[..., 0], theirs.top_tokens[..., 0])
    assert torch.equal(ours.top_logits, theirs.top_logits)
    finite = theirs.top_logits[..., 1].isfinite()
    assert torch.equal(ours.top_tokens[..., 1][finite], theirs.top_tokens[..., 1][finite])
    torch.testing.assert_close(ours.tail_sum, theirs.tail_sum, rtol=1e-4, atol=1e-30)
    torch.testing.assert_close(ours.tail_energy, theirs.tail_energy, rtol=1e-4, atol=1e-30)


@settings(max_examples=5)
@given(logits(), st.sampled_from([1, 3, 7]), st.sampled_from([0.3, 1.0, 2.0]), st.booleans())
def test_the_kernel_draws_the_same_tokens(x, candidates, temperature, forbid):
    rows = torch.arange(x.shape[0])
    keys = Draws(7, rows, rows * 3).token_keys(rows[:, None], torch.arange(candidates))
    never = int(x[0].float().argmax()) if forbid else None
    draw = TokenDraw(keys, temperature, never)
    ours, theirs = merge_tiles([kernel(x, 0, draw)]), merge_tiles(tile_stats(x, 0, draw))
    torch.testing.assert_close(ours.draw_value, theirs.draw_value, rtol=1e-4, atol=1e-4)
    assert torch.equal(ours.draw_token, theirs.draw_token)
    assert torch.equal(ours.draw_logit, theirs.draw_logit)
    assert torch.equal(ours.top_logits, theirs.top_logits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 8, 512, 2048, 2049])
def test_the_kernel_is_exact_to_float32(dtype, width):
    _near_float64(_rows(2, width, DTYPES[dtype]))


@pytest.mark.wide
@pytest.mark.parametrize("width", [126_464, 152_064])
def test_the_kernel_is_exact_over_a_whole_vocabulary(width):
    _near_float64(_rows(1, width, torch.bfloat16))


def test_rows_may_lie_apart_and_begin_anywhere():
    whole = _rows(2, 2060, torch.bfloat16)
    _near_float64(whole[:, 3:2051])
    _near_float64(whole.T.contiguous().T)


@pytest.mark.parametrize("tied", [(0, 1), (1, 2), (3, 4), (5, 1030), (700, 2055), (1024, 1027)], ids=str)
def test_of_equal_logits_the_lower_token_is_taken(tied):
    """Wherever they lie: in one lane and turn, in one lane in two turns, in two lanes."""
    x = torch.zeros(1, 4100).bfloat16()
    x[0, list(tied)] = 2.0
    assert kernel(x).top_tokens.flatten().tolist() == list(tied)
    x[0, tied[0]] = 3.0
    x[0, tied[0] + 2000] = 2.0
    second = min(tied[1], tied[0] + 2000)
    assert kernel(x).top_tokens.flatten().tolist() == [tied[0], second]


def test_nan_is_seen_and_tokens_stay_within_the_vocabulary():
    x = torch.randn(4, 2000, generator=torch.Generator().manual_seed(0))
    x[0, 5] = x[1] = torch.nan
    x[2] = -torch.inf
    x[3] = -1e38
    x[3, 9] = 1.0
    rows = torch.arange(4)
    draw = TokenDraw(Draws(7, rows, rows).token_keys(rows[:, None]), 1.0, None)
    tiles = kernel(x, 0, draw)
    assert tiles.tail_sum[:2].isnan().all() and tiles.tail_energy[:2].isnan().all()
    assert tiles.tail_sum[2:].tolist() == tiles.tail_energy[2:].tolist() == [[0.0], [0.0]]
    assert tiles.top_tokens[3, 0, 0] == tiles.draw_token[3, 0, 0] == 9
    for tokens in (tiles.top_tokens, tiles.draw_token):
        assert ((tokens >= 0) & (tokens < 2000)).all()


def test_a_row_does_not_depend_on_the_rows_beside_it():
    x = torch.randn(3, 20_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    together, alone = kernel(x), kernel(x[2:])
    for a, b in zip(together[:4], alone[:4], strict=True):
        assert torch.equal(a[2:], b)


def _rows(count, width, dtype):
    return (4 * torch.randn(count, width, generator=torch.Generator().manual_seed(width))).to(dtype)


def _near_float64(x):
    tiles, exact = merge_tiles([kernel(x)]), x.double()
    top, token = exact.max(1, keepdim=True)
    rest = exact.scatter(1, token, -torch.inf)
    z = rest - top
    e = z.exp()
    assert torch.equal(tiles.top_tokens[:, 0, :1], token)
    assert torch.equal(tiles.top_logits[:, 0].double(), torch.cat([top, rest.amax(1, keepdim=True)], 1))
    if x.shape[1] > 1:
        assert torch.equal(tiles.top_tokens[:, 0, 1], rest.argmax(1))
    torch.testing.assert_close(tiles.tail_sum.double(), e.sum(1, keepdim=True), rtol=1e-6, atol=0)
    torch.testing.assert_close(tiles.tail_energy.double(), (e * z).nansum(1, keepdim=True), rtol=1e-6, atol=0)


COMPILED = """
import triton
from mdm.scoring import tiles_triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

NAMES = "logits stride width first keys scale never top_out best_out tail_out energy_out value_out drawn_out logit_out"
REALS = "top_out tail_out energy_out value_out logit_out".split()
for dtype, draws in (("bf16", 0), ("bf16", 7), ("fp32", 0)):
    kinds = {"logits": f"*{dtype}", "keys": "*i64" if draws else f"*{dtype}", "scale": "fp32"}
    kinds |= dict.fromkeys(("stride", "width", "first", "never"), "i32") | dict.fromkeys(REALS, "*fp32")
    signature = {name: kinds.get(name, "*i64") for name in NAMES.split()}
    constants = {"DRAWS": draws, "SPLIT": 1 << 14, "TURN": 1024, "ALIGNED": 16}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=tiles_triton._pass, signature=signature, constexprs=constants)
    code = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert code.asm["cubin"]
"""


def test_the_kernel_compiles_for_a_gpu_that_is_not_there(tmp_path):
    """The interpreter runs what the compiler refuses: with and without draws, for an H100."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], env=environment | {"TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
