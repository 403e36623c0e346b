"""Choices are shuffled by the seed, and a broken file is named by its line."""

from __future__ import annotations

import csv
from collections import Counter

import pytest
from mdm.errors import MdmError
from mdm.protocols import Example
from mdm_gpqa import Gpqa, GpqaOptions
from mdm_gpqa.letters import settled_letter

TASK = Gpqa(GpqaOptions())
FIELDS = ["Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gpqa.csv"
    with path.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow([*FIELDS, "Subdomain"])
        rows.writerows([f"Which\nis {n}?", f"right {n}", "one", "two", "three", "Physics"] for n in range(200))
    return path


def test_choices_are_shuffled_by_the_seed(file):
    first, again, other = (list(TASK.examples(seed=seed, data=file)) for seed in (0, 0, 1))
    assert first == again and len(first) == 200
    assert [e.reference for e in first] != [e.reference for e in other]
    for n, example in enumerate(first):
        assert sorted(example.inputs["choices"]) == sorted([f"right {n}", "one", "two", "three"])
        letter = settled_letter(example.reference)
        assert example.inputs["choices"]["ABCD".index(letter)] == f"right {n}"
        assert [TASK.grade(example, f"The answer is ({a})")["accuracy"] for a in "ABCD"].count(1) == 1
        assert TASK.grade(example, example.reference) == {"accuracy": 1, "answered": 1, "published": 1}
    assert all(30 <= count <= 70 for count in Counter(e.reference for e in first).values())


def test_golden_prompt(file):
    example = next(TASK.examples(seed=0, data=file))
    a, b, c, d = example.inputs["choices"]
    text = (
        "Answer the multiple-choice question. Think step by step and end with 'The answer is (X)', where X is A, B, C "
        f"or D.\n\nQuestion: Which\nis 0?\nChoices:\n(A) {a}\n(B) {b}\n(C) {c}\n(D) {d}"
    )
    [message] = TASK.prompt(example, "chat").context
    assert (message.role, message.content) == ("user", text)
    assert TASK.prompt(example, "compact").context == f"{text}\nThe answer is ("


def test_a_broken_line_17_is_named(tmp_path):
    lines = [",".join(FIELDS), *["q,a,b,c,d"] * 15, "q,,b,c,d"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(MdmError, match=r"a\.csv, line 17: Correct Answer="):
        list(TASK.examples(seed=0, data=tmp_path / "a.csv"))


def test_the_letter_that_is_graded_can_be_shown():
    example = Example("e", {"question": "?", "choices": list("wxyz")}, "The answer is (C)")
    assert TASK.answer(example, "It cannot be (A). The answer is (C).") == "C"
    assert TASK.answer(example, "I do not know.") is None
