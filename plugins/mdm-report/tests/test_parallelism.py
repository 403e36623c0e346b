"""Accuracy under parallelism, against numbers worked out by hand."""

from __future__ import annotations

from math import exp

import pytest
from mdm_report.parallelism import accuracy_under_parallelism, by_sampler


def test_one_run_is_a_rectangle():
    assert accuracy_under_parallelism([(1.0, 80.0)], 80.0) == 80.0


def test_what_costs_nothing_is_the_area_under_the_curve():
    # 1 * 80, and from 1 to 3 a rectangle of 80
    assert accuracy_under_parallelism([(3.0, 80.0), (1.0, 80.0)], 80.0) == 80.0 + 2 * 80.0


def test_a_loss_is_weighted_by_its_share_of_the_best():
    # W(80) = exp(-3 * 0.2), W(76) = exp(-3 * 0.24) of a best of 100
    wanted = 2 * 80 + (4 - 2) * (80 * exp(-0.6) + 76 * exp(-0.72)) / 2
    assert accuracy_under_parallelism([(2.0, 80.0), (4.0, 76.0)], 100.0) == pytest.approx(wanted)
    assert wanted == pytest.approx(240.90, abs=0.01)


def test_a_run_that_loses_more_than_five_points_does_not_count():
    within = [(1.0, 80.0), (2.0, 75.0)]
    assert accuracy_under_parallelism([*within, (8.0, 74.9)], 80.0) == accuracy_under_parallelism(within, 80.0)
    # One that recovers counts from the last that did.
    wanted = 80 + (3 - 1) * (80 + 80) / 2
    assert accuracy_under_parallelism([(1.0, 80.0), (2.0, 10.0), (3.0, 80.0)], 80.0) == wanted


def test_nothing_right_is_nothing():
    assert accuracy_under_parallelism([(1.0, 0.0), (2.0, 0.0)], 0.0) == 0.0


def record(sampler, speed, accuracy, cache="none"):
    return {"model": "m", "sampler": sampler, "cache": cache, "tokens_per_forward": speed} | {
        "accuracy": accuracy,
        "is_share": True,
    }


def test_runs_of_one_sampler_at_several_speeds_are_one_curve():
    records = [
        record("one", 1.0, 0.8),
        record("one", 2.0, 0.8),
        record("two", 1.0, 0.6),
        record("one", 1.0, 0.7, "dual"),
    ]
    assert by_sampler(records) == [160.0, 160.0, None, None]
    assert by_sampler([record("one", None, 0.8), record("one", 2.0, 0.8)]) == [None, None]


def test_either_count_of_tokens_makes_a_curve():
    records = [record("one", 1.0, 0.8) | {"until": 1.0}, record("one", 4.0, 0.8) | {"until": 2.0}]
    assert by_sampler(records) == [320.0, 320.0] and by_sampler(records, "until") == [160.0, 160.0]
