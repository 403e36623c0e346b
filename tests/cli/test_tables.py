"""Tables fit their terminal: by fewer columns first, then one record a block; nothing is wrapped but prose."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from mdm.cli.summary_table import SPARE, report
from mdm.cli.tables import show

HEADERS = ["sampler", "examples", "accuracy", "95% interval", "cum. entropy", "forwards", "rows", "tokens/s"]
ROWS = [
    ["info-gain", "60", "83.3%", "71.9% to 90.8%", "0.123", "1,234", "12,345", "1,234"],
    ["fastdllm-threshold", "37 of 60", "13.3%", "7.9% to 19.8%", "4.567", "234", "345", "9,876"],
]


def lines(capsys, width, **more):
    show(HEADERS, ROWS, HEADERS[1:], width=width, **more)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [120, 80, 60, 40, 20])
def test_no_line_is_longer_than_the_terminal(capsys, width):
    shown = lines(capsys, width, spare=SPARE)
    assert max(map(len, shown)) <= width
    text = " ".join(" ".join(shown).split())
    assert "fastdllm-threshold" in text and "83.3%" in text and "13.3%" in text
    missing = [name for name in HEADERS if name not in text]
    assert not missing  # a column stands in the table, in a block, or in the line of those that had no room


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_table_without_columns_to_spare_has_one_record_a_block(capsys, width):
    shown = lines(capsys, width)
    assert max(map(len, shown)) <= width
    for row in ROWS:
        for name, cell in zip(HEADERS, row, strict=True):
            assert f"{name}: {cell}" in shown


def test_a_narrow_column_stays_where_a_wide_one_had_to_go(capsys):
    text = "\n".join(lines(capsys, 70, spare=("rows", "95% interval", "cum. entropy")))
    assert "no room for: 95% interval, cum. entropy" in text and "12,345" in text and "71.9%" not in text


def test_prose_is_wrapped_between_words_and_names_are_not(capsys):
    show(["name", "description"], [["one", "several words " * 20], ["another", "few"]], prose=["description"], width=60)
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 60 and sum("several words" in line for line in shown) > 4
    assert not any(line.rstrip().endswith(("sever", "wor")) for line in shown)


def row(**more):
    return {
        "variant": "info-gain", "model": "tiny", "sampler": "info-gain", "tokens_per_step": None, "repeats": 1,
        "examples": 6, "expected": 6, "complete": True, "accuracy": 0.5, "is_share": True, "accuracy_ci95": [0.1, 0.9],
        "accuracy_se": None, "cumulative_entropy": 0.5, "forwards": 8, "rows": 8, "tokens_per_second": 3.0, "errors": 0,
        "done": 6,
        "metric": "accuracy", "preset": None, "task": "t", "swept": {}, "first_error": None,
    } | more  # fmt: skip


def reported(capsys, tmp_path, *rows):
    report({"task": "t", "complete": True, "runs": list(rows)}, tmp_path, as_json=False)
    return capsys.readouterr().out


def test_a_run_says_what_is_missing_and_which_metric_it_shows(capsys, tmp_path):
    cut = row(variant="confidence", sampler="confidence", examples=2, complete=False, metric="passed")
    text = reported(capsys, tmp_path, row(metric="passed"), cut)
    assert "2 of 6" in text and "incomplete: confidence; the same command goes on" in text
    assert " passed " in text and "accuracy" not in text


def test_a_swept_option_has_a_column(capsys, tmp_path):
    text = reported(capsys, tmp_path, row(swept={"candidates": 2}), row(sampler="p2", swept={"eta": 0.5}))
    header, _, first, second = [line.split() for line in text.splitlines() if line.strip()][:4]
    assert header[:3] == ["sampler", "candidates", "eta"] and first[1] == "2" and second[1] == "0.5"


def test_where_every_example_failed_its_error_stands_in_the_table_s_place(capsys, tmp_path):
    text = reported(capsys, tmp_path, row(errors=6, first_error="a-1: it broke"))
    assert "info-gain: every example failed: a-1: it broke" in text and "accuracy" not in text


def test_a_variant_that_has_not_begun_claims_nothing(capsys, tmp_path):
    waiting = row(sampler="waits", done=0, examples=0, accuracy=0.0, accuracy_ci95=[0.0, 1.0], complete=False)
    line = next(line for line in reported(capsys, tmp_path, row(), waiting).splitlines() if "waits" in line)
    assert line.split() == ["waits", "0", "of", "6"]


def test_one_variant_of_failures_ends_with_1(capsys, tmp_path):
    rows = [row(), row(variant="typo", errors=6, first_error="a-1: it broke")]
    assert report({"task": "t", "complete": True, "runs": rows}, tmp_path, as_json=False) == 1
    assert report({"task": "t", "complete": True, "runs": rows}, tmp_path, as_json=True) == 1


def test_what_auto_became_is_said(capsys, tmp_path):
    assert "auto: cache prefix, device cpu" in reported(
        capsys, tmp_path, row(resolved={"cache": "prefix", "device": "cpu"})
    )


def test_compare_fits_too(tmp_path, monkeypatch):
    from mdm_report.compare_command import COLUMNS, SPARE as OF_COMPARE

    assert set(OF_COMPARE) < set(COLUMNS) and not {"run", "accuracy", "difference"} & set(OF_COMPARE)


def test_no_terminal_no_limit(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")  # a shell's, where stdout is a file
    import click

    @click.command()
    def command():
        show(HEADERS, ROWS, spare=SPARE)

    text = CliRunner().invoke(command).stdout
    assert "no room" not in text and all(name in text for name in HEADERS)
