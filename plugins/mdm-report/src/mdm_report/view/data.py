"""The traces of runs, brought together by example: the data of the page and of the pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from mdm.errors import MdmError, explain
from mdm.runs import files
from mdm.runs.results import ExampleResult, Natural
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mdm_report.runs import RunVariant, read_run
from mdm_report.view.album import Album

PAID = ("commit", "bypass")
"""Kinds of trace lines whose entropies add up to the cumulative entropy."""
DECODED = {"commit": 1, "bypass": 1, "fill": 1, "edit": 0, "remask": -1}
"""Kind of a trace line -> by how many tokens more are decoded after it, for each of its positions."""
Position = Annotated[int, Field(ge=0, lt=2**24)]
"""Of a token in a canvas."""


Numbers = list[float | None]


class Weighed(BaseModel):
    """A candidate that was compared."""

    model_config = ConfigDict(strict=True)

    positions: list[Position]
    J: float | None
    C: float | None
    H: float | None


class TraceLine(BaseModel):
    """What is read of a line of ``trace.jsonl``; null stands for a number that is not finite."""

    model_config = ConfigDict(strict=True)

    row: Natural
    step: Natural
    kind: Literal["commit", "bypass", "edit", "remask", "fill"]
    positions: list[Position]
    tokens: list[Natural]
    entropy: Numbers
    confidence: Numbers = []
    weighed: list[Weighed] = []

    @model_validator(mode="after")
    def _beside_each_other(self) -> Self:
        if not len(self.positions) == len(self.tokens) == len(self.entropy):
            raise ValueError("positions, tokens and entropy are not equally many")
        return self


def load(runs: Sequence[Path], *, limit: int = 20, examples: Sequence[str] = ()) -> dict[str, Any]:
    """At most ``limit`` examples of the runs, or those with the ids ``examples``.

    Returns:
        ``title``; ``variants``, the label of each; ``samples``, each with its ``id`` and, for every variant, None or
        its ``frames`` (trace lines with the tokens as text), ``canvas`` (texts, None where masked) and cost; and
        ``left_out``, the number of examples that are not among them. A number that is not finite is None. A decoded
        picture has its ``grid``, ``prompt`` and ``image`` as well, and token ids in place of texts.

    Raises:
        MdmError: a folder is not a run's, or nothing of it is decoded yet, or it holds no such example.
    """
    variants = [(_label(variant, runs), variant) for folder in runs for variant in read_run(folder)]
    ids: dict[int, str] = {}
    for _, variant in variants:
        ids |= {row: _id(result) for row, result in variant.results.by_row.items() if result.decoded}
    if not ids:
        raise MdmError(f"{runs[0]}: nothing is decoded yet")
    unknown = set(examples) - set(ids.values())
    if unknown:
        raise MdmError(f"no example {sorted(unknown)[0]!r} in {runs[0]}: the first is {ids[min(ids)]!r}")
    rows = [row for row in sorted(ids) if not examples or ids[row] in examples][: None if examples else limit]
    columns = [_column(variant, set(rows)) for _, variant in variants]
    album = Album()
    for row in rows:
        for (_, variant), column in zip(variants, columns, strict=True):
            if "grid" in column.get(row, ()):
                column[row]["image"] = album.embed(variant.results.folder, str(variant.results.by_row[row].image))
    return {
        "title": ", ".join(path.resolve().name for path in runs),
        "variants": [label for label, _ in variants],
        "samples": [{"id": ids[row], "variants": [column.get(row) for column in columns]} for row in rows],
        "left_out": len(ids) - len(rows),
    }


def _label(variant: RunVariant, runs: Sequence[Path]) -> str:
    return f"{variant.folder.resolve().name}: {variant.label}" if len(runs) > 1 else variant.label


def _id(result: ExampleResult) -> str:
    return f"{result.id} (repeat {result.repeat})" if result.repeat else result.id


def _column(variant: RunVariant, rows: set[int]) -> dict[int, dict[str, Any]]:
    """A variant's decodings of ``rows``, those that it has."""
    lines: dict[int, list[dict[str, Any]]] = {row: [] for row in rows}
    path = variant.results.folder / "trace.jsonl"
    for number, line in enumerate(files.json_lines(path), 1):
        try:
            row = TraceLine.model_validate(line).row
        except ValidationError as error:
            raise MdmError(explain(error, f"{path}, line {number}: ", TraceLine)) from error
        if row in rows:
            lines[row].append(line)
    results = variant.results.by_row
    return {row: _decoding(results[row], lines[row]) for row in rows if row in results and lines[row]}


def _decoding(result: ExampleResult, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    texts = result.texts or {}
    decoded = {position for line in lines for position in line["positions"]}
    length = 1 + max(decoded, default=-1)
    # Without a tokenizer the result has no canvas: what is not decoded was the prompt.
    canvas = ["·" if i not in decoded else None for i in range(length)] if result.canvas is None else [*result.canvas]
    canvas += [None] * (length - len(canvas))
    picture = _is_picture(result, canvas.count(None))
    name = str if picture else lambda token: texts.get(str(token), f"⟨{token}⟩")
    return {
        "canvas": canvas,
        "metrics": {name: _rounded(value, 6) for name, value in result.metrics.items()},
        "entropy": _rounded(result.cumulative_entropy, 4),
        "forwards": result.forwards,
        "rows": result.rows,
        "frames": [_frame(line, name) for line in lines],
        **({"grid": result.grid, "prompt": result.prompt} if picture else {}),
    }


def _is_picture(result: ExampleResult, masks: int) -> bool:
    """Whether it is a picture with a cell of its grid for each of the ``masks``."""
    if result.image is None or result.grid is None or len(result.grid) != 2:
        return False
    rows, columns = result.grid
    return rows > 0 and columns > 0 and rows * columns == masks


def _frame(line: Mapping[str, Any], name: Callable[[int], str]) -> dict[str, Any]:
    """A trace line with short keys and the ``name`` of each token, None where it is a mask again."""
    remask = line["kind"] == "remask"
    frame: dict[str, Any] = {
        "s": line["step"],
        "k": line["kind"],
        "p": line["positions"],
        "t": [None if remask else name(token) for token in line["tokens"]],
        "e": [_rounded(value) for value in line["entropy"]],
    }
    if "confidence" in line:
        frame["c"] = [_rounded(value) for value in line["confidence"]]
    if "weighed" in line:
        frame["w"] = [[w["positions"], _rounded(w["J"]), _rounded(w["C"]), _rounded(w["H"])] for w in line["weighed"]]
    return frame


def _rounded(value: float | None, digits: int = 5) -> float | None:
    """None where there is no finite number, which JSON cannot hold."""
    return None if value is None or not isfinite(value) else round(value, digits)
