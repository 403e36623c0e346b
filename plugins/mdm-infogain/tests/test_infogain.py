"""Info-Gain's choice is the definition's, computed here the long way, one full forward for each action."""

from __future__ import annotations

import mdm
import pytest
import torch
from tiny_families import MASK, save

PROMPT = [3, 14, 15, 92, 65, 35]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("models") / "llada", "llada"), device="cpu", dtype="float32")


def entropies(model, canvas):
    log_p = model.score_logits(canvas[None])[0].log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def by_definition(model, length, block, cost, reach):
    """Commit argmax J = U(z) - U(z') - C one position at a time, each action's U(z') from a forward of its own."""
    canvas = torch.tensor([*PROMPT, *[MASK] * length])
    order = []
    while (canvas == MASK).any():
        masks = (canvas == MASK).nonzero()[:, 0]
        start = len(PROMPT) + (int(masks[0]) - len(PROMPT)) // block * block
        actions = [int(p) for p in masks if p < start + block]
        token = model.score_logits(canvas[None])[0].index_fill(-1, torch.tensor([MASK]), -torch.inf).argmax(-1)
        before, value = entropies(model, canvas), {}
        for p in actions:
            after = canvas.clone()
            after[p] = token[p]
            left = (after == MASK).nonzero()[:, 0]
            left = left[left < start + block] if reach == "span" else left
            uncertainty = entropies(model, after)[left].mean() if len(left) else torch.tensor(0.0)
            value[p] = float(-uncertainty - (before[p] if cost else 0))
        best = max(value, key=value.__getitem__)
        # A lone action needs no comparison, whatever it brings.
        canvas[best] = token[best]
        order.append((best, int(token[best])))
    return order


@pytest.mark.parametrize("reach", ["open", "span"])
@pytest.mark.parametrize(("sampler", "cost"), [("info-gain", True), ("lookum", False)])
def test_the_order_is_the_definitions(model, sampler, cost, reach):
    options = {"candidates": "all", "reach": reach}
    [result] = mdm.decode(model, [PROMPT], sampler, options, gen_length=8, block_length=4)
    order = [(line["positions"][0], line["tokens"][0]) for line in result.trace]
    assert order == by_definition(model, 8, 4, cost, reach)


def test_without_a_choice_it_is_confidence(model):
    shape = {"gen_length": 12, "block_length": 6, "tokens_per_step": 2}
    [greedy] = mdm.decode(model, [PROMPT], "confidence", **shape)
    for options in ({"candidates": 1}, {"position_temperature": 0.0}):
        [result] = mdm.decode(model, [PROMPT], "info-gain", options, **shape)
        assert [line["positions"] for line in result.trace] == [line["positions"] for line in greedy.trace]
        assert result.rows == greedy.rows


@pytest.mark.parametrize(("bypass", "most"), [("capped", 2), ("all", 12)])
def test_a_bypassed_commit_holds_only_sure_positions(model, bypass, most):
    options = {"threshold": 0.3, "bypass": bypass}
    [result] = mdm.decode(model, [PROMPT], "info-gain", options, gen_length=12, block_length=12, tokens_per_step=2)
    canvas = torch.tensor([*PROMPT, *[MASK] * 12])
    seen = 0
    for line in result.trace:
        probability = model.score_logits(canvas[None])[0].softmax(-1)
        if line["kind"] == "bypass":
            seen += 1
            sure = {int(p) for p in (canvas == MASK).nonzero()[:, 0] if probability[p].max() >= 0.3}
            assert set(line["positions"]) <= sure and len(line["positions"]) == min(most, len(sure))
        canvas[line["positions"]] = torch.tensor(line["tokens"])
    assert seen


@pytest.mark.parametrize("bypass", ["all", "block"])
def test_with_threshold_zero_a_block_is_one_step(model, bypass):
    options = {"threshold": 0.0, "bypass": bypass}
    [result] = mdm.decode(model, [PROMPT], "info-gain", options, gen_length=12, block_length=4)
    start = len(PROMPT)
    assert [line["positions"] for line in result.trace] == [list(range(start + b, start + b + 4)) for b in (0, 4, 8)]
    assert result.rows == result.forwards == 3
