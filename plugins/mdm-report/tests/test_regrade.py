"""``mdm grade``: texts and pictures graded later, whatever interrupts it, and nothing else of a run changed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from finished_runs import finished_run, metrics_of, picture
from mdm.cli import cli
from mdm.errors import MdmError
from mdm.runs import files
from mdm_report.regrade import regrade

TASK = '''
    """Pictures that are right where they are bright enough; graded on a thread, perhaps slowly."""

    import time
    from concurrent.futures import ThreadPoolExecutor

    from mdm.protocols import BaseTask, Example, NoOptions, Prompt
    from PIL import Image

    class Options(NoOptions):
        least: int = 100
        seconds: float = 0
        grading: str = "now"
        count: int = 6

    class Shades(BaseTask):
        Options = Options
        answers = "image"
        options_to_grade = {"grading": "now"}

        def __init__(self, options):
            super().__init__(options)
            self.thread = ThreadPoolExecutor(1)

        def examples(self, *, seed, data=None):
            for i in range(self.options.count):
                yield Example(f"e{i}", {"i": i, "seed": seed}, "")

        def prompt(self, example, style):
            return Prompt("grey", kind="image")

        def grade_image(self, example, image):
            if self.options.grading == "later":
                return {}
            if example.inputs["i"] == 5:
                return {"accuracy": 1.0}
            return self.thread.submit(self.look, image)

        def look(self, image):
            image.with_suffix(".seen").touch()
            time.sleep(self.options.seconds)
            with Image.open(image) as picture:
                return {"accuracy": float(picture.getpixel((0, 0))[0] >= self.options.least)}

        def aggregate(self, grades):
            return {"prompts": len(grades)}

        def close(self):
            self.thread.shutdown(cancel_futures=True)
'''


@pytest.fixture
def shades(site, tmp_path):
    """A run of pictures, of grey 40 · row, none of them graded."""
    site.package("mdm-shades", {"mdm.tasks": {"shades": "mdm_shades:Shades"}}, TASK)
    out = tmp_path / "run"
    finished_run(out, lambda row, _: picture(out, row, 40 * row), ["grading=later"], task="shades")
    return out


def test_texts_are_graded_as_in_a_run(tmp_path):
    out = tmp_path / "run"
    before = finished_run(
        out,
        lambda row, example: [
            {"completion": example.reference}, {"completion": "no"}, {"completion": "no", "metrics": {"accuracy": 1.0}},
            {"completion": example.reference, "error": "ValueError: once"}, {"forwards": 0, "error": "OSError: x"},
        ][row],
        task="sudoku", limit=5,
    )  # fmt: skip
    got = CliRunner().invoke(cli, ["grade", str(out), "--json"])
    summary = json.loads(got.stdout)
    assert got.exit_code == 0 and summary == files.read_json(out / "summary.json")
    graded = metrics_of(out)
    assert [graded[row]["accuracy"] for row in range(4)] == [1, 0, 1, 1] and graded[4] == "OSError: x"
    assert (
        summary["runs"][0]["accuracy"],
        summary["runs"][0]["graded"],
        summary["runs"][0]["errors"],
        summary["complete"],
    ) == (0.6, 5, 1, True)
    regrade(out, everything=True)
    assert metrics_of(out)[2]["accuracy"] == 0 and metrics_of(out)[4] == "OSError: x"
    same = [{**line, "metrics": None, "error": None} for line in files.json_lines(out / "results.jsonl")]
    same.sort(key=lambda line: line["row"])
    assert [line["completion"] for line in same] == [result.completion for result in before]


def test_pictures_are_graded_later_and_a_missing_one_is_its_examples_error(shades):
    (shades / "images" / "4.png").unlink()
    summary = regrade(shades)
    graded = metrics_of(shades)
    assert [graded[row] for row in (0, 1, 2, 3, 5)] == [{"accuracy": value} for value in (0, 0, 0, 1, 1)]
    assert graded[4].startswith("FileNotFoundError: its picture") and summary["runs"][0]["accuracy"] == 2 / 6
    assert summary["runs"][0]["metrics"]["prompts"] == 6 and summary["runs"][0]["task_options"]["grading"] == "now"
    picture(shades, 4, 160)
    warned = CliRunner().invoke(cli, ["grade", str(shades), "-o", "least=10"])
    assert warned.exit_code == 0 and metrics_of(shades)[4] == {"accuracy": 1}  # and nothing else is graded again
    assert metrics_of(shades)[1] == {"accuracy": 0}
    again = CliRunner().invoke(cli, ["grade", str(shades), "-o", "least=10"])
    assert "nothing in" in again.stderr and "--all grades all of it again" in again.stderr
    assert regrade(shades, ["shades.least=10"], everything=True)["runs"][0]["accuracy"] == 5 / 6


def test_what_is_graded_when_it_is_interrupted_is_kept(shades, site):
    command = [sys.executable, "-m", "mdm", "grade", str(shades), "-o", "seconds=0.4"]
    process = subprocess.Popen(command, env=site.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (shades / "images" / "0.seen").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    with pytest.raises(MdmError, match="another run is writing"):
        regrade(shades)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted; to go on: mdm grade" in err, (out, err)
    assert not list(shades.glob(".*"))
    before = metrics_of(shades)
    assert set(before) == set(range(6)) and {} in before.values()
    assert files.read_json(shades / "summary.json")["runs"][0]["graded"] == sum(
        bool(grades) for grades in before.values()
    )
    assert regrade(shades)["runs"][0]["graded"] == 6
    assert all(
        grades in ({}, after) for grades, after in zip(before.values(), metrics_of(shades).values(), strict=True)
    )


def test_grades_that_are_put_off_once_more_change_nothing(shades):
    with pytest.raises(MdmError, match="shades gives none of 6 results a grade 'accuracy'"):
        regrade(shades, ["grading=later"])
    regrade(shades)
    before = (shades / "results.jsonl").read_bytes()
    with pytest.raises(MdmError, match="gives none of 6"):
        regrade(shades, ["grading=later"], everything=True)
    assert (shades / "results.jsonl").read_bytes() == before


def test_bad_requests_are_one_line(shades, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MdmError, match="is not a run's folder: it has no config.yaml"):
        regrade(tmp_path / "empty")
    with pytest.raises(MdmError, match="no option 'leest'. Did you mean 'least'?"):
        regrade(shades, ["leest=3"])
    with pytest.raises(MdmError, match="option task.shades.least|option shades.least=many: should be"):
        regrade(shades, ["least=many"])
    with pytest.raises(MdmError, match="example e5 is not what was decoded: the data or an option"):
        regrade(shades, ["count=5"])
    text = (shades / "results.jsonl").read_text()
    (shades / "results.jsonl").write_text(text.replace('"digest": "', '"digest": "0', 1))
    with pytest.raises(MdmError, match="example e0 is not what was decoded"):
        regrade(shades)


def test_data_that_moved_is_named_and_a_programs_permission_is_asked_anew(tmp_path):
    data = tmp_path / "data.jsonl"
    tests = "def check(f):\n    assert f() == 1\n"
    row = {"task_id": "x/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    return 1\n"}
    data.write_text(json.dumps({**row, "test": tests}) + "\n")
    out = tmp_path / "run"
    finished_run(
        out, lambda row, _: {"completion": "    return 1\n"}, task="humaneval", data=data, allow_code_execution=True
    )
    with pytest.raises(MdmError, match="allow it with --allow-code-execution"):
        regrade(out)
    moved = shutil.move(data, tmp_path / "moved.jsonl")
    with pytest.raises(MdmError, match=r"data\.jsonl: there is no such data file"):
        regrade(out, allow_code_execution=True)
    assert regrade(out, data=moved, allow_code_execution=True)["runs"][0]["graded"] == 1
