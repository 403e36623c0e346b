"""The traces of runs, brought together by example: what the page and the pictures show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.runs import config, files
from mdm.runs.config import RunConfig
from mdm.runs.results import ExampleResult
from mdm.runs.variants import Variant, jobs


def load(runs: Sequence[Path], *, limit: int = 20, examples: Sequence[str] = ()) -> dict[str, Any]:
    """At most ``limit`` examples of the runs, or those with the ids ``examples``.

    Returns:
        ``title``; ``arms``, a label for each sampler (or model) of each run; ``samples``, each with its ``id`` and,
        for every arm, None or its ``frames`` (trace lines with the tokens as text), ``canvas`` (texts, None where
        masked) and cost; and ``left_out``, how many examples are not among them.

    Raises:
        MdmError: a folder is not a run's, or none of it is decoded yet, or it holds no such example.
    """
    arms = [(label, job) for path in runs for label, job in _arms(path, several=len(runs) > 1)]
    names: dict[int, str] = {}
    for _, job in arms:
        names |= {row: _name(outcome) for row, outcome in job.results.by_row.items() if outcome.decoded}
    if not names:
        raise MdmError(f"{runs[0]}: nothing is decoded yet")
    unknown = set(examples) - set(names.values())
    if unknown:
        raise MdmError(f"no example {sorted(unknown)[0]!r} in {runs[0]}: the first is {names[min(names)]!r}")
    rows = [row for row in sorted(names) if not examples or names[row] in examples][: None if examples else limit]
    columns = [_column(job, set(rows)) for _, job in arms]
    return {
        "title": ", ".join(path.resolve().name for path in runs),
        "arms": [label for label, _ in arms],
        "samples": [{"id": names[row], "arms": [column.get(row) for column in columns]} for row in rows],
        "left_out": len(names) - len(rows),
    }


def _arms(path: Path, *, several: bool) -> list[tuple[str, Variant]]:
    if not (path / "config.yaml").is_file():
        raise MdmError(f"{path} is not a run's folder: it holds no config.yaml")
    settled = config.parse(RunConfig, path / "config.yaml")
    name = f"{path.resolve().name}: " if several else ""
    return [(name + job.label, job) for job in jobs(settled, path)]


def _name(outcome: ExampleResult) -> str:
    return f"{outcome.id} (repeat {outcome.repeat})" if outcome.repeat else outcome.id


def _column(job: Variant, rows: set[int]) -> dict[int, dict[str, Any]]:
    lines: dict[int, list[dict[str, Any]]] = {row: [] for row in rows}
    for line in files.json_lines(job.results.folder / "trace.jsonl"):
        if line["row"] in rows:
            lines[line["row"]].append(line)
    return {
        row: _decoding(job.results.by_row[row], lines[row]) for row in rows if row in job.results.by_row and lines[row]
    }


def _decoding(outcome: ExampleResult, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    texts = outcome.texts or {}
    length = 1 + max((position for line in lines for position in line["positions"]), default=-1)
    canvas = list(outcome.canvas or [])
    canvas += [None] * (length - len(canvas))
    if outcome.canvas is None:  # a model without a tokenizer: what is not decoded was the prompt
        made = {position for line in lines for position in line["positions"]}
        canvas = [None if i in made else "·" for i in range(length)]
    return {
        "canvas": canvas,
        "metrics": dict(outcome.metrics),
        "entropy": round(outcome.cumulative_entropy, 4),
        "forwards": outcome.forwards,
        "rows": outcome.rows,
        "frames": [_frame(line, texts) for line in lines],
    }


def _frame(line: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """A trace line in short; a token's text is None where it is a mask again."""
    remask = line["kind"] == "remask"
    frame: dict[str, Any] = {
        "s": line["step"],
        "k": line["kind"],
        "p": line["positions"],
        "t": [None if remask else texts.get(str(token), f"⟨{token}⟩") for token in line["tokens"]],
        "e": [round(value, 5) for value in line["entropy"]],
    }
    if "confidence" in line:
        frame["c"] = [round(value, 5) for value in line["confidence"]]
    if "weighed" in line:
        frame["w"] = [[w["positions"], round(w["J"], 5), round(w["C"], 5), round(w["H"], 5)] for w in line["weighed"]]
    return frame
