"""Completion: the scripts, and the values that they are answered with."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner
from mdm import registry
from mdm_shell.completion_command import completion
from mdm_shell.values import options


def answers(line: str, shell: str = "bash") -> list[str]:
    """What is offered for the last word of a line, which may be empty."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    done = CliRunner().invoke(completion, [shell, "--answer"], env=words, catch_exceptions=False)
    assert done.exit_code == 0
    return [item.partition(",")[2] for item in done.output.splitlines() if item.startswith("plain,")]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mdm comp", ["compare", "completion"]),
        ("mdm run --sampler fastdllm-", ["fastdllm-factor", "fastdllm-threshold", "fastdllm-v2"]),
        ("mdm run --cache d", ["d2cache", "dllm-cache", "dual"]),
        ("mdm run --task sud", ["sudoku"]),
        ("mdm generate x --model tin", ["tiny", "tiny-countdown"]),
        ("mdm run --preset infogain-", ["infogain-paper", "infogain-t2i"]),
        ("mdm run --adapter lla", ["llada", "llada2"]),
        ("mdm run --dtype b", ["bfloat16"]),
        ("mdm run --sco", ["--score-after"]),
        ("mdm generate x --sampler p2 -o ", ["committed=", "eta="]),
        ("mdm run --sampler p2 --sampler eb --task sudoku -o e", ["eta="]),
        (
            "mdm run --sampler p2 --sampler eb --task sudoku -o ",
            ["blanks=", "committed=", "eta=", "gamma=", "mode=", "shots="],
        ),
        ("mdm generate x --cache dual -o ref", ["refresh="]),
        ("mdm plugins info-", ["info-gain"]),
        ("mdm plugins --kind fam", ["family"]),
        ("mdm trace ", ["plot", "view"]),
        ("mdm nothing --x", []),
    ],
)  # fmt: skip
def test_values(line, offered):
    assert sorted(answers(line)) == offered


def test_files_and_folders_are_left_to_the_shell():
    for line, kind in (("mdm run --data x", "file"), ("mdm run --model x", "dir")):
        words = {"COMP_WORDS": line, "COMP_CWORD": "3"}
        assert CliRunner().invoke(completion, ["bash", "--answer"], env=words).output.startswith(f"{kind},x")


@pytest.mark.parametrize("kind", ["sampler", "cache", "task"])
def test_options_read_from_source_are_those_of_the_schema(kind):
    for entry in registry.entries(kind):
        assert sorted(options(entry)) == sorted(registry.load(entry).Options.model_fields), entry


def test_a_shell_without_the_wrong_words_and_zsh_with_descriptions():
    done = CliRunner().invoke(
        completion, ["zsh", "--answer"], env={"COMP_WORDS": "mdm run --sampler margi", "COMP_CWORD": "3"}
    )
    assert done.output.splitlines()[:2] == ["plain", "margin"] and "most probable tokens" in done.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_ask_this_command(shell):
    script = CliRunner().invoke(completion, [shell]).output
    assert f"mdm completion {shell} --answer)" in script and "_MDM_COMPLETE" not in script
    if shell == "bash":
        asked = f'{script}\nmdm() {{ {sys.executable} -m mdm "$@"; }}; mdm_words() {{ COMP_WORDS=(mdm run --cache pre)'
        asked += '; COMP_CWORD=3; _mdm_completion mdm pre --cache; echo "<${COMPREPLY[@]}>"; }; mdm_words'
        asked = asked.replace("COMP_CWORD=$COMP_CWORD mdm", f"COMP_CWORD=$COMP_CWORD {sys.executable} -m mdm")
        done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=120)
        assert "<prefix>" in done.stdout, done


def test_an_answer_imports_no_torch():
    code = (
        "import sys\nfrom mdm.cli import main\ntry:\n    main(['completion', 'bash', '--answer'])\n"
        "except SystemExit:\n    pass\nprint(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    words = {"COMP_WORDS": "mdm run --sampler beam -o ", "COMP_CWORD": "5", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=words, timeout=120)
    assert "beam_size=" in done.stdout and done.stdout.endswith("[]\n"), done
