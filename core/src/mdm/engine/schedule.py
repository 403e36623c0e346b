"""Where blocks lie, and how many tokens each step commits."""

from __future__ import annotations

import math
from functools import lru_cache

MASKGIT = "maskgit"
"""What the schedules of pictures begin with; the name alone is the cosine."""


@lru_cache(maxsize=4096)
def num_transfer_tokens(schedule: str, masks: int, steps: int, total: int | None = None) -> tuple[int, ...]:
    """How many of ``masks`` masked positions each step commits.

    Args:
        schedule: one of ``mdm.protocols.settings``.
        total: the slots of a picture, of which some may be known from the start (default: ``masks``). Schedules of
            pictures say how many of these are to be left; to the others it means nothing.
    """
    if masks <= 0:
        return ()
    if schedule == "even":
        return _even(masks, steps)
    if schedule.startswith(MASKGIT):
        return _maskgit(schedule.removeprefix(MASKGIT).removeprefix("-"), masks, steps, total or masks)
    return _dream(masks, steps) if schedule == "dream" else _by_visibility(schedule, masks, steps)


def _even(masks: int, steps: int) -> tuple[int, ...]:
    """m // s, the first m % s steps one more; at least one a step (LLaDA's get_num_transfer_tokens)."""
    each, more = divmod(masks, steps)
    return (each + 1,) * more + ((each,) * (steps - more) if each else ())


def _dream(masks: int, steps: int) -> tuple[int, ...]:
    """With t from 1 to 0.001, floor(remaining (1 - t' / t)), and all that is left in the last step.

    A step of zero is kept.
    """
    times = [1 + i * (0.001 - 1) / steps for i in range(steps + 1)]
    counts, left = [], masks
    for i in range(steps):
        count = left if i == steps - 1 else int(left * (1 - times[i + 1] / times[i]))
        counts.append(count)
        left -= count
    return tuple(counts)


def _by_visibility(schedule: str, masks: int, steps: int) -> tuple[int, ...]:
    """round-half-even(remaining (1 - (1 - a(t')) / (1 - a(t)))) with t from 1 to 0 (dllm).

    a(t) is 1 - t ("linear") or 1 - cos(pi/2 (1 - t)) ("cosine"). Steps of zero are dropped.
    """
    import torch

    counts, left = [], masks
    for i in range(steps):
        # float32, as published: round-half-even meets many exact halves, and their side is part of the schedule.
        pair = torch.tensor([1 - i / steps, 1 - (i + 1) / steps], dtype=torch.float32)
        visible = 1 - pair if schedule == "linear" else 1 - torch.cos(math.pi / 2 * (1 - pair))
        count = min(int(torch.round(left * (1 - (1 - visible[1]) / (1 - visible[0])))), left)
        if count > 0:
            counts.append(count)
            left -= count
    return tuple(counts)


def _maskgit(curve: str, masks: int, steps: int, total: int) -> tuple[int, ...]:
    """After step i, floor(total f((i + 1) / steps)) masks are left, and after the last step none (MaskGIT, MMaDA).

    Each step commits at least one mask while there are two: where slots are known from the start, one each until the
    curve f is reached. The last mask waits for the last step, and steps of zero before it are kept.
    """
    import torch

    # float32, as published: floor meets many whole numbers, and their side is part of the schedule.
    time = torch.tensor([(i + 1) / steps for i in range(steps)], dtype=torch.float32)
    if curve == "":
        share = torch.cos(time * math.pi * 0.5)
    elif curve == "sigmoid":
        ends = torch.sigmoid(torch.tensor([-3.0, 3.0]))
        share = ((ends[1] - torch.sigmoid(time * 6 - 3)) / (ends[1] - ends[0])).clamp(1e-6, 1.0)
    else:
        power = 1.0 if curve == "linear" else float(curve.removeprefix("pow"))
        share = (1 - time**power).clamp(1e-6, 1.0)
    counts, left = [], masks
    for due in (total * share).floor().int().tolist()[:-1]:
        after = max(1, min(left - 1, due))
        counts.append(left - after)
        left = after
    return (*counts, left)


def split(total: int, parts: int) -> list[int]:
    """``total`` steps over ``parts`` blocks: evenly, the first ones taking the remainder, at least one each."""
    each, more = divmod(total, parts)
    return [max(1, each + (i < more)) for i in range(parts)]


def blocks(
    prompt_length: int, gen_length: int, block_length: int, *, grid: bool, rounds_up: bool = True
) -> list[tuple[int, int]]:
    """The blocks ``[start, stop)`` of a generation, left to right.

    From the end of the prompt with a ragged last one; or, on a ``grid`` from position 0, grid blocks of which the first
    may begin inside the prompt and the last is whole where it ``rounds_up``.
    """
    end = prompt_length + gen_length
    first = prompt_length // block_length * block_length if grid else prompt_length
    stop = end + block_length if grid and rounds_up else end
    return [(s, min(s + block_length, stop)) for s in range(first, end, block_length)]
