"""The run's folder: whole files, logs that survive a kill, folders of other runs refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mdm.errors import MdmError
from mdm.runs import files
from mdm.runs.config import RunConfig
from mdm.runs.folder import run_folder
from mdm.runs.results import ResultsFolder, folder_names
from mdm.runs.summary import summarise
from outcomes import outcome


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_results_are_written_and_read_back(tmp_path):
    folder = ResultsFolder(tmp_path)
    with folder.writing() as log:
        log.add(outcome(3), [{"row": 0, "step": 0}, {"row": 0, "step": 1}])
        assert len(lines(tmp_path / "results.jsonl")) == 1  # there before the next one starts
    assert [line["row"] for line in lines(tmp_path / "trace.jsonl")] == [3, 3]
    assert ResultsFolder(tmp_path).by_row == {3: outcome(3)}


def test_numbers_that_are_not_finite_are_null_in_the_files_and_nan_again_when_read(tmp_path):
    strange = outcome(0, cumulative_entropy=math.nan, metrics={"ok": 1.0, "ratio": math.inf})
    with ResultsFolder(tmp_path).writing() as log:
        log.add(strange, [{"step": 0, "entropy": [math.nan, 0.5], "weighed": [{"J": -math.inf}]}])
    assert "NaN" not in (tmp_path / "results.jsonl").read_text() + (tmp_path / "trace.jsonl").read_text()
    [record] = lines(tmp_path / "results.jsonl")
    assert record["cumulative_entropy"] is None and record["metrics"] == {"ok": 1.0, "ratio": None}
    assert lines(tmp_path / "trace.jsonl") == [{"step": 0, "entropy": [None, 0.5], "weighed": [{"J": None}], "row": 0}]
    result = ResultsFolder(tmp_path).by_row[0]
    assert math.isnan(result.cumulative_entropy) and math.isnan(result.metrics["ratio"]) and result.metrics["ok"] == 1.0
    summary = summarise([result, outcome(1)], "ok", expected=2)
    files.write_json(tmp_path / "summary.json", summary)
    written = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert written["cumulative_entropy"] is None and written["accuracy"] == 1.0


@pytest.mark.parametrize("cut", [1, 20])
def test_torn_lines_and_orphaned_traces_go(tmp_path, cut):
    with ResultsFolder(tmp_path).writing() as log:
        log.add(outcome(0), [{"row": 0, "step": 0}])
        log.add(outcome(1), [{"row": 1, "step": 0}])
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])  # killed while writing 1
    with (tmp_path / "trace.jsonl").open("a") as trace:
        trace.write('{"row": 2, "st')
    folder = ResultsFolder(tmp_path)
    assert set(folder.by_row) == {0}
    folder.gather()
    with folder.writing() as log:
        log.add(outcome(1), [{"row": 1, "step": 7}])
    assert [line["index"] for line in lines(path)] == [0, 1]
    assert lines(tmp_path / "trace.jsonl") == [{"row": 0, "step": 0}, {"row": 1, "step": 7}]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"index": \n{"index": 1}\n')
    with pytest.raises(MdmError, match="results.jsonl, line 1: not JSON"):
        ResultsFolder(tmp_path)
    (tmp_path / "results.jsonl").write_text('{"index": 1}\n')
    with pytest.raises(MdmError, match="line 1: not a result of a run"):
        ResultsFolder(tmp_path)


def write(folder, rank, *indices):
    with ResultsFolder(folder).writing(rank) as log:
        for index in indices:
            log.add(outcome(index), [{"row": index, "step": 0}])


def contents(folder):
    return {path.name: [line["row"] for line in lines(path)] for path in folder.iterdir()}


def test_what_several_processes_wrote_is_merged(tmp_path):
    write(tmp_path, None, 0)
    write(tmp_path, 0, 1)
    write(tmp_path, 10, 2, 3)
    folder = ResultsFolder(tmp_path)
    assert set(folder.by_row) == {0, 1, 2, 3}
    folder.gather()
    assert contents(tmp_path) == {"results.jsonl": [0, 1, 2, 3], "trace.jsonl": [0, 1, 2, 3]}
    assert set(folder.by_row) == {0, 1, 2, 3}


@pytest.mark.parametrize("deaths", range(6))
def test_a_death_while_merging_does_no_harm(tmp_path, monkeypatch, deaths):
    write(tmp_path, None, 0)
    write(tmp_path, 0, 1)
    write(tmp_path, 1, 2)
    left = deaths

    def mortal(real):
        def act(*args, **kw):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return real(*args, **kw)

        return act

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", mortal(os.replace))
        patch.setattr("pathlib.Path.unlink", mortal(Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            ResultsFolder(tmp_path).gather()
    assert set(ResultsFolder(tmp_path).by_row) == {0, 1, 2}
    ResultsFolder(tmp_path).gather()
    found = {name: sorted(rows) for name, rows in contents(tmp_path).items() if name[0] != "."}
    assert found == {"results.jsonl": [0, 1, 2], "trace.jsonl": [0, 1, 2]}


def test_a_log_in_use_is_not_merged(tmp_path):
    with ResultsFolder(tmp_path).writing(1) as log:
        log.add(outcome(1), [])
        with pytest.raises(MdmError, match="another run is writing into .*results.rank1.jsonl"):
            ResultsFolder(tmp_path).gather()


def test_results_of_other_examples_are_refused(tmp_path):
    write(tmp_path, None, 0, 1)
    ResultsFolder(tmp_path).check(["e0", "e1"], 1)
    for ids in (["e0"], ["e0", "x"]):
        with pytest.raises(MdmError, match="a result of 'e1' at index 1, which is not an example of this run"):
            ResultsFolder(tmp_path).check(ids, 1)


def test_a_full_disk_tears_no_line(tmp_path):
    limited = """
import resource, sys
from pathlib import Path
from mdm.runs import files
path = Path(sys.argv[1])
log = files.Log(path)
log.append({"row": 0})
resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))
try:
    log.append({"row": 1}, {"row": 2, "text": "x" * 100})
except files.MdmError as error:
    print(error)
try:
    files.write_lines(path, [{"text": "x" * 100}])
except files.MdmError as error:
    print(error)
"""
    path = tmp_path / "log.jsonl"
    done = subprocess.run([sys.executable, "-c", limited, str(path)], capture_output=True, text=True)
    assert done.stdout == f"cannot write {path}: File too large\n" * 2, done.stderr
    assert lines(path) == [{"row": 0}] and [found.name for found in tmp_path.iterdir()] == ["log.jsonl"]


def enter(path, config, environment=None):
    with run_folder(path, config, environment or {}, print):
        pass


def test_folder_of_the_same_run_is_taken_up(tmp_path):
    out = tmp_path / "a" / "b"
    enter(out, RunConfig(seed=3))
    enter(out, RunConfig(seed=3))
    assert (out / "environment.json").exists()


def test_folder_of_another_run_is_refused(tmp_path):
    enter(tmp_path, RunConfig(options={"x": {"candidates": 8}}))
    with pytest.raises(MdmError, match="holds another run: seed is 0 there, 1 here"):
        enter(tmp_path, RunConfig(seed=1, options={"x": {"candidates": 8}}))
    with pytest.raises(MdmError, match="options.x.candidates is 8 there, 4 here"):
        enter(tmp_path, RunConfig(options={"x": {"candidates": 4}}))
    with pytest.raises(MdmError, match="sampler is info-gain there, random here .name all of them to add to the run"):
        enter(tmp_path, RunConfig(sampler=["random"], options={"x": {"candidates": 8}}))


def test_changed_data_is_refused(tmp_path):
    enter(tmp_path, RunConfig(data="x.csv"), {"data_sha256": "1"})
    with pytest.raises(MdmError, match="begun with other data: .*x.csv has changed"):
        enter(tmp_path, RunConfig(data="x.csv"), {"data_sha256": "2"})


def test_the_same_data_under_another_name_is_taken_up(tmp_path):
    enter(tmp_path, RunConfig(data="x.csv"), {"data_sha256": "1"})
    enter(tmp_path, RunConfig(data="elsewhere/../link.csv"), {"data_sha256": "1"})
    with pytest.raises(MdmError, match="holds another run: data is .*x.csv there, .*y.csv here"):
        enter(tmp_path, RunConfig(data="y.csv"), {"data_sha256": "2"})
    with pytest.raises(MdmError, match="data is .*x.csv there, None here"):
        enter(tmp_path, RunConfig())


def test_strange_folders_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MdmError, match="not empty and not a run's folder"):
        enter(tmp_path, RunConfig())
    with pytest.raises(MdmError, match="is a file"):
        enter(tmp_path / "thesis.tex", RunConfig())
    with pytest.raises(MdmError, match="cannot create"):
        enter(tmp_path / "thesis.tex" / "x", RunConfig())


def test_a_refused_run_leaves_the_folder_that_was_there(tmp_path):
    mine = tmp_path / "mine"
    (mine / ".hidden" / "empty").mkdir(parents=True)
    (mine / ".hidden" / "config.yaml").write_text("mine too")
    with pytest.raises(MdmError, match="refused"), run_folder(mine, RunConfig(), {}, print):
        (mine / "variant").mkdir()
        (mine / "variant" / "results.jsonl").touch()
        raise MdmError("refused")
    assert sorted(str(path.relative_to(mine)) for path in mine.rglob("*")) == [
        ".hidden", ".hidden/config.yaml", ".hidden/empty",
    ]  # fmt: skip
    with pytest.raises(MdmError, match="refused"), run_folder(tmp_path / "new", RunConfig(), {}, print):
        raise MdmError("refused")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_both_logs_are_closed_where_one_cannot_be_opened(tmp_path, monkeypatch):
    opened = []

    class Log(files.Log):
        def __init__(self, path):
            super().__init__(path)
            opened.append(self._file)

    monkeypatch.setattr(files, "Log", Log)
    folder = ResultsFolder(tmp_path)
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(MdmError, match="cannot write .*results.jsonl: Is a directory"), folder.writing():
        pass
    assert [file.closed for file in opened] == [True]


def test_a_folder_in_use_is_refused(tmp_path):
    with run_folder(tmp_path, RunConfig(), {}, print), pytest.raises(MdmError, match="another run is writing"):
        enter(tmp_path, RunConfig())
    enter(tmp_path, RunConfig())


def test_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(MdmError, match="cannot write .*x.json: No space left on device"):
            files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["x.json"]


def test_a_link_is_written_through_and_what_is_no_file_is_left(tmp_path):
    (tmp_path / "there").mkdir()
    real, link, pipe = tmp_path / "there" / "x.json", tmp_path / "link.json", tmp_path / "pipe"
    link.symlink_to(real)
    for value in (1, 2):
        files.write_json(link, {"a": value})
        assert link.is_symlink() and json.loads(real.read_text()) == {"a": value}
    os.mkfifo(pipe)
    for refused in (lambda: files.write_json(pipe, {}), lambda: files.check_writable(pipe)):
        with pytest.raises(MdmError, match="cannot write .*pipe: not a regular file"):
            refused()
    assert pipe.is_fifo()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["link.json", "pipe", "there"]


def test_folder_names_are_safe_and_distinct():
    names = folder_names(["info-gain", "/models/LLaDA 8B", "models LLaDA 8B", "..", "images"], {})
    assert names == ["info-gain", "models-LLaDA-8B", "models-LLaDA-8B-2", "run", "images-2"]
    assert folder_names(["one", "two", "three"], {"two": ".", "three": "one"}) == ["one-2", ".", "one"]
