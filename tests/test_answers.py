"""The reader of final answers, and 200 seeded samples of each table of ``tests/support/answer_tables.py``."""

from __future__ import annotations

import random
import subprocess
import sys
from fractions import Fraction

import answer_tables
import pytest
from hypothesis import given, settings, strategies as st
from mdm.protocols.answers import answer_part, bare, boxes, final, last_number, numbers, plain, statements, undress

SAMPLES = 200


@pytest.mark.parametrize("name", list(answer_tables.DRESSES))
@pytest.mark.parametrize("right", [True, False], ids=["gold", "shuffled"])
def test_gold_answers_in_any_dress(name, right):
    if name != "gpqa" and not answer_tables.DATA.is_dir():
        pytest.skip(f"{answer_tables.DATA} is not here")
    cases = list(answer_tables.cases(name, right))
    task = answer_tables.task(name)
    found = answer_tables.graded(task, random.Random(0).sample(cases, min(SAMPLES, len(cases))))
    task.close()
    assert sum(found) >= 0.995 * len(found) if right else sum(found) < 0.01 * len(found)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("#### 18\n\nQuestion: next?", "#### 18\n\n"),
        ("18\n**Q:** next?", "18\n"),
        ("18\nQuestion 2: next?", "18\n"),
        ("18\nuser\n\nmore?", "18\n"),
        ("18user\n\nmore?", "18"),
        ("yes.assistant\n\nno", "yes."),
        ("18<|im_end|>5", "18"),
        ("18</s>5", "18"),
        ("18\nHuman: and?", "18\n"),
        ("<think>5</think>18", "18"),
        ("18\n### Question: x", "18\n"),
        ("Question: again\nAnswer: 18", "Question: again\nAnswer: 18"),
        ("the user\nis 18", "the user\nis 18"),
        ("my question: is it 18?", "my question: is it 18?"),
        ("superuser\nis 18", "superuser\nis 18"),
        ("", ""),
    ],
)
def test_an_answer_ends_before_what_comes_next(text, part):
    assert answer_part(text) == part


@pytest.mark.parametrize(
    ("text", "held"),
    [
        (r"\boxed{5}", ["5"]),
        (r"\boxed{\frac{1}{2}} \boxed{3", [r"\frac{1}{2}", None]),
        (r"\boxed{} \fbox{7}", ["7"]),
        (r"\boxed{\boxed{5}}", [r"\boxed{5}"]),
        (r"\boxed 5.", ["5"]),
        (r"\boxed{\{1,2\}}", [r"\{1,2\}"]),
        (r"\boxed {4}", ["4"]),
        (r"\boxed as asked", []),
        (r"boxed{5}", ["5"]),
        (r"unboxed{5}", []),
        (r"\\boxed{5}", ["5"]),
        (r"\boxed{15}\boxed{15}\boxed{1", ["15", "15"]),
        (r"\boxed{15}\boxed{", ["15"]),
        (r"\boxed{15} and \boxed{2", ["15", None]),
        (r"\boxed{ }", []),
        (r"}{\boxed{1}", ["1"]),
    ],
)
def test_boxes(text, held):
    assert [box.text for box in boxes(text)] == held


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The answer is 5.", ["5."]),
        ("Answer: 5", ["5"]),
        ("#### 5", ["5"]),
        ("**Final Answer**\n\n5", ["5"]),
        ("The final answer, in cm, is:\n\n5 cm", ["5 cm"]),
        ("<answer>5</answer>", ["5"]),
        ("The answer is not 5", []),
        ("To answer this: 5", []),
        ("Answers are 5 and 6", ["5 and 6"]),
        ("The correct option is 5", ["5"]),
        ("5", []),
        ("**Answer**:\n- 5", ["5"]),
        ("Is this the answer? It is 5", []),
        ("## Answer\n5", ["5"]),
    ],
)
def test_statements(text, said):
    assert [(one.text or "").strip("* ") for one in statements(text)] == said


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is 5.", "5"),
        ("The answer is 5. Wait, it is 6.", None),
        ("The answer is 5. That is wrong.", None),
        ("The answer is 5. Wait, let me check. That is correct.", "5"),
        ("The answer is 5, as he has to wait 3 days.", "5"),
        ("The answer is 5. I made a mistake. The answer is 6.", "6"),
        (r"\boxed{5} no wait, \boxed{6", None),
        ("The answer is 5. Actually, the answer is 6.", "6"),
        ("The answer is 5. Is this wrong? No. That is right.", "5"),
    ],
)
def test_what_is_taken_back_does_not_count(text, value):
    assert final(text, lambda one: (one.text or "").strip()[:1], lambda rest: None) == value


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("$1,080.50", ["1080.5"]),
        (r"13\,535", ["13535"]),
        ("13{,}535", ["13535"]),
        ("−3", ["-3"]),
        ("-$3", ["-3"]),
        ("16 - 3 = 13", ["16", "3", "13"]),
        ("10-18", ["10", "18"]),
        ("5 1/2", ["11/2"]),
        (r"\frac{3}{4}", ["3/4"]),
        ("18k", ["18000"]),
        ("1.5 million", ["1500000"]),
        ("1e3", ["1000"]),
        ("x18 18th 5:30 1,08 1.2.3 3/0", []),
        ("２５", ["25"]),
        ("€7", ["7"]),
        ("**7**", ["7"]),
        ("_7_", ["7"]),
        ("5$10", ["5", "10"]),
        (".5", ["0.5"]),
    ],
)
def test_numbers_are_exact_and_glued_to_nothing(text, values):
    assert [value for *_, value in numbers(bare(plain(text)))] == [Fraction(value) for value in values]


def test_a_number_that_is_denied_is_not_named():
    assert last_number("It is 7, not 5") == (6, 7, 7)


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("**5**", "5"),
        ("$5.$", "5"),
        (r"\text{\textbf{B.}}", "B"),
        (r"\boxed{5\,}", "5"),
        ("`5`", "5"),
        ("5!", "5!"),
        (r"{5}", "5"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("“5”", "“5”"),
        (r"\[ 5 \]", "5"),
        ("{1}{2}", "{1}{2}"),
    ],
)
def test_only_dress_is_taken_off(text, inside):
    assert undress(text) == inside


@settings(deadline=None)
@given(st.one_of(st.text(max_size=80), st.text("\\boxed{}#$*_ \nanswer is: 5.,-/", max_size=80)))
def test_no_text_is_too_strange(text):
    part = answer_part(text)
    final(part, lambda one: numbers(bare(one.text or "")) or None, lambda rest: last_number(bare(rest)))
    undress(part)


@pytest.mark.wide
@pytest.mark.parametrize(
    "piece", ["answer: ", r"\boxed{", "\n", "*", "(", "$5 ", "Wait, ", "1+", "(A) ", "<answer>", "####"]
)
def test_long_texts_take_time_in_proportion(piece):
    """In a process of its own, which a quadratic reader would not leave in time."""
    code = f"""
import answer_tables
text = {piece!r} * (100_000 // len({piece!r}))
for name in answer_tables.DRESSES:
    task = answer_tables.task(name)
    inputs = {{"question": "q", "answer": "5", "choices": list("wxyz")}}
    task.grade(answer_tables.Example("x", inputs, "The answer is (A)"), text)
    task.close()
"""
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "tests/support"}, timeout=120, check=True)
