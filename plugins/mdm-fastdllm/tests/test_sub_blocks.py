"""Sub-blocks are finished as the definition says, with forwards of its own; no step of a shifted block is wasted."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm_testing.probe import essence
from mdm_testing.toy import MASK, toy_model

PROMPTS = [[3, 14, 15, 92, 65, 35], [8, 9, 7, 9]]
BLOCK, LENGTH = 8, 14


def defined(model, prompt, threshold, sub_block):
    """The definition, written out for one canvas: what each step commits."""
    spec, steps = model.spec, []
    grid = spec.attention == "block-causal"
    end = -(-(len(prompt) + LENGTH) // BLOCK) * BLOCK if grid else len(prompt) + LENGTH
    canvas = [*prompt, *[MASK] * (end - len(prompt))]
    for start in range(len(prompt) // BLOCK * BLOCK if grid else len(prompt), end, BLOCK):
        while masks := [p for p in range(start, min(start + BLOCK, end)) if canvas[p] == MASK]:
            p_of = model.score_logits(torch.tensor([canvas]), BLOCK)[0].clone()
            token = p_of.index_fill(1, torch.tensor(MASK), -torch.inf).argmax(-1)
            confidence = p_of.softmax(-1).gather(1, token[:, None])[:, 0]
            now = [p for p in masks if (p - start) // sub_block == (masks[0] - start) // sub_block]
            best = max(now, key=lambda p: float(confidence[p]))
            chosen = [p for p in now if p == best or confidence[p] > threshold]
            if spec.shift and masks[0] == start:
                chosen = [start]
            for p in chosen:
                canvas[p] = int(token[p])
            steps.append((chosen, [canvas[p] for p in chosen]))
    return steps


@pytest.mark.parametrize("shift", [False, True], ids=["plain", "shifted"])
@pytest.mark.parametrize(
    ("attention", "cache"), [("full", "none"), ("block-causal", "none"), ("block-causal", "block")]
)
@pytest.mark.parametrize(("threshold", "sub_block"), [(0.5, 3), (0.3, 4), (1.0, 8), (0.0, 20)])
def test_the_steps_are_the_definitions(attention, shift, cache, threshold, sub_block):
    model = toy_model(attention, shift=shift)
    options = {"threshold": threshold, "sub_block": sub_block}
    both = mdm.decode(model, PROMPTS, "fastdllm-v2", options, cache, gen_length=LENGTH, block_length=BLOCK)
    for prompt, result in zip(PROMPTS, both, strict=True):
        expected = defined(model, prompt, threshold, sub_block)
        assert [(line["positions"], line["tokens"]) for line in result.trace] == expected
        assert result.forwards == len(expected)
        [alone] = mdm.decode(model, [prompt], "fastdllm-v2", options, cache, gen_length=LENGTH, block_length=BLOCK)
        assert essence(alone) == essence(result)


@pytest.mark.parametrize(("name", "value"), [("sub_block", 0), ("threshold", 1.5)])
def test_options_have_bounds(name, value):
    with pytest.raises(mdm.MdmError, match=f"option fastdllm-v2.{name}={value}"):
        mdm.decode(toy_model(), PROMPTS, "fastdllm-v2", {name: value}, gen_length=4)
