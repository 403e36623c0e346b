"""How likely a text is to a masked diffusion model: LLaDA's Monte-Carlo bound (Nie et al., arXiv:2502.09992, eq. 6).

Of the L tokens of an answer, l are masked, l uniform in 1..L and the positions uniform without replacement:

    log p(answer | prompt) >= E[ L / l * sum over the masked i of log p(token i | prompt, the unmasked tokens) ]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from mdm.errors import MdmError
from mdm.models import Model
from mdm.protocols import Draws
from torch import Tensor


@dataclass(frozen=True)
class Answer:
    """Token ids, of which ``target`` is scored after ``prefix``; the model's own suffix is put behind both."""

    prefix: tuple[int, ...]
    target: tuple[int, ...]


def masks(length: int, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Different masks bool ``[R, length]`` and the weight of each ``[R]``, which hold L / l and how often it was drawn.

    The numbers of masked tokens are spread evenly over 1..L (stratified). Draws depend on length and seed only, so the
    answers to one question are compared under the same masks. Equal masks are run once: short answers cost few rows.
    """
    draw = torch.arange(draws)
    keys = Draws(seed, draw, torch.zeros_like(draw))
    at = torch.arange(length).expand(draws, -1)
    offset = keys.uniform("likelihood offset", torch.zeros(draws, 1, dtype=torch.long))[:1, 0]
    count = 1 + ((draw + offset) * (length / draws)).long().clamp(max=length - 1)
    rank = keys.uniform("likelihood", at).argsort(1).argsort(1)
    different, often = torch.unique(rank < count[:, None], dim=0, return_counts=True)
    return different, often / draws * length / different.sum(1)


@torch.inference_mode()
def log_likelihoods(
    model: Model,
    answers: Sequence[Answer],
    *,
    draws: int,
    seed: int = 0,
    batch_size: int = 16,
    block_length: int | None = None,
    guidance: float = 0.0,
    done: Callable[[int], None] = lambda index: None,
) -> list[float]:
    """The bound of each answer, in nats; of an autoregressive model its log-likelihood is exact: ``exact``.

    A block-causal model sees no later block, so there the bound is taken block by block, each after its finished past.

    Args:
        draws: masks drawn for an answer (of a block-causal model: for each block).
        batch_size: canvases in one forward.
        block_length: a block-causal model's grid (default: the family's own).
        guidance: scale w of classifier-free guidance: logits are u + (w + 1)(c - u), u those with the prefix masked.
        done: called with the index of an answer when its value is known.
    """
    values = []
    for index, answer in enumerate(answers):
        parts = _parts(model, answer, block_length)
        how = (len(answer.prefix), guidance, draws, seed, batch_size, block_length)
        values.append(sum(_bound(model, part, *how) for part in parts))
        done(index)
    return values


@torch.inference_mode()
def exact(
    model: Model,
    answers: Sequence[Answer],
    *,
    max_length: int,
    batch_size: int = 16,
    done: Callable[[int], None] = lambda index: None,
) -> list[tuple[float, bool]]:
    """What an autoregressive model gives each answer (nats), and whether each of its tokens is the most probable one.

    ``batch_size`` and ``done`` are those of ``log_likelihoods``.

    Args:
        max_length: tokens of prefix and target together; of a longer prefix the end is kept.

    Raises:
        MdmError: an answer that has nothing before it, or is longer than ``max_length``.
    """
    for answer in answers:
        if answer.target and not answer.prefix:
            raise MdmError(f"{model.name or 'the model'} needs a token before an answer, and has neither BOS nor EOS")
        if len(answer.target) >= max_length:
            raise MdmError(f"an answer of {len(answer.target)} tokens needs a max_length above {max_length}")
    values: dict[int, tuple[float, bool]] = {}
    order = sorted(range(len(answers)), key=lambda i: len(answers[i].prefix) + len(answers[i].target))
    for lo in range(0, len(order), batch_size):
        batch = order[lo : lo + batch_size]
        rows = [(answers[i].prefix + answers[i].target)[-max_length:] for i in batch]
        longest = max(map(len, rows))
        if not longest:
            continue
        tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=model.device)
        logits = model.score_logits(tokens).float()  # what is padded lies behind, where nothing looks
        for i, row, scores in zip(batch, rows, logits, strict=True):
            start, end = len(row) - len(answers[i].target), len(row)
            target, logp = tokens.new_tensor(row[start:]), scores[start:end].log_softmax(-1)
            chosen = logp.gather(-1, target[:, None])[:, 0]
            values[i] = float(chosen.double().sum()), bool((logp.argmax(-1) == target).all())
            done(i)
    return [values.get(i, (0.0, True)) for i in range(len(answers))]


def _parts(model: Model, answer: Answer, block_length: int | None) -> list[Answer]:
    if model.spec.attention != "block-causal":
        return [answer] if answer.target else []
    size = block_length or model.spec.block_length or 1
    whole, start = answer.prefix + answer.target, len(answer.prefix)
    edges = [start, *range((start // size + 1) * size, len(whole), size), len(whole)]
    return [Answer(whole[:a], whole[a:b]) for a, b in pairwise(edges) if a < b]


def _bound(
    model: Model, answer: Answer, prompt: int, guidance: float, draws: int, seed: int, batch_size: int,
    block_length: int | None,
) -> float:  # fmt: skip
    """The bound of an answer whose prefix begins with ``prompt`` tokens of a prompt, which guidance masks."""
    hidden, weight = masks(len(answer.target), draws, seed)
    start = len(answer.prefix)
    end = start + len(answer.target)
    sequence = torch.tensor(answer.prefix + answer.target + model.spec.suffix, device=model.device)
    target = sequence[start:end]
    positions = torch.arange(start, end, device=model.device)
    total = 0.0
    for lo in range(0, len(hidden), batch_size):
        part = hidden[lo : lo + batch_size].to(model.device)
        canvas = sequence.repeat(len(part), 1)
        canvas[:, start:end].masked_fill_(part, model.spec.mask_id)
        logits = model.score_logits(canvas, block_length, positions).float()
        if guidance:
            canvas[:, :prompt] = model.spec.mask_id
            blind = model.score_logits(canvas, block_length, positions).float()
            logits = blind + (guidance + 1) * (logits - blind)
        logits[..., model.spec.mask_id] = -torch.inf  # decoding never draws it either
        logp = logits.log_softmax(-1).gather(-1, target.expand_as(part)[..., None])[..., 0]
        total += float((logp.masked_fill(~part, 0).sum(1).double().cpu() * weight[lo : lo + batch_size]).sum())
    return total
