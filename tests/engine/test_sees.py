"""Samplers that see more than their block, and scores of committed positions that leave these out."""

from __future__ import annotations

from typing import ClassVar, Literal

import mdm
import pytest
import torch
from mdm.protocols import BaseSampler, Commit, NoOptions, top_k
from tiny_families import MASK, save

PROMPTS = [[3, 14, 15, 92, 65, 35], [89, 79, 32]]


class Ahead(BaseSampler):
    """Commits the most confident mask that it sees, wherever it is, and remembers nothing."""

    sees: ClassVar[Literal["block", "canvas"]] = "canvas"

    def decide(self, state, scores, memory, draws):
        return Commit(top_k(scores.log_odds, scores.valid, torch.ones_like(state.step)), scores.token)


class Reader(Ahead):
    """Also shown what has been decoded: it would rewrite all of it."""

    reads: ClassVar[Literal["masked", "generated", "left-out"]] = "generated"
    pace: ClassVar[Literal["schedule", "own"]] = "own"

    def decide(self, state, scores, memory, draws):
        masked = state.masked.gather(1, scores.positions) & scores.valid
        before = scores.valid & (state.blocks.gather(1, scores.positions) < state.block[:, None])
        best = top_k(scores.log_odds, masked, torch.ones_like(state.step))
        return Commit(best | before, torch.where(before, (scores.token + 1) % 50, scores.token))


@pytest.fixture(scope="module", params=["llada", "dream", "sdar"])
def model(request, tmp_path_factory):
    path = save(tmp_path_factory.mktemp("models") / request.param, request.param)
    return mdm.load_model(path, device="cpu", dtype="float32")


def order(result):
    return [(line["positions"], line["tokens"]) for line in result.trace if line["kind"] == "commit"]


@pytest.mark.parametrize("cache", ["none", "prefix", "dual", "block"])
def test_masks_behind_the_block_are_committed_where_the_forward_computes_them(model, cache):
    causal = model.spec.attention == "block-causal"
    if (cache == "block") != causal and cache != "none":
        pytest.skip("not a cache of this family")
    together = mdm.decode(model, PROMPTS, Ahead(NoOptions()), gen_length=12, block_length=4, cache=cache)
    for prompt, result in zip(PROMPTS, together, strict=True):
        [alone] = mdm.decode(model, [prompt], Ahead(NoOptions()), gen_length=12, block_length=4, cache=cache)
        assert order(alone) == order(result)
        assert MASK not in result.sequence
        at = [positions[0] - len(prompt) for positions, _ in order(result)]
        assert sorted(at) == list(range(len(result.sequence) - len(prompt)))
        blocks = [p // 4 for p in at] if not causal else [(p + len(prompt)) // 4 for p in at]
        assert (blocks == sorted(blocks)) == (cache == "block")


def test_the_most_confident_mask_of_all_goes_first(model):
    [result] = mdm.decode(model, PROMPTS[:1], Ahead(NoOptions()), gen_length=12, block_length=4, cache="none")
    canvas = torch.tensor([PROMPTS[0] + [MASK] * (len(result.sequence) - len(PROMPTS[0]))])
    for positions, tokens in order(result):
        logits = model.score_logits(canvas, block_length=4)[0].clone()
        logits[:, MASK] = -torch.inf
        confidence = logits.softmax(-1).amax(-1).where(canvas[0] == MASK, -1)
        assert positions == [int(confidence.argmax())]
        canvas[0, positions] = torch.tensor(tokens)


def test_what_lies_before_the_block_is_final(model):
    [result] = mdm.decode(model, PROMPTS[:1], Reader(NoOptions()), gen_length=12, block_length=4, cache="none")
    assert {line["kind"] for line in result.trace} == {"commit"}
    assert MASK not in result.sequence


class LeftOut(BaseSampler):
    """Commits one mask a step, and keeps what it is told of the committed ones."""

    reads: ClassVar[Literal["masked", "generated", "left-out"]] = "left-out"

    def __init__(self, seen):
        super().__init__(NoOptions())
        self.seen = seen

    def decide(self, state, scores, memory, draws):
        masked = state.masked.gather(1, scores.positions) & scores.valid
        for row in range(len(state.step)):
            held = (scores.valid & ~masked)[row]
            self.seen.append((state.tokens[row], scores.positions[row][held], scores.held[row][held]))
        return Commit(top_k(scores.log_odds, masked, state.budget), scores.token)


def test_left_out_is_what_a_mask_beside_the_canvas_says(model):
    """Against a forward of its own: the canvas without the position, and the masks that shadow the block."""
    if model.spec.shift or model.spec.attention != "full":
        pytest.skip("the slow way below is for full attention")
    seen: list = []
    mdm.decode(model, PROMPTS[:1], LeftOut(seen), gen_length=8, block_length=8, cache="none", steps=4)
    start = len(PROMPTS[0])
    checked = 0
    for canvas, positions, held in seen:
        for position, p in zip(positions.tolist(), held.tolist(), strict=True):
            whole = torch.cat([canvas, torch.full((8,), MASK)])[None]
            at = torch.cat([torch.arange(len(canvas)), torch.arange(start, start + 8)])[None]
            length = len(canvas)
            visible = torch.ones(length + 8, length + 8, dtype=torch.bool)
            visible[:length, length:] = False
            for j in range(8):
                visible[length + j, start + j] = False
            mask = torch.zeros(visible.shape).masked_fill(~visible, -1e9)[None, None]
            logits = model.head(model.hidden(whole, at, mask=mask))[0, length + position - start]
            logits[MASK] = -torch.inf
            assert float(logits.softmax(-1)[canvas[position]]) == pytest.approx(p, abs=1e-5)
            checked += 1
    assert checked > 10


def test_a_batch_of_shadows_is_each_row_alone(model):
    if model.spec.shift:
        with pytest.raises(mdm.MdmError, match="wino.*predict a token where another"):
            mdm.decode(model, PROMPTS, "wino", gen_length=12)
        return
    settings = {"gen_length": 24, "block_length": 12, "guidance": 0.5, "cache": "none"}
    options = {"threshold": 0.0, "threshold_back": 1.0}
    together = mdm.decode(model, PROMPTS, "wino", options, **settings)
    kinds = set()
    for prompt, result in zip(PROMPTS, together, strict=True):
        [alone] = mdm.decode(model, [prompt], "wino", options, **settings)
        assert [(x["kind"], x["positions"], x["tokens"]) for x in alone.trace] == [
            (x["kind"], x["positions"], x["tokens"]) for x in result.trace
        ]
        kinds |= {line["kind"] for line in result.trace}
    assert kinds == {"commit", "remask"}


def test_left_out_needs_whole_forwards(model):
    cache = "block" if model.spec.attention == "block-causal" else "dual"
    with pytest.raises(mdm.MdmError, match="wino.*--cache none"):
        mdm.decode(model, PROMPTS, "wino", gen_length=8, cache=cache)
