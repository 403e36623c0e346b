"""What a summary says of a run's outcomes."""

from __future__ import annotations

import pytest
from mdm.runs.summary import summarise, wilson
from outcomes import outcome


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_summary():
    summary = summarise([outcome(1, 0.0), outcome(0), outcome(2, error="ValueError: x")], "ok", 4)
    assert (summary["examples"], summary["complete"], summary["errors"]) == (3, False, 1)
    assert summary["accuracy"] == pytest.approx(2 / 3) and summary["cumulative_entropy"] == pytest.approx(0.1)
    assert (summary["forwards"], summary["rows"], summary["tokens"], summary["seconds"]) == (12, 27, 12, 1.5)
    assert summary["tokens_per_second"] == 8.0
    assert summarise([], "ok", 4)["accuracy_ci95"] == [0.0, 1.0]


def test_a_summary_does_not_depend_on_the_order_of_finishing():
    some = [outcome(i, cumulative_entropy=0.1 + 1e-9 * i**3) for i in range(50)]
    assert summarise(some, "ok", 50) == summarise(some[::-1], "ok", 50)


def test_repeats_give_a_mean_and_its_standard_error():
    rights = [[1, 1, 0], [0, 1, 0]]  # of three examples, in two repeats: 2/3 and 1/3
    some = [
        outcome(i, float(right), repeat=repeat, row=1000 * repeat + i)
        for repeat, row in enumerate(rights)
        for i, right in enumerate(row)
    ]
    summary = summarise(some, "ok", 3, repeats=2)
    assert (summary["examples"], summary["repeats"], summary["complete"]) == (3, 2, True)
    assert summary["accuracy"] == 0.5 and summary["accuracy_by_repeat"] == pytest.approx([2 / 3, 1 / 3])
    assert summary["accuracy_se"] == pytest.approx(1 / 6)  # half the distance of two values
    assert summary["accuracy_ci95"] == list(wilson(1.5, 3))  # three trials, not six
    assert summary["forwards"] == 24
    assert not summarise(some[:-1], "ok", 3, repeats=2)["complete"]


def test_a_task_sees_the_grades_of_each_example_in_order():
    def best(grades):
        assert list(grades) == ["e0", "e1"]
        return {"best": sum(max(g.get("ok", 0.0) for g in of) for of in grades.values()) / len(grades)}

    some = [outcome(1, 0.0, repeat=1), outcome(0, 0.0), outcome(1, 1.0), outcome(0, repeat=1, metrics={}, error="no")]
    assert summarise(some, "ok", 2, 2, best)["metrics"] == {"ok": 0.25, "best": 0.5}
    assert "best" not in summarise([], "ok", 2, 2, best)["metrics"]


def test_what_was_not_decoded_is_wrong_and_has_no_entropy():
    lost = outcome(1, metrics={}, forwards=0, rows=0, cumulative_entropy=0.0, error="RuntimeError: no")
    summary = summarise([outcome(3), lost], "ok", 2)
    assert (summary["accuracy"], summary["errors"], summary["complete"]) == (0.5, 1, True)
    assert summary["cumulative_entropy"] == 0.3


def test_tokens_are_counted_twice_and_steps_per_block_as_a_distribution():
    summary = summarise([outcome(0), outcome(1, block_steps=[1, 3], tokens_until_eos=0), outcome(2)], "ok", 3)
    assert (summary["tokens_per_forward"], summary["tokens_until_eos"]) == (1.0, 6)
    assert summary["tokens_per_forward_until_eos"] == 0.5 and summary["tokens_per_second_until_eos"] == 4.0
    steps = summary["steps_per_block"]
    assert (steps["mean"], steps["median"], steps["counts"]) == (2.0, 2.0, {"1": 1, "2": 4, "3": 1})


def test_results_of_earlier_versions_say_nothing_of_end_tokens():
    summary = summarise([outcome(0), outcome(1, tokens_until_eos=None, block_steps=None)], "ok", 2)
    assert summary["tokens_until_eos"] is None and summary["tokens_per_forward_until_eos"] is None
    assert summary["steps_per_block"]["counts"] == {"2": 2} and summary["tokens_per_forward"] == 1.0
    assert summarise([], "ok", 2)["steps_per_block"] is None
