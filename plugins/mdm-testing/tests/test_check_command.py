"""``mdm check``: a report to read, one for machines, and an exit code."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner
from mdm.errors import MdmError
from mdm_testing.check_command import check


def test_a_report_of_every_check():
    got = CliRunner().invoke(check, ["sudoku"], standalone_mode=False)
    assert got.return_value == 0
    assert "the_reference_is_right" in got.stdout
    assert re.search(r"task sudoku: (\d+) of \1 checks pass, 0 fail", got.stdout)


def test_json_and_nothing_else():
    got = CliRunner().invoke(check, ["none", "--kind", "cache", "--json"], standalone_mode=False)
    report = json.loads(got.stdout)
    assert (report["kind"], report["name"], report["package"], report["ok"]) == ("cache", "none", "mdm-core", True)
    assert {c["status"] for c in report["checks"]} == {"passed", "skipped"}
    assert next(c for c in report["checks"] if c["status"] == "skipped")["detail"]


def test_a_broken_promise_is_exit_code_1():
    got = CliRunner().invoke(check, ["llada", "--checkpoint", "/no/such/folder", "--json"], standalone_mode=False)
    assert got.return_value == 1
    assert any("/no/such/folder has no config.json" in c["detail"] for c in json.loads(got.stdout)["checks"])


@pytest.mark.parametrize(
    ("args", "said"), [(["sudokus"], "Did you mean 'sudoku'"), (["sudoku", "-o", "blanks"], "expected option=value")]
)
def test_a_mistake_is_one_line(args, said):
    with pytest.raises(MdmError, match=said):
        CliRunner().invoke(check, args, standalone_mode=False, catch_exceptions=False)
