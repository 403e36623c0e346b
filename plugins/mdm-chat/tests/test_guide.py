"""``docs/chat.md``: its snippets run and its pipes answer, all in one process."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from mdm.cli import cli

PAGE = (Path(__file__).parents[3] / "docs" / "chat.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
PIPES = re.findall(r"^printf '(.*)' \| mdm (chat .*)$", PAGE, re.M)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs(number, capsys):
    exec(SNIPPETS[number], {})
    said = capsys.readouterr().out
    assert said.strip()
    if "allclose" in SNIPPETS[number]:
        assert said.count("True") == len(said.splitlines()) == 15
    if "prompt_style" in SNIPPETS[number]:
        assert re.findall(r"^chat (\d+)$", said, re.M)[1:] == ["4"]


def test_the_pipes_answer():
    (plain, command), (single, as_json) = PIPES
    done = CliRunner().invoke(cli, command.split(), input=plain.replace("\\n", "\n"))
    assert done.exit_code == 0 and len(done.stdout.splitlines()) == plain.count("\\n") == 2 and not done.stderr
    assert re.fullmatch(r"(\d+[-+*/]\d+=\d+,?){2}", done.stdout.splitlines()[0])
    [line] = CliRunner().invoke(cli, as_json.split(), input=single.replace("\\n", "\n")).stdout.splitlines()
    assert json.loads(line)["text"] == done.stdout.splitlines()[0]
