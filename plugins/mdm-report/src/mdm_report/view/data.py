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

from mdm_report.runs import RunVariant, one_task, read_run
from mdm_report.view import header
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


Decoding = tuple[str, str, int]
"""An example's id, the digest of its inputs and reference, and the repeat."""


def load(runs: Sequence[Path], *, limit: int = 20, examples: Sequence[str] = ()) -> dict[str, Any]:
    """At most ``limit`` examples of the runs, or those with the ids ``examples``.

    Returns:
        ``title``; ``variants``, the label of each; ``about``, the settings and the state of each; ``samples``, each
        with its ``id``, its ``reference`` (None where it is not at hand) and, for every variant, None or its
        ``frames`` (trace lines with the tokens as text), ``canvas`` (texts, None where masked), ``prompt``,
        ``answer``, ``verdict`` and cost; ``fault``, why references and answers lack, or None; and ``left_out``, the
        number of examples that are not among them. A number that is not finite is None. A decoded picture has its
        ``grid`` and ``image`` as well, and token ids in place of texts.

    Raises:
        MdmError: a folder is not a run's, or nothing of it is decoded yet, or it holds no such example; or the runs
            are of different tasks or examples.
    """
    variants = [variant for folder in runs for variant in read_run(folder)]
    one_task(variants)
    results = [{_key(r): r for r in variant.results.by_row.values()} for variant in variants]
    rows: dict[Decoding, int] = {}
    for of_variant in results:
        rows = {key: result.row for key, result in of_variant.items()} | rows
    if not rows:
        raise MdmError(f"{runs[0]}: nothing is decoded yet")
    _check_same_examples(variants, results)
    ids = {key: _id(*key) for key in sorted(rows, key=rows.__getitem__)}
    unknown = set(examples) - set(ids.values())
    if unknown:
        raise MdmError(f"no example {sorted(unknown)[0]!r} in {runs[0]}: the first is {next(iter(ids.values()))!r}")
    keys = [key for key in ids if not examples or ids[key] in examples][: None if examples else limit]
    shown = [{of_variant[key].row for key in keys if key in of_variant} for of_variant in results]
    told = header.ask(variants, shown)
    columns = [_column(variant, of_rows, told) for variant, of_rows in zip(variants, shown, strict=True)]
    album = Album()
    samples = []
    for key in keys:
        decodings = []
        for variant, of_variant, column in zip(variants, results, columns, strict=True):
            decoding = column.get(of_variant[key].row) if key in of_variant else None
            if decoding is not None and "grid" in decoding:
                decoding["image"] = album.embed(variant.results.folder, str(of_variant[key].image))
            decodings.append(decoding)
        samples.append({"id": ids[key], "reference": told.references.get(key[:2]), "variants": decodings})
    return {
        "title": ", ".join(path.resolve().name for path in runs),
        "variants": header.labels(variants),
        "about": [{"settings": header.settings(v), "state": header.state(v)} for v in variants],
        "samples": samples,
        "fault": told.fault,
        "left_out": len(ids) - len(keys),
    }


def _key(result: ExampleResult) -> Decoding:
    return result.id, result.digest, result.repeat


def _id(name: str, digest: str, repeat: int) -> str:
    return f"{name} (repeat {repeat})" if repeat else name


def _check_same_examples(variants: Sequence[RunVariant], results: Sequence[Mapping[Decoding, Any]]) -> None:
    """Raise an MdmError where an id is another example in another run, or two runs have none in common."""
    digests: dict[str, tuple[str, Path]] = {}
    first = next(i for i, of_variant in enumerate(results) if of_variant)
    for variant, of_variant in zip(variants, results, strict=True):
        for name, digest, _ in of_variant:
            known, folder = digests.setdefault(name, (digest, variant.folder))
            if known != digest:
                raise MdmError(f"{name} is another example in {variant.folder} than in {folder}: nothing to compare")
        if variant.folder != variants[first].folder and of_variant and not results[first].keys() & of_variant.keys():
            raise MdmError(
                f"{variants[first].folder} and {variant.folder} have no example in common: other data, another seed "
                "or other options of the task"
            )


def _column(variant: RunVariant, rows: set[int], told: header.Told) -> dict[int, dict[str, Any]]:
    """A variant's decodings of ``rows``: those that have a trace, and those that failed before there was one."""
    lines: dict[int, list[dict[str, Any]]] = {row: [] for row in rows}
    path = variant.results.folder / "trace.jsonl"
    for number, line in enumerate(files.json_lines(path), 1):
        try:
            row = TraceLine.model_validate(line).row
        except ValidationError as error:
            raise MdmError(explain(error, f"{path}, line {number}: ", TraceLine)) from error
        if row in rows:
            lines[row].append(line)
    results, folder = variant.results.by_row, str(variant.results.folder)
    return {
        row: _decoding(results[row], lines[row], told.metric, told.answers.get((folder, row)))
        for row in rows if lines[row] or not results[row].decoded
    }  # fmt: skip


def _decoding(
    result: ExampleResult, lines: Sequence[Mapping[str, Any]], metric: str = "accuracy", answer: str | None = None
) -> dict[str, Any]:
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
        "prompt": result.prompt,
        "completion": result.completion,
        "answer": answer,
        "verdict": header.verdict(result, metric),
        "metrics": {name: _rounded(value, 6) for name, value in result.metrics.items()},
        "entropy": _rounded(result.cumulative_entropy, 4),
        "forwards": result.forwards,
        "rows": result.rows,
        "frames": [_frame(line, name) for line in lines],
        **({"grid": result.grid} if picture else {}),
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
