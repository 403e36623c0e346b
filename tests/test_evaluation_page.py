"""The commands of docs/evaluation.md are commands: their flags exist, their presets and options too."""

from __future__ import annotations

import re
import shlex

import pytest
from goldens import ROOT
from mdm import registry
from mdm.cli import cli
from mdm.cli.flags import used
from mdm.runs import config

PAGE = (ROOT / "docs" / "evaluation.md").read_text()
ROWS = ("gsm8k", "math500", "humaneval", "mbpp", "gpqa", "sudoku", "countdown", "creative-writing", "geneval")
COMMANDS = sorted(set(re.findall(r"^mdm (run .*)$|`mdm (run [^`]*)`", PAGE, re.M)))


@pytest.mark.parametrize("command", [one or other for one, other in COMMANDS])
def test_a_command_of_the_page_would_run(command, tmp_path):
    words = shlex.split(command)
    for place in (i + 1 for i, word in enumerate(words) if word == "--data"):
        (tmp_path / "data").touch()
        words[place] = str(tmp_path / "data")
    flags = cli.get_command(None, "run").make_context("run", words[1:]).params
    task = flags["task"]
    if task not in registry.names("task"):
        pytest.skip(f"the task {task} is not installed")
    known = config.RunConfig.model_fields
    built = config.build(
        config.RunConfig, None, used({k: v for k, v in flags.items() if k in known}), flags["assignments"]
    )
    assert built.task == task


@pytest.mark.parametrize("task", ROWS)
def test_a_row_names_the_presets_and_the_metric_of_its_task(task):
    [row] = [line for line in PAGE.splitlines() if line.startswith("|") and f"--task {task}" in line]
    if task not in registry.names("task"):
        pytest.skip(f"the task {task} is not installed")
    plugin = registry.resolve("task", task)
    presets, metric = (cell.strip() for cell in row.split("|")[3:5])
    named = re.findall(r"`([\w.-]+)`", presets)
    for name in named:
        assert name not in registry.names("preset") or task in registry.resolve("preset", name).tasks
    offered = {name for name in registry.names("preset") if task in registry.resolve("preset", name).tasks}
    assert offered <= set(named) or "see [recipes]" in presets
    assert plugin.metric in re.findall(r"`([\w-]+)`", metric) or plugin.metric in metric
