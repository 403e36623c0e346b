"""Where the goldens lie: outputs of the published code on tiny weights, read by path."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MDM_SHARED", ROOT.parent / "shared"))
ABSENT = "the goldens of the published code are not on this machine (set MDM_SHARED)"


def folder(family: str) -> Path:
    return SHARED / "goldens" / family


def cases(family: str, file: str, only: str = "") -> list[Any]:
    """The cases of a golden trace file whose name holds ``only``, as parameters named after them."""
    path = folder(family) / f"{file}.json"
    if not path.is_file():
        return [pytest.param(None, id=f"{family}-{file}", marks=pytest.mark.skip(reason=ABSENT))]
    found = [c for c in json.loads(path.read_text())["cases"] if only in c["name"]]
    return [pytest.param(c, id=c["name"]) for c in found]


def facts(family: str, file: str) -> Any:
    path = folder(family) / f"{file}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def tensors(family: str, file: str) -> dict[str, torch.Tensor]:
    path = folder(family) / f"{file}.safetensors"
    if not path.is_file():
        pytest.skip(ABSENT)
    return load_file(path)


def forwards(logits: Callable[[torch.Tensor], torch.Tensor], family: str, case: str, expected: str = "logits") -> None:
    """What a published forward gave for a batch of canvases, within 1e-4."""
    golden = tensors(family, "forward")
    torch.testing.assert_close(
        logits(golden[f"{case}.input_ids"]), golden[f"{case}.{expected}"], atol=1e-4, rtol=0
    )  # fmt: skip


def steps(case: dict[str, Any], row: int | None = None) -> list[tuple[list[int], list[int]]]:
    """What each decoding step of a case committed: positions and tokens; with ``row``, of that row of a batch."""
    out = []
    for step in case["steps"]:
        if step["kind"] != "decode":
            continue
        rows = step.get("rows", [row] * len(step["positions"]))
        chosen = [(p, t) for p, t, r in zip(step["positions"], step["tokens"], rows, strict=True) if r == row]
        out.append(([p for p, _ in sorted(chosen)], [t for _, t in sorted(chosen)]))
    return out


def committed(trace: list[dict[str, Any]]) -> list[tuple[list[int], list[int]]]:
    """The same of a result's trace."""
    lines = [line for line in trace if line["kind"] in ("commit", "bypass") and line["positions"]]
    pairs = [sorted(zip(line["positions"], line["tokens"], strict=True)) for line in lines]
    return [([p for p, _ in pair], [t for _, t in pair]) for pair in pairs]
