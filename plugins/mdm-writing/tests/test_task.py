"""The task reads prompts from a file, makes some of its own, and grades only what can be counted."""

from __future__ import annotations

from itertools import islice

import pytest
from goldens import SHARED
from mdm.errors import MdmError
from mdm.protocols import Message
from mdm_writing.task import CreativeWriting, WritingOptions

TASK = CreativeWriting(WritingOptions())
DATA = SHARED / "data" / "creative_writing.jsonl"


def test_the_200_prompts_are_read_and_put_to_the_model_as_they_are():
    if not DATA.is_file():
        pytest.skip(f"{DATA} is not here")
    examples = list(TASK.examples(seed=0, data=DATA))
    assert len(examples) == len({e.id for e in examples}) == 200
    prompt = TASK.prompt(examples[1], "chat")
    assert prompt.gen_length == 512
    assert prompt.context == (
        Message(
            "user",
            "Write a small 500 word story with the following prompt:\nI really thought the toothpaste label said "
            "anti-cavity. If I paid more attention I would have noticed what it really said, anti-gravity.",
        ),
    )


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": ""}\n')
    with pytest.raises(MdmError, match=r"prompts.jsonl, line 2: prompt="):
        list(TASK.examples(seed=0, data=path))


def test_made_prompts_are_a_function_of_the_seed():
    first, again, other = ([e.inputs["prompt"] for e in islice(TASK.examples(seed=s), 20)] for s in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) > 15


@pytest.mark.parametrize(
    ("completion", "answered", "distinct"),
    [("", 0, 0), ("one", 0, 0), ("the end " * 20, 1, 2 / 39), (" ".join(f"w{i}" for i in range(20)), 1, 1)],
)
def test_grades_are_counts(completion, answered, distinct):
    [example] = islice(TASK.examples(seed=0), 1)
    assert TASK.grade(example, completion) == {"answered": answered, "distinct": pytest.approx(distinct)}
