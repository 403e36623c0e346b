"""GenEval's figures for many pictures."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from mdm_geneval.metadata import TAGS


def summary(rows: Iterable[tuple[str, str, bool]]) -> dict[str, float]:
    """The shares of right pictures.

    Args:
        rows: for each picture its prompt's tag, the prompt (or whatever names it), and whether the picture is right.

    Returns:
        The share of each tag that occurs; ``overall``, GenEval's score, which is the mean of the six shares and is
        there only where all six are; ``images``, the share of all pictures; ``prompts``, the share of prompts with at
        least one right picture. Empty where there are no rows.
    """
    tags: dict[str, list[bool]] = {}
    prompts: dict[tuple[str, str], bool] = {}
    for tag, prompt, correct in rows:
        tags.setdefault(tag, []).append(correct)
        prompts[tag, prompt] = prompts.get((tag, prompt), False) or correct
    if not tags:
        return {}
    shares = {tag: fmean(tags[tag]) for tag in TAGS if tag in tags}
    overall = {"overall": fmean(shares.values())} if len(shares) == len(TAGS) else {}
    images = fmean(correct for graded in tags.values() for correct in graded)
    return overall | shares | {"images": images, "prompts": fmean(prompts.values())}
