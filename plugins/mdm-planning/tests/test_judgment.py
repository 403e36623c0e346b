"""Half of the claims are right, answers are read as models write them, and the place of a verdict in time is known."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from mdm.errors import MdmError
from mdm.protocols import Example, Piece
from mdm_planning.judgment import Judgment, JudgmentOptions, running

FIRST, LAST = Judgment(JudgmentOptions()), Judgment(JudgmentOptions(verdict="last"))
WRONG = Example("x", {"puzzle": "7+8+5+4=6"}, "")
"""7 + 8 + 5 + 4 is 24."""


@given(st.integers(0, 10**6), st.integers(2, 20), st.sampled_from(["first", "last"]))
def test_a_claim_is_right_where_its_verdict_says_so(seed, terms, place):
    task = Judgment(JudgmentOptions(terms=terms, verdict=place))
    example = next(task.examples(seed=seed))
    total, digit = example.inputs["puzzle"].split("=")
    digits = [int(number) for number in total.split("+")]
    assert len(digits) == terms and all(1 <= number <= 9 for number in digits) and digit in "0123456789"
    assert ("y" in example.reference) == (sum(digits) % 10 == int(digit))
    assert task.grade(example, example.reference) == {"accuracy": 1, "reasoning": 1, "consistent": 1}


def test_about_half_of_the_claims_are_right():
    answers = [example.reference for example in itertools.islice(FIRST.examples(seed=3), 400)]
    assert 160 < sum(answer.startswith("y") for answer in answers) < 240


def test_the_place_of_the_verdict_changes_no_claim():
    pairs = zip(itertools.islice(FIRST.examples(seed=1), 20), LAST.examples(seed=1), strict=False)
    assert all(a.inputs == b.inputs and a.reference.split(":")[::-1] == b.reference.split(":") for a, b in pairs)


def test_the_reasoning_is_the_last_digit_of_each_sum_on_the_way():
    assert running("7+8+5+4=6") == ["5", "0", "4"]


@pytest.mark.parametrize(
    ("first", "last", "grades"),
    [
        ("n:5,0,4", "5,0,4:n", (1, 1, 1)),
        ("y:5,0,4", "5,0,4:y", (0, 1, 0)),  # against its own reasoning
        ("y:5,0,6", "5,0,6:y", (0, 0, 1)),  # wrong, and follows
        ("n:5,1,5", "5,1,5:n", (1, 0, 1)),
        ("n:5,0,", "5,0,:n", (1, 0, 0)),  # half a reasoning
        ("n:5,0", "5,0:n", (0, 0, 0)),  # not one digit for each sum
        ("[MASK]:5,0,4", "5,0,4:[MASK]", (0, 1, 0)),
        ("n:[MASK],0,[MASK]", "[MASK],0,[MASK]:n", (1, 0, 0)),
        ("No : 5, 0, 4.", "5, 0, 4: No.", (1, 1, 1)),
        ("Verdict: n: 5,0,4\nDone", "Sums: 5,0,4: n\nDone", (1, 1, 1)),
        ("I add them.\n**n: 5,0,4**", "I add them.\n**5,0,4: n**", (1, 1, 1)),
        ("The answer is (n): 5,0,4", "5,0,4: (no), it is wrong", (1, 1, 1)),
        ("n:5,0,4\n\nNote: a, b, c", "5,0,4:n\n\na, b, c: note", (1, 1, 1)),
        ("3:5,0,4", "5,0,4:3", (0, 1, 0)),  # a digit where the verdict should be
        ("n", "n", (0, 0, 0)),
        ("", "", (0, 0, 0)),
    ],
)
def test_answers_are_graded_as_they_are_written(first, last, grades):
    for task, text in ((FIRST, first), (LAST, last)):
        assert tuple(task.grade(WRONG, text).values()) == grades, text


@pytest.mark.parametrize(
    ("steps", "first", "last"),
    [
        ([0, -1, 1, -1, 2, -1, 3], 0, 1),  # left to right; -1 is a sign that was given
        ([3, -1, 2, -1, 1, -1, 0], 1, 0),
        ([1, -1, 0, -1, 1, -1, 2], 0.5, 1),  # one before, one in the same step, one behind
        ([4, -1, 4, -1, 4, -1, 4], 0.5, 0.5),
        ([-1, -1, -1], 0, 0),
        ([7], 0, 0),
    ],
)
def test_the_rank_of_the_verdict_is_the_share_decoded_before_it(steps, first, last):
    pieces = [Piece("", step) for step in steps]
    assert FIRST.measure(WRONG, pieces) == {"verdict_rank": first}
    assert LAST.measure(WRONG, pieces) == {"verdict_rank": last}


def test_files_of_claims_are_read_or_refused(tmp_path):
    (tmp_path / "claims.jsonl").write_text('{"input": "7+8=5", "output": "y:5"}\n')
    [example] = FIRST.examples(seed=0, data=Path(tmp_path / "claims.jsonl"))
    assert FIRST.grade(example, example.reference)["accuracy"] == 1
    (tmp_path / "bad.jsonl").write_text('{"input": "17+8=25", "output": ""}\n')
    with pytest.raises(MdmError, match=r"bad\.jsonl.*a claim such as 7\+8\+5=0"):
        list(FIRST.examples(seed=0, data=Path(tmp_path / "bad.jsonl")))


def test_what_is_generated_behind_the_answer_has_no_say():
    """``--gen-length`` adds positions behind an infill."""
    pieces = [Piece("", step) for step in [1, -1, 2, -1, 3, -1, 0, 4, 5, 6]]
    assert LAST.measure(WRONG, pieces) == {"verdict_rank": 0}
    assert FIRST.measure(WRONG, pieces) == {"verdict_rank": 1 / 3}
