"""What is committed is what the definition says, with distributions from forwards of its own."""

from __future__ import annotations

import mdm
import pytest
import torch
from tiny_families import MASK, save

PROMPT = [3, 14, 15, 92, 65, 35]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("models") / "llada", "llada"), device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("threshold", "kl", "history"), [(0.3, 0.5, 1), (0.2, 1.0, 2), (0.9, 0.01, 2), (0.0, 100.0, 1)]
)
def test_the_order_is_the_definitions(model, threshold, kl, history):
    options = {"threshold": threshold, "kl_threshold": kl, "history": history}
    [result] = mdm.decode(model, [PROMPT], "klass", options, gen_length=12, block_length=6, cache="none")
    canvas, before, calm = torch.tensor([PROMPT + [MASK] * 12]), None, {}
    for line in result.trace:
        log_p = model.score_logits(canvas)[0].log_softmax(-1)
        masks = [p for p in range(len(PROMPT), 18) if canvas[0, p] == MASK]
        block = [p for p in masks if (p - 6) // 6 == (masks[0] - 6) // 6]
        for p in block:
            near = before is not None and p in before and float((log_p[p].exp() * (log_p[p] - before[p])).sum()) < kl
            calm[p] = calm.get(p, 0) + 1 if near else 0
        confidence = {p: float(log_p[p].exp().max()) for p in block}
        stable = [p for p in block if calm[p] >= history and confidence[p] >= threshold]
        assert line["positions"] == (stable or [max(block, key=confidence.__getitem__)])
        before = {p: log_p[p] for p in block}
        canvas[0, line["positions"]] = torch.tensor(line["tokens"])
    assert (len(result.trace) < 12) == (threshold < 0.9)


def test_it_sets_its_own_pace(model):
    """With every mask stable it commits the whole block at once, whatever the schedule says; and it says so."""
    options = {"threshold": 0.0, "kl_threshold": 1e9, "history": 1}
    [result] = mdm.decode(model, [PROMPT], "klass", options, gen_length=12, block_length=6, cache="none")
    assert max(len(line["positions"]) for line in result.trace) > 1
    assert mdm.registry.resolve("sampler", "klass").pace == "own"
