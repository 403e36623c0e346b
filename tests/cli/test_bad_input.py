"""What a user gets wrong is said in one line, with exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mdm import registry


def mdm(folder: Path, *args: str, largest_file: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``mdm args`` in a folder; with ``largest_file`` (bytes) the disk seems full when a file has that size."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    command = [sys.executable, "-m", "mdm", *args]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, preexec_fn=limit if largest_file else None
    )


def refused(folder: Path, *args: str) -> str:
    """The one line that ``mdm args`` answers with."""
    done = mdm(folder, *args)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("mdm: ") and done.stderr.count("\n") == 1, done.stderr
    assert not list(folder.glob("runs/*")) and not (folder / "out").exists()
    return done.stderr


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the embedded model, to be damaged."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(registry.resolve("checkpoint", "tiny")(), folder)
    return folder


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run", "--sampler", "info-gian"], "unknown sampler 'info-gian'. Did you mean 'info-gain'?"),
        (["run", "--cache", "duel"], "unknown cache 'duel'. Did you mean 'dual'?"),
        (["run", "--task", "suduko"], "unknown task 'suduko'. Did you mean 'sudoku'?"),
        (["run", "-o", "candidats=4"], "no option 'candidats'. Did you mean 'candidates'?"),
        (["run", "-o", "info-gain.candidats=4"], "option info-gain.candidats: there is no such name."),
        (["run", "-o", "candidates=some"], "option info-gain.candidates=some: should be"),
        (["run", "--data", "none.csv"], "'none.csv' does not exist"),
        (["run", "--model", "tinny"], "tinny"),
        (["run", "--device", "cuda:77"], "device 'cuda:77'"),
        (["run", "--config", "none.yaml"], "'none.yaml' does not exist"),
        (
            ["generate", "1+1=", "--gen-length", "0"],
            "nothing to decode: --gen-length is 0 and the text holds no [MASK]",
        ),
        (["generate", "1+1=", "--infill"], "nothing to decode: --gen-length is 0 and the text holds no [MASK]"),
    ],
)
def test_arguments(tmp_path, args, said):
    assert said in refused(tmp_path, *args)


@pytest.mark.parametrize("line", ["31022000,3142243142131324", "only one field", "31x2200002100320,3142243142131324"])
def test_broken_data_line(tmp_path, line):
    data = tmp_path / "puzzles.csv"
    data.write_text(f"Puzzle,Solution\n3102200002100320,3142243142131324\n{line}\n")
    said = refused(tmp_path, "run", "--task", "sudoku", "--data", "puzzles.csv", "--out", "out")
    assert "puzzles.csv" in said and "3" in said


def test_truncated_weights(tmp_path, checkpoint):
    (weights,) = checkpoint.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    assert "is damaged or incomplete" in refused(tmp_path, "run", "--model", "checkpoint", "--out", "out")


def test_wrong_architecture(tmp_path, checkpoint):
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    assert "'gpt2'" in refused(tmp_path, "run", "--model", "checkpoint", "--out", "out")


def test_folder_of_another_run(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    assert "not a run's folder" in refused(tmp_path, "run", "--out", "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["a.txt"]


def test_full_disk(tmp_path):
    args = ["run", "--sampler", "confidence", "--limit", "12", "--batch-size", "4", "--out", "out"]
    full = mdm(tmp_path, *args, largest_file=100)  # not even room for the configuration
    assert (full.returncode, full.stdout, full.stderr.count("\n")) == (2, "", 1), full
    assert "cannot write out/" in full.stderr and "File too large" in full.stderr
    assert not (tmp_path / "out").exists()
    full = mdm(tmp_path, *args, largest_file=8000)
    assert (full.returncode, full.stdout, full.stderr.count("mdm: ")) == (2, "", 1) and "Traceback" not in full.stderr
    assert "cannot write out/trace.jsonl: File too large; what is written is kept" in full.stderr
    done = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert 0 < len(done) < 12
    assert all(json.loads(line) for line in (tmp_path / "out/trace.jsonl").read_text().splitlines())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.yaml", "environment.json", "results.jsonl", "summary.json", "trace.jsonl",
    }  # fmt: skip
    assert json.loads((tmp_path / "out/summary.json").read_text())["complete"] is False
    again = mdm(tmp_path, *args, "--json")  # with room, it goes on
    assert json.loads(again.stdout)["runs"][0]["examples"] == 12
    kept = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert kept[: len(done)] == done


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.yaml", "seed: [", "config.yaml: not YAML"),
        ("config.yaml", "sead: 3", "config.yaml: sead: there is no such name. Did you mean 'seed'?"),
        ("environment.json", "{", "environment.json: not JSON"),
        ("results.jsonl", '{"id": "x", "in\n{"id"', "results.jsonl, line 1: not JSON"),
        ("results.jsonl", '{"id": "x"}\n', "results.jsonl, line 1: not a result of a run"),
    ],
)
def test_damaged_run(tmp_path, file, text, said):
    from click.testing import CliRunner
    from mdm.cli import cli
    from mdm.errors import MdmError
    from mdm.runs import config as configs
    from mdm.runs.config import RunConfig, build

    out = tmp_path / "out"
    out.mkdir()
    begun = build(RunConfig, None, {"limit": 1}).model_copy(update={"autoregressive": []})
    (out / "config.yaml").write_text(configs.to_yaml(begun))
    (out / "environment.json").write_text("{}")
    (out / file).write_text(text)
    with pytest.raises(MdmError) as caught:
        CliRunner().invoke(cli, ["run", "--limit", "1", "--out", str(out)], catch_exceptions=False)
    assert said in str(caught.value) and (out / file).read_text() == text
