"""The sudokus of `mdm run` as any evaluation of a served model has them: the same prompts, graded by the same function.

The embedded model has no chat template. Here it has one that writes what is said as it stands, so that a chat of one
turn is the very prompt of a run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import mdm_tiny
from mdm.protocols import Example
from mdm_planning.sudoku import Sudoku, SudokuOptions

COUNT = 32
TASK = Sudoku(SudokuOptions(mode="generate"))
LENGTH = 16
"""Tokens of an answer."""
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def checkpoint(folder: Path) -> Path:
    """A copy of the embedded model with a chat template."""
    shutil.copytree(Path(mdm_tiny.__file__).parent / "checkpoint", folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    return folder


def samples() -> list[dict[str, str]]:
    """Prompt, puzzle, solution and id of each."""
    made = []
    for example in islice(TASK.examples(seed=0), COUNT):
        puzzle = str(example.inputs["puzzle"])
        prompt = TASK.prompt(example, "compact").context
        made.append({"id": example.id, "prompt": prompt, "puzzle": puzzle, "solution": str(example.reference)})
    return made


def accuracy(sample: dict[str, str], completion: str) -> float:
    example = Example(sample["id"], {"puzzle": sample["puzzle"]}, sample["solution"])
    return TASK.grade(example, completion)["accuracy"]


def run(model: Path, folder: Path, steps: int) -> dict[str, tuple[str, float]]:
    """Completion and accuracy of each sudoku in `mdm run`, by id."""
    command = [
        sys.executable, "-m", "mdm", "run", "--task", "sudoku", "--limit", str(COUNT), "-o", "mode=generate", "--model",
        str(model), "--sampler", "confidence", "--steps", str(steps), "--out", str(folder),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    lines: list[dict[str, Any]] = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return {line["id"]: (line["completion"], line["metrics"]["accuracy"]) for line in lines}
