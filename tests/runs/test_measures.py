"""What a task measures of how an answer was decoded is a grade of the run, and stays when it is graded once more."""

from __future__ import annotations

import pytest
from finished_runs import metrics_of
from mdm.runs import config as configs, run as runs
from mdm.runs.config import RunConfig
from mdm_planning.judgment import Judgment
from mdm_report.regrade import regrade

SETTINGS = {"task": "judgment", "sampler": ["left-to-right"], "limit": 3, "device": "cpu"}


def decoded(out, place="first", **more):
    return runs.run(configs.build(RunConfig, None, SETTINGS | more, [f"judgment.verdict={place}"]), out)


@pytest.mark.parametrize(("place", "rank"), [("first", 0), ("last", 1)])
def test_the_order_of_decoding_is_measured_and_kept(tmp_path, monkeypatch, place, rank):
    assert decoded(tmp_path, place)["runs"][0]["metrics"]["verdict_rank"] == rank
    before = metrics_of(tmp_path)
    assert set(before[0]) == {"accuracy", "reasoning", "consistent", "verdict_rank"}
    monkeypatch.setattr(Judgment, "measure", lambda *_: pytest.fail("nothing was decoded"))
    assert regrade(tmp_path, everything=True)["runs"][0]["metrics"]["verdict_rank"] == rank
    assert metrics_of(tmp_path) == before


def test_what_is_decoded_is_shown_in_the_order_of_the_canvas(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Judgment, "measure", lambda _, example, pieces: seen.append(pieces) or {"verdict_rank": 0.5})
    decoded(tmp_path, limit=1)
    [pieces] = seen
    assert [piece.step for piece in pieces] == [0, -1, 1, -1, 2, -1, 3, -1, 4]
    assert [piece.text for piece in pieces if piece.step < 0] == [":", ",", ",", ","]


@pytest.mark.parametrize(("given", "error"), [({}, "KeyError: 'verdict_rank'"), (5, "TypeError: grades are a mapping")])
def test_a_measure_that_fails_is_its_examples_error(tmp_path, monkeypatch, given, error):
    monkeypatch.setattr(Judgment, "measure", lambda *_: given)
    assert decoded(tmp_path)["runs"][0]["errors"] == 3
    assert metrics_of(tmp_path)[0].startswith(error)
