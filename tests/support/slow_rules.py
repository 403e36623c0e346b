"""A sampler's rule, written once more for one row and without tensors, held against what it does in a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import mdm
import torch
from samplers2026 import Change, changed
from tiny_families import MASK, SCRATCH, save

PROMPTS = [[3, 14, 15, 92, 65, 35], [2, 71, 82, 81], [1, 61, 80, 33, 98, 87, 49, 89, 48, 20]]


@dataclass(frozen=True)
class Said:
    """What the model says of one position, in float64."""

    token: int
    """the likeliest one that is not the mask"""
    confidence: float
    """its probability"""
    margin: float
    """probability of the likeliest of all tokens minus that of the second"""
    p: torch.Tensor
    """probability of each token"""
    logits: torch.Tensor


Step = Callable[[list[int], list[Said], range, int], Change]
"""What a step puts on the canvas, of the block at these positions, in step t of it; the mask id masks again"""


@lru_cache
def tiny(scale: float = 1.0) -> Any:
    """A random LLaDA whose logits are multiplied by ``scale``."""
    model = mdm.load_model(save(SCRATCH / f"slow-{scale}", "llada"), device="cpu", dtype="float32")
    model.lm_head.weight.requires_grad_(False).mul_(scale)
    return model


def look(model: Any, canvas: Sequence[int]) -> list[Said]:
    """What the model says of each position of this canvas."""
    logits = model.score_logits(torch.tensor([canvas]))[0].double()
    p = logits.softmax(-1)
    token = logits.masked_fill(torch.arange(p.shape[1]) == MASK, -torch.inf).argmax(-1)
    best, second = p.topk(2).values.unbind(-1)
    columns = token.tolist(), p.gather(1, token[:, None])[:, 0].tolist(), (best - second).tolist(), p, logits
    return [Said(*row) for row in zip(*columns, strict=True)]


def decoded(model: Any, prompt: list[int], length: int, block: int, step: Step) -> list[Change]:
    """What each step of a whole decode changes, block after block."""
    canvas, out, stop = prompt + [MASK] * length, [], len(prompt) + length
    for start in range(len(prompt), stop, block):
        span, t = range(start, min(start + block, stop)), 0
        while any(canvas[i] == MASK for i in span):
            after = step(list(canvas), look(model, canvas), span, t)
            out.append({i: v for i, v in after.items() if canvas[i] != v})
            for i, v in after.items():
                canvas[i] = v
            t += 1
    return out


def agree(
    sampler: str, options: dict[str, Any], rule: Callable[[], Step], lengths: Sequence[int], block: int,
    scale: float = 1.0, **settings: Any,
) -> list[mdm.Result]:  # fmt: skip
    """Prompts of other lengths, of which one waits for room, change as ``rule()`` has each change alone."""
    results = mdm.decode(
        tiny(scale), PROMPTS[: len(lengths)], sampler, options, cache="none", batch_size=2,
        gen_length=list(lengths), block_length=block, **settings,
    )  # fmt: skip
    for prompt, length, result in zip(PROMPTS, lengths, results, strict=False):
        expected = decoded(tiny(scale), prompt, length, block, rule())
        assert changed(result) == expected
    return results
