"""lm-evaluation-harness asks the server, by both of its routes, as its users do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from served_sudokus import LENGTH, samples

pytestmark = pytest.mark.wide
pytest.importorskip("lm_eval", reason="lm-eval is not installed (tox -e lm-eval-server has it)")

TASK = """\
task: served_sudoku
dataset_path: json
dataset_kwargs: {data_files: {test: sudokus.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{solution}}"
process_results: !function grade.grade
generation_kwargs: {until: ["\\n"], max_gen_toks: LENGTH, temperature: 0, steps: STEPS, sampler: confidence}
metric_list: [{metric: accuracy, aggregation: mean, higher_is_better: true}]
"""
GRADE = """\
import served_sudokus

def grade(doc, results):
    return {"accuracy": served_sudokus.accuracy(doc, results[0])}
"""
ROUTES = {
    "completions": ("local-completions", "completions", "tokenized_requests=False", []),
    "completions, ids": ("local-completions", "completions", "tokenized_requests=True", ["--batch_size", "4"]),
    "chat": ("local-chat-completions", "chat/completions", "num_concurrent=8", ["--apply_chat_template"]),
}


def evaluate(server, folder: Path, steps: int, route: str) -> tuple[float, dict[str, tuple[str, float]]]:
    """The accuracy that lm-eval reports, and its completion and accuracy of each sudoku."""
    model, endpoint, args, flags = ROUTES[route]
    (folder / "sudokus.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples()))
    (folder / "grade.py").write_text(GRADE)
    (folder / "served_sudoku.yaml").write_text(TASK.replace("STEPS", str(steps)).replace("LENGTH", str(LENGTH)))
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", model, "--model_args",
        f"model=tiny,base_url={server.url}/v1/{endpoint},tokenizer={server.model},{args}",
        "--tasks", "served_sudoku", "--include_path", str(folder), "--output_path", str(folder / "out"),
        "--log_samples", *flags,
    ]  # fmt: skip
    path = os.pathsep.join(sys.path)
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "PYTHONPATH": path}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [report] = (folder / "out").rglob("results_*.json")
    [lines] = (folder / "out").rglob("samples_*.jsonl")
    each = [json.loads(line) for line in lines.read_text().splitlines()]
    found = json.loads(report.read_text())["results"]["served_sudoku"]["accuracy,none"]
    return found, {one["doc"]["id"]: (one["filtered_resps"][0], one["accuracy"]) for one in each}


@pytest.mark.parametrize("route", ROUTES)
def test_accuracy_and_answers_are_those_of_a_run(server, answers, tmp_path, steps, route):
    accuracy, each = evaluate(server, tmp_path, steps, route)
    assert each == answers(steps)
    assert accuracy == pytest.approx(sum(right for _, right in each.values()) / len(each))


def test_what_a_server_has_not_is_said(server, tmp_path):
    """Log-likelihoods ask for the probabilities of the prompt's own tokens (``echo``), and are refused by that name."""
    (tmp_path / "sudokus.jsonl").write_text(json.dumps(samples()[0]) + "\n")
    task = TASK.replace("generate_until", "multiple_choice").replace("process_results: !function grade.grade\n", "")
    dropped = ("generation_kwargs", "metric_list", "doc_to_target")
    lines = [line for line in task.splitlines() if not line.startswith(dropped)]
    (tmp_path / "served_sudoku.yaml").write_text("\n".join([*lines, 'doc_to_choice: ["1", "2"]', "doc_to_target: 0"]))
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args",
        f"model=tiny,base_url={server.url}/v1/completions,tokenizer={server.model},max_retries=1",
        "--tasks", "served_sudoku", "--include_path", str(tmp_path),
    ]  # fmt: skip
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "echo" in done.stdout + done.stderr
