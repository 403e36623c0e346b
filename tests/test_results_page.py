"""The page of results is made by one command."""

from __future__ import annotations

import subprocess
import sys

import pytest
from goldens import ROOT


@pytest.mark.wide
def test_the_page_is_made(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "puzzles.csv").write_text("Puzzle,Solution\n3102200002100320,3142243142131324\n")
    (tmp_path / "sums.jsonl").write_text('{"input": "3,4,12,24", "output": ""}\n')
    command = [
        sys.executable,
        str(ROOT / "docs/make_results.py"),
        "--sudoku",
        "puzzles.csv",
        "--countdown",
        "sums.jsonl",
    ]
    command += [
        "--sampler",
        "confidence",
        "--sampler",
        "random",
        "--sampler",
        "eb",
        "--limit",
        "1",
        "--page",
        "page.md",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.md").read_text()
    titles = ["## Sudoku on tiny", "## Equations on tiny", "## Countdown on tiny-countdown"]
    for words in (*titles, "## Judgment on tiny-countdown", "| confidence | 1 | ", "| random | 2 | ", "](results.svg)"):
        assert words in page
    assert page.count("| eb | own | ") == 4 and page.count("| eb | ") == 5  # a line a task, and one with its AUP
    assert (tmp_path / "results.svg").read_text().count("tokens per forward") == 4
