"""One beam is Info-Gain; more keep what pays least, and count a canvas once."""

from __future__ import annotations

import mdm
import pytest
import torch
from tiny_families import MASK, save

PROMPTS = [[3, 14, 15, 92, 65, 35], [8, 97, 93], [2, 38, 46, 26, 43, 38, 32, 79]]
SHAPE = {"gen_length": 12, "block_length": 6}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("models") / "llada", "llada"), device="cpu", dtype="float32")


def essence(results):
    return [([(x["positions"], x["tokens"], x["kind"]) for x in r.trace], r.forwards, r.rows) for r in results]


@pytest.mark.parametrize("options", [{}, {"candidates": "all"}, {"threshold": 0.3, "bypass": "all"}], ids=str)
@pytest.mark.parametrize("cache", ["none", "dual"])
def test_one_beam_is_info_gain(model, options, cache):
    plain = mdm.decode(model, PROMPTS, "info-gain", options, cache=cache, **SHAPE)
    assert essence(mdm.decode(model, PROMPTS, "beam", {"beam_size": 1, **options}, cache=cache, **SHAPE)) == essence(
        plain
    )


def exhaustive(model, prompt, length):
    """The order of all that pays the least entropy, each canvas reached at its least cost."""
    start = (prompt + [MASK] * length, 0.0)
    level = {tuple(start[0]): 0.0}
    for _ in range(length):
        following = {}
        for canvas, paid in level.items():
            logits = model.score_logits(torch.tensor([canvas]))[0]
            log_p = logits.log_softmax(-1)
            entropy = -(log_p.exp() * log_p).sum(-1)
            token = logits.index_fill(-1, torch.tensor([MASK]), -torch.inf).argmax(-1)
            for p in [p for p, t in enumerate(canvas) if t == MASK]:
                after = (*canvas[:p], int(token[p]), *canvas[p + 1 :])
                following[after] = min(following.get(after, torch.inf), paid + float(entropy[p]))
        level = following
    return min(level.items(), key=lambda item: item[1])


def test_a_beam_that_holds_everything_finds_the_best(model):
    """4 masks have 24 orders; 64 beams lose none of them."""
    [result] = mdm.decode(model, PROMPTS[:1], "beam", {"beam_size": 64, "candidates": "all"}, gen_length=4)
    canvas, paid = exhaustive(model, PROMPTS[0], 4)
    assert tuple(result.sequence) == canvas
    assert result.cumulative_entropy == pytest.approx(paid, abs=1e-4)


def test_rows_are_those_of_all_beams_and_forwards_those_of_one(model):
    """From one canvas 3 actions, from each of the 3 that follow 2 more, and what is left of those."""
    [result] = mdm.decode(model, PROMPTS[:1], "beam", {"beam_size": 9, "candidates": "all"}, gen_length=3)
    assert [line["forwards"] for line in result.trace] == [2, 1, 1]
    assert result.trace[0]["rows"] == 1 + 3 and result.trace[1]["rows"] == 3 * 2
    # Trajectories that meet are one: at most 6 of the last step's canvases differ.
    assert 1 <= result.trace[2]["rows"] <= 6


def test_beams_with_fills_end_together(model):
    [free] = mdm.decode(model, PROMPTS[:1], "beam", {"beam_size": 3}, **SHAPE)
    for end in free.tokens[:4]:
        results = mdm.decode(model, PROMPTS, "beam", {"beam_size": 3}, stop_at_eos=True, eos_token_id=end, **SHAPE)
        assert len(results) == len(PROMPTS)
        assert all(MASK not in r.sequence for r in results)


def test_drawn_tokens_differ_between_forks(model):
    """A forked row has draws of its own, the same ones in any batch."""
    options = {"temperature": 1.0, **SHAPE}
    together = mdm.decode(model, PROMPTS, "beam", {"beam_size": 3}, **options)
    [alone] = mdm.decode(model, PROMPTS[1:2], "beam", {"beam_size": 3}, row_ids=[1], **options)
    assert essence([alone]) == essence([together[1]])


@pytest.mark.parametrize("seed", range(6))
def test_forks_draw_the_same_whether_scores_are_reused_or_not(model, seed):
    """What the lookahead drew for a canvas it drew as the row that is forked: only that row goes on with it."""
    options = {"temperature": 1.0, "seed": seed, **SHAPE}
    reused, afresh = (
        [[(line["positions"], line["tokens"]) for line in result.trace] for result in results]
        for results in (
            mdm.decode(model, PROMPTS, "beam", {"beam_size": 3}, reuse_scores=reuse, **options)
            for reuse in (True, False)
        )
    )
    assert reused == afresh
