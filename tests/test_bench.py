"""``mdm bench``: its counts follow from the arguments, and its times are ratios of real work."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from mdm.cli import cli

SIZES = ["--vocab", "64", "--hidden", "16", "--layers", "1", "--prompt-length", "6", "--gen-length", "8"]


def overhead(*more: str) -> list[dict]:
    done = CliRunner().invoke(
        cli, ["bench", "overhead", *SIZES, "--pairs", "1", "--json", *more], catch_exceptions=False
    )
    assert done.exit_code == 0
    return json.loads(done.stdout)


def test_overhead_reports_every_cache():
    found = overhead("--block-length", "4")
    assert [row["cache"] for row in found] == ["none", "prefix", "dual"]
    for row in found:
        assert row["total_over_replay"] > 0 and row["total_over_minimal"] > 0 and row["peak_bytes"] > 0
        assert row["steps"] == 8
    # A dual lookahead reads the block's masks only, the others all that are open; what is not read has no head row.
    assert found[2]["head_rows"] < found[0]["head_rows"]
    assert found[2]["row_tokens"] < found[1]["row_tokens"] < found[0]["row_tokens"]


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_one_candidate_costs_one_call_a_step_and_reads_the_blocks_masks(cache):
    [row] = overhead("--cache", cache, "--candidates", "1", "--block-length", "8")
    assert row["forwards"] == row["rows"] == 8
    assert row["head_rows"] == sum(range(1, 9))
    whole, window = 14, {"none": 14, "prefix": 8, "dual": 8}[cache]
    assert row["row_tokens"] == whole + 7 * window
