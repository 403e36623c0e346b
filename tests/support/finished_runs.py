"""Folders of runs whose examples were never decoded, for what reads finished runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mdm.models.layout import Layout
from mdm.protocols import Example
from mdm.runs import config as configs, files, run as runs
from mdm.runs.config import RunConfig
from mdm.runs.folder import run_folder
from mdm.runs.grading import EncodedExample
from mdm.runs.results import ExampleResult, ResultsFolder
from PIL import Image


def finished_run(
    out: Path, answer: Callable[[int, Example], dict[str, Any]], assignments: Sequence[str] = (), **settings: Any
) -> list[ExampleResult]:
    """Write a run of one variant; ``answer`` gives fields of the result of an example by its row."""
    config = configs.build(RunConfig, None, settings, assignments).model_copy(update={"autoregressive": []})
    task = runs.make_task(config)
    results = []
    with run_folder(out, config, runs.environment(config), print), ResultsFolder(out).writing() as writer:
        for repeat in range(config.repeats):
            for index, example in enumerate(runs.read_examples(config, task)):
                encoded = EncodedExample(index, example, task.prompt(example, "compact"), Layout(()), repeat=repeat)
                measured = {
                    "metrics": {}, "tokens": 4, "cumulative_entropy": 0.5, "forwards": 4, "rows": 4, "seconds": 0.5,
                }  # fmt: skip
                result = replace(encoded.result("", **measured), **answer(encoded.row, example))
                writer.add(result, [])
                results.append(result)
    return results


def picture(out: Path, row: int, shade: int = 128) -> dict[str, Any]:
    """Write a grey picture; the fields of the result that it answers."""
    path = out / "images" / f"{row}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (shade, shade, shade)).save(path)
    return {"image": f"images/{row}.png", "grid": [2, 2]}


def metrics_of(out: Path) -> dict[int, Any]:
    """Row -> its grades, or its error."""
    return {line["row"]: line.get("error", line["metrics"]) for line in files.json_lines(out / "results.jsonl")}
