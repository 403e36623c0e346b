"""The task keeps what every task promises, and grades as it should."""

import json

import pytest
from mdm.errors import MdmError
from mdm_choices import Choices, ChoicesOptions
from mdm_testing import parametrize_with_checks, toy_model


@parametrize_with_checks("task", ["choices"])
def test_conforms(check):
    check()


def task(**options):
    return Choices(ChoicesOptions(**options))


PLANETS = next(iter(task().examples(seed=0)))  # four choices, of which (B) is right


@pytest.mark.parametrize(
    ("completion", "accuracy", "answered"),
    [
        ("(B)", 1, 1),
        ("B.", 1, 1),
        ("Mercury is, so the answer is (B).", 1, 1),
        ("**Answer: B**", 1, 1),
        ("The answer is (A)? No: Venus is the second. The answer is (B)", 1, 1),
        ("(A)", 0, 1),
        ("The answer is (B)? No. The answer is (C)", 0, 1),
        ("The answer is (E)", 0, 0),  # there is no such choice
        ("The answer is Mercury", 0, 0),  # it was asked for a letter
        ("Because it is hot", 0, 0),
        ("The answer is a planet", 0, 0),
        ("A planet", 0, 0),
        ("", 0, 0),
    ],
)
def test_it_grades_the_letter(completion, accuracy, answered):
    assert task().grade(PLANETS, completion) == {"accuracy": accuracy, "answered": answered}


def test_shuffled_choices_keep_their_right_answer():
    plain = list(task().examples(seed=3))
    shuffled = list(task(shuffle=True).examples(seed=3))
    assert plain != shuffled
    for before, after in zip(plain, shuffled, strict=True):
        texts = [dict(zip("ABCD", e.inputs["choices"], strict=False))[e.reference[-2]] for e in (before, after)]
        assert texts[0] == texts[1]
        assert before.id == after.id


def test_a_compact_prompt_has_one_mask():
    layout = toy_model().lay_out(task().prompt(PLANETS, "compact"))
    assert layout.tokens.count(toy_model().spec.mask_id) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"question": "?", "choices": ["a", "b"], "answer": "C"}, "line 1: answer C, and there are 2 choices"),
        ({"question": "?", "choices": ["a"], "answer": "A"}, "line 1: choices"),
        ({"question": "?", "choices": ["a", "b"], "answer": "1"}, "line 1: answer"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, said):
    (tmp_path / "own.jsonl").write_text(json.dumps(line))
    with pytest.raises(MdmError, match=said):
        list(task().examples(seed=0, data=tmp_path / "own.jsonl"))
