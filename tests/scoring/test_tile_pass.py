"""What is compiled decides as what is not, and says what it wants."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.cli import main
from mdm.protocols import Draws
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
    for name in ("top_logits", "top_tokens", "draw_token", "draw_logit"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    for name in ("tail_sum", "tail_energy", "draw_value"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=1e-5)


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
