"""The run's folder: whole files, logs that survive a kill, folders of other runs refused."""

from __future__ import annotations

import json

import pytest
from mdm import files, results
from mdm.config import RunConfig
from mdm.errors import MdmError
from mdm.results import Arm, Outcome


def outcome(index: int, right: float = 1.0, **changes) -> Outcome:
    fields = {
        "id": f"e{index}", "index": index, "repeat": 0, "row": index, "digest": "d", "prompt": "p", "completion": "c",
        "metrics": {"ok": right}, "tokens": 4, "cumulative_entropy": 0.1 * index, "forwards": 4, "rows": 9,
        "seconds": 0.5,
    }  # fmt: skip
    return Outcome(**{**fields, **changes})


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_arm_writes_and_reads_back(tmp_path):
    arm = Arm(tmp_path)
    with arm.writing() as log:
        log.add(outcome(3), [{"row": 0, "step": 0}, {"row": 0, "step": 1}])
        assert len(lines(tmp_path / "results.jsonl")) == 1  # there before the next one starts
    assert [line["row"] for line in lines(tmp_path / "trace.jsonl")] == [3, 3]
    assert Arm(tmp_path).outcomes == {3: outcome(3)}


@pytest.mark.parametrize("cut", [1, 20])
def test_torn_lines_and_orphaned_traces_go(tmp_path, cut):
    with Arm(tmp_path).writing() as log:
        log.add(outcome(0), [{"row": 0, "step": 0}])
        log.add(outcome(1), [{"row": 1, "step": 0}])
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])  # killed while writing 1
    with (tmp_path / "trace.jsonl").open("a") as trace:
        trace.write('{"row": 2, "st')
    arm = Arm(tmp_path)
    assert set(arm.outcomes) == {0}
    with arm.writing() as log:
        log.add(outcome(1), [{"row": 1, "step": 7}])
    assert [line["index"] for line in lines(path)] == [0, 1]
    assert lines(tmp_path / "trace.jsonl") == [{"row": 0, "step": 0}, {"row": 1, "step": 7}]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"index": \n{"index": 1}\n')
    with pytest.raises(MdmError, match="results.jsonl, line 1: not JSON"):
        Arm(tmp_path)
    (tmp_path / "results.jsonl").write_text('{"index": 1}\n')
    with pytest.raises(MdmError, match="not the results of a run"):
        Arm(tmp_path)


def enter(path, config, environment=None):
    with results.run_folder(path, config, environment or {}):
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
    with pytest.raises(MdmError, match="sampler is info-gain there, info-gain, random here"):
        enter(tmp_path, RunConfig(sampler=["info-gain", "random"], options={"x": {"candidates": 8}}))


def test_changed_data_is_refused(tmp_path):
    enter(tmp_path, RunConfig(data="x.csv"), {"data_sha256": "1"})
    with pytest.raises(MdmError, match="begun with other data: .*x.csv has changed"):
        enter(tmp_path, RunConfig(data="x.csv"), {"data_sha256": "2"})


def test_strange_folders_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MdmError, match="not empty and not a run's folder"):
        enter(tmp_path, RunConfig())
    with pytest.raises(MdmError, match="is a file"):
        enter(tmp_path / "thesis.tex", RunConfig())
    with pytest.raises(MdmError, match="cannot create"):
        enter(tmp_path / "thesis.tex" / "x", RunConfig())


def test_a_folder_in_use_is_refused(tmp_path):
    with (
        results.run_folder(tmp_path, RunConfig(), {}),
        pytest.raises(MdmError, match="another run is writing"),
    ):
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


def test_folder_names_are_safe_and_distinct():
    names = results.folder_names(["info-gain", "/models/LLaDA 8B", "models LLaDA 8B", ".."])
    assert names == ["info-gain", "models-LLaDA-8B", "models-LLaDA-8B-2", "run"]
