"""The task: its prompts from a file, its grades now or later, and its pictures in GenEval's layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_families
import tiny_graders
from click.testing import CliRunner
from finished_runs import finished_run, metrics_of, picture
from goldens import ABSENT, SHARED
from mdm.cli import cli
from mdm.errors import MdmError
from mdm.runs import config, files
from mdm_geneval import GenEval, GenEvalOptions
from mdm_geneval.metadata import TAGS
from mdm_report.regrade import regrade
from PIL import Image

TASK = GenEval(GenEvalOptions(grading="later"))
PROMPTS = SHARED / "data" / "geneval_metadata.jsonl"
LINES = [
    {"tag": "single_object", "prompt": "a photo of a dog", "include": [{"class": "dog", "count": 1}]},
    {
        "tag": "counting", "prompt": "a photo of two cats", "include": [{"class": "cat", "count": 2}],
        "exclude": [{"class": "cat", "count": 3}],
    },
]  # fmt: skip


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


@pytest.fixture
def run(tmp_path, data):
    """Two pictures of each prompt, but for the last, which could not be made."""
    out = tmp_path / "run"

    def answer(row, _):
        return {"forwards": 0, "error": "OSError: x"} if row == 10**9 + 1 else picture(out, row, row % 7)

    finished_run(out, answer, ["geneval.grading=later"], task="geneval", data=data, repeats=2)
    return out


@pytest.mark.skipif(not PROMPTS.is_file(), reason=ABSENT)
def test_the_published_prompts():
    examples = list(TASK.examples(seed=0, data=PROMPTS))
    counts = [sum(example.id.endswith(f"-{tag}") for example in examples) for tag in TAGS]
    assert counts == [80, 99, 80, 94, 100, 100] and len({example.id for example in examples}) == 553
    assert [dict(e.inputs) for e in examples] == [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    prompt = TASK.prompt(examples[0], "chat")
    assert (prompt.context, prompt.kind) == ("a photo of a bench", "image")


def test_without_a_file_one_line_says_where_to_get_it():
    with pytest.raises(MdmError, match=r"--data FILE with evaluation_metadata\.jsonl.*github\.com/djghosh13/geneval"):
        next(TASK.examples(seed=0))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not JSON"),
        ('{"tag": "single_object"}', "line 2: prompt is missing"),
        ('{"tag": "colour", "prompt": "p"}', "line 2: tag=colour: should be 'single_object'"),
        ('{"tag": "colors", "prompt": "p", "include": [{"class": "dgo", "count": 1}]}', "Did you mean 'dog'?"),
        ('{"tag": "colors", "prompt": "p", "include": [{"class": "dog", "count": 1, "colr": 1}]}', "include.0.colr"),
        ('{"tag": "colors", "prompt": "p", "includes": []}', "line 2: includes: there is no such name. Did you mean"),
        ('{"tag": "colors", "prompt": "p", "include": []}', "line 2: it asks for nothing"),
    ],
)  # fmt: skip
def test_a_broken_line_is_named(tmp_path, line, said):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(LINES[0]) + "\n" + line + "\n")
    with pytest.raises(MdmError) as error:
        list(TASK.examples(seed=0, data=path))
    assert said in str(error.value) and "bad.jsonl" in str(error.value) and "\n" not in str(error.value)


def test_a_run_may_leave_its_grades_for_later(run, tmp_path):
    folders = tiny_graders.detector(tmp_path / "detector"), tiny_graders.clip(tmp_path / "clip")
    assert all(grades in ({}, "OSError: x") for grades in metrics_of(run).values())
    options = [f"detector={folders[0]}", f"clip={folders[1]}", "device=cpu"]
    summary = regrade(run, options)
    graded = metrics_of(run)
    assert graded.pop(10**9 + 1) == "OSError: x" and all(set(grades) == {"accuracy"} for grades in graded.values())
    assert summary["runs"][0]["metrics"].keys() == {"accuracy", "single_object", "counting", "images", "prompts"}
    assert summary["runs"][0]["metrics"]["counting"] <= 0.5 and summary["runs"][0]["graded"] == 4


def test_a_run_draws_and_grades(data, tmp_path):
    model, painter = tiny_families.save_painter(tmp_path)
    folders = tiny_graders.detector(tmp_path / "detector"), tiny_graders.clip(tmp_path / "clip")
    flags = [
        "--model",
        model,
        "--image-tokenizer",
        painter,
        "--data",
        data,
        "--limit",
        1,
        "--steps",
        2,
        "--device",
        "cpu",
    ]
    options = ["-o", f"detector={folders[0]}", "-o", f"clip={folders[1]}", "-o", "geneval.device=cpu"]
    command = ["run", "--task", "geneval", *flags, *options, "--out", tmp_path / "out", "--json"]
    got = CliRunner().invoke(cli, list(map(str, command)))
    summary = json.loads(got.stdout)
    assert (summary["runs"][0]["examples"], summary["runs"][0]["graded"], summary["runs"][0]["errors"]) == (1, 1, 0)
    assert (
        summary["runs"][0]["metrics"]["single_object"] == summary["runs"][0]["accuracy"]
        and (tmp_path / "out/images/0.png").is_file()
    )


def test_a_detector_that_is_not_there_is_said_before_anything_is_decoded(data, tmp_path):
    got = CliRunner().invoke(
        cli, ["run", "--task", "geneval", "--data", str(data), "--out", str(tmp_path / "out"), "-o", "detector=none"]
    )
    assert isinstance(got.exception, MdmError) and not (tmp_path / "out").exists()
    assert "-o detector=none: there is no such folder; -o geneval.grading=later" in str(got.exception)


def test_pictures_in_genevals_layout(run, tmp_path, monkeypatch):
    out = tmp_path / "deep" / "pictures"
    got = CliRunner().invoke(cli, ["geneval-export", str(run), str(out)])
    assert got.exit_code == 0 and "1 results have no picture" in got.stderr
    made = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert made == [
        "00000/metadata.jsonl", "00000/samples/0000.png", "00000/samples/0001.png", "00001/metadata.jsonl",
        "00001/samples/0000.png",
    ]  # fmt: skip
    assert [json.loads((out / f"0000{i}" / "metadata.jsonl").read_text()) for i in (0, 1)] == LINES
    with Image.open(out / "00000" / "samples" / "0001.png") as image:
        assert image.getpixel((0, 0)) == (10**9 % 7,) * 3
    assert sorted(path.name for path in out.iterdir()) == ["00000", "00001"]
    (tmp_path / "deep" / "here").mkdir()
    monkeypatch.chdir(tmp_path / "deep" / "here")
    assert CliRunner().invoke(cli, ["geneval-export", str(run), "."]).exit_code == 0
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["00000", "00001"]


def test_an_export_that_cannot_be_made_leaves_nothing(run, tmp_path, data, monkeypatch):
    def refused(*arguments: object) -> str:
        got = CliRunner().invoke(cli, ["geneval-export", *map(str, arguments)])
        assert isinstance(got.exception, MdmError), got
        return str(got.exception)

    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").touch()
    assert refused(run, full) == f"{full} is not empty: name a new folder"
    assert "no config.yaml" in refused(full, tmp_path / "new")
    settings = config.parse(config.RunConfig, run / "config.yaml")
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({**LINES[0], "prompt": "a photo of a cat"}) + "\n")
    assert "was made for another prompt" in refused(run, tmp_path / "new", "--data", other)
    sudoku = tmp_path / "sudoku"
    sudoku.mkdir()
    files.write_text_atomic(sudoku / "config.yaml", config.to_yaml(settings.model_copy(update={"task": "sudoku"})))
    assert "is a run of sudoku, not of geneval" in refused(sudoku, tmp_path / "new")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfile", interrupted)
    got = CliRunner().invoke(cli, ["geneval-export", str(run), str(tmp_path / "new")])
    assert got.exit_code == 1 and not (tmp_path / "new").exists()
    assert not [path for path in Path(tmp_path).iterdir() if path.name.startswith(".")]
