"""Each score puts another position first; k is each row's own."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm_greedy import Confidence, Entropy, LeftToRight, Margin
from tiny_families import MASK, save

PROMPT = [3, 14, 15, 92, 65, 35]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("models") / "llada", "llada"), device="cpu", dtype="float32")


def keys(model, canvas):
    p = model.score_logits(canvas[None])[0].double().softmax(-1)
    two = p.topk(2, -1).values
    return {
        "confidence": two[:, 0],
        "entropy": (p * p.log()).sum(-1),
        "margin": two[:, 0] - two[:, 1],
        "left-to-right": -torch.arange(len(canvas)).double(),
    }


@pytest.mark.parametrize("sampler", ["confidence", "entropy", "margin", "left-to-right"])
def test_the_best_k_by_the_samplers_own_score(model, sampler):
    [result] = mdm.decode(model, [PROMPT], sampler, gen_length=12, block_length=12, tokens_per_step=3)
    canvas = torch.tensor([*PROMPT, *[MASK] * 12])
    assert len(result.trace) == 4
    for line in result.trace:
        key = keys(model, canvas)[sampler].masked_fill(canvas != MASK, -torch.inf)
        assert set(line["positions"]) == set(key.topk(3).indices.tolist())
        canvas[line["positions"]] = torch.tensor(line["tokens"])


def test_the_scores_differ(model):
    orders = {
        name: tuple(p for line in mdm.decode(model, [PROMPT], name, gen_length=32)[0].trace for p in line["positions"])
        for name in ("confidence", "entropy", "margin", "random", "left-to-right")
    }
    assert len(set(orders.values())) == 5
    assert all(sorted(order) == list(range(6, 38)) for order in orders.values())


@pytest.mark.parametrize("kind", [Confidence, Entropy, Margin, LeftToRight])
def test_no_option_is_taken(kind):
    assert not kind.Options.model_fields
