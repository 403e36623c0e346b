"""The published files are read, put and graded: right answers are found, others are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from mdm.errors import MdmError
from mdm.protocols import Example
from mdm_math.published import boxed, last_number, normal
from mdm_math.tasks import Gsm8k, Gsm8kOptions, Math500, Math500Options

DATA = Path(__file__).parents[4] / "shared" / "data"
GSM8K, MATH500 = Gsm8k(Gsm8kOptions()), Math500(Math500Options())
FILES = [(GSM8K, "gsm8k_test.jsonl", 1319), (MATH500, "math500_test.jsonl", 500)]
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not here")


@needs_data
@pytest.mark.parametrize(("task", "name", "count"), FILES)
def test_gold_texts_are_right(task, name, count):
    """Texts that are wrong are in ``tests/test_answers.py``."""
    examples = list(task.examples(seed=0, data=DATA / name))
    assert len(examples) == count
    grades = [task.grade(example, example.reference) for example in examples]
    for metric in ("accuracy", "published"):
        assert sum(grade[metric] for grade in grades) / count >= 0.995


@needs_data
def test_golden_prompts():
    example = next(GSM8K.examples(seed=0, data=DATA / "gsm8k_test.jsonl"))
    prompt = GSM8K.prompt(example, "chat")
    assert [message.role for message in prompt.context] == ["user", "assistant"] * 2 + ["user"]
    assert prompt.context[1].content == "Mia buys 3 * 12 = 36 eggs. She has 36 - 7 = 29 left.\n#### 29"
    assert prompt.context[-1].content.startswith(
        "Solve the problem step by step. End with a line that says #### and the number.\n\nJanet’s ducks lay 16 eggs"
    )
    assert (prompt.answer, prompt.gen_length) == ("", 256)
    assert GSM8K.prompt(example, "compact").context.endswith("at the farmers' market?\nAnswer:")
    prompt = MATH500.prompt(next(MATH500.examples(seed=0, data=DATA / "math500_test.jsonl")), "chat")
    [message] = prompt.context
    assert message.content.startswith(
        "Solve the problem step by step. Put the final answer within \\boxed{}.\n\nConvert the point $(0,3)$ in"
    )


@pytest.mark.parametrize("task", [GSM8K, MATH500], ids=["gsm8k", "math500"])
def test_the_worked_examples_are_right(task):
    for _, text in task.worked:
        answer = boxed(text) or last_number(text)
        assert task.grade(Example("x", {"question": "", "answer": answer}, ""), text) == {"accuracy": 1, "published": 1}


@pytest.mark.parametrize(
    ("text", "number"),
    [("#### 1,234", "1234"), ("2 then 3.50", "3.5"), ("none", None), ("it is 18.", "18"),
     ("1\n#### 18\nSo 5", "18")],
)  # fmt: skip
def test_the_published_number(text, number):
    assert last_number(text) == number


def test_the_answer_that_is_graded_can_be_shown():
    example = Example("e", {"question": "?", "answer": "36"}, "#### 36")
    assert GSM8K.answer(example, "12 * 3 = 36, and 3 are left.\n#### 1,036.50") == "1036.5"
    assert MATH500.answer(example, r"Half of it is $\boxed{\frac{3}{4}}$.") == r"\frac{3}{4}"
    assert GSM8K.answer(example, "") is None and MATH500.answer(example, "") is None


def test_the_published_box():
    assert boxed("\\boxed{1} and \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert boxed("\\boxed{1") is None and boxed("1") is None
    assert normal("\\left( 3, \\dfrac12 \\right)") == normal("(3,\\frac{1}{2})")


@settings(deadline=None, max_examples=50)
@given(st.one_of(st.text(max_size=60), st.text("0123456789.,$\\{}^#boxedfrac ", max_size=60)))
def test_a_strange_completion_is_graded_not_raised(text):
    example = Example("x", {"question": "", "answer": "3"}, "")
    for task in (GSM8K, MATH500):
        assert set(task.grade(example, text).values()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("task", "good", "bad", "field"),
    [
        (GSM8K, '{"question": "q", "answer": "#### 1"}', '{"question": "q", "answer": "1"}', "answer"),
        (MATH500, '{"problem": "q", "solution": "", "answer": "1"}', '{"problem": "q", "solution": ""}', "answer"),
    ],
)
def test_a_broken_line_17_is_named(tmp_path, task, good, bad, field):
    (tmp_path / "a.jsonl").write_text("\n".join([good] * 16 + [bad]))
    with pytest.raises(MdmError, match=rf"a\.jsonl, line 17: {field}"):
        list(task.examples(seed=0, data=tmp_path / "a.jsonl"))
