"""The goldens of the samplers and caches of 2026: published code on the tiny LLaDA, with its head scaled."""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import Any

import mdm
import pytest
from goldens import ABSENT, cases, folder

MASK = 250

Change = dict[int, int]
"""Position -> the token that a step left there"""


def traces(name: str, only: str = "") -> list[Any]:
    """The cases of ``traces_NAME``, as parameters; those that do not bind are expected to differ."""
    found = cases("samplers2026", f"traces_{name}", only)
    for n, case in enumerate(found):
        if case.values[0] is not None and not case.values[0]["binds"]:
            why = case.values[0]["not_binding_because"]
            found[n] = pytest.param(*case.values, id=case.id, marks=pytest.mark.xfail(reason=why, strict=True))
    return found


@lru_cache(maxsize=2)
def llada(head_scale: float = 1.0) -> Any:
    """The tiny LLaDA of the goldens with its head's weights times ``head_scale``."""
    if not folder("llada").is_dir():
        pytest.skip(ABSENT)
    model = mdm.load_model(folder("llada") / "checkpoint", dtype="float32", device="cpu")
    model.lm_head.weight.requires_grad_(False).mul_(head_scale)
    return model


def changes(case: dict[str, Any]) -> list[Change]:
    """What each model call of a case's whole decode changed on the canvas, where it changed anything."""
    [prompt] = case["prompt"]
    canvas = dict.fromkeys(range(len(prompt), len(case["output"][0])), MASK)
    groups = ([(s["positions"], s["tokens"]) for s in steps] for _, steps in groupby(case["steps"], lambda s: s["nfe"]))
    return _net(canvas, groups)


def changed(result: mdm.Result) -> list[Change]:
    """The same of our steps."""
    canvas = dict.fromkeys(range(result.prompt_tokens, len(result.sequence)), MASK)
    groups = (
        [(line["positions"], line["tokens"]) for line in lines]
        for _, lines in groupby(result.trace, lambda line: line["step"])
    )
    return _net(canvas, groups)


def _net(canvas: Change, groups: Any) -> list[Change]:
    out = []
    for group in groups:
        after = dict(canvas)
        for positions, tokens in group:
            after.update(zip(positions, tokens, strict=True))
        out.append({p: t for p, t in after.items() if canvas[p] != t})
        canvas = after
    return [change for change in out if change]
