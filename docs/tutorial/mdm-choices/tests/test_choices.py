"""The task keeps what every task promises, and grades as it should."""

from mdm_testing import parametrize_with_checks

from mdm_choices import Choices, ChoicesOptions


@parametrize_with_checks("task", ["choices"])
def test_conforms(check):
    check()


def test_only_the_reversed_word_is_right():
    task = Choices(ChoicesOptions(length=3))
    example = next(iter(task.examples(seed=0)))
    word = example.inputs["word"]
    assert task.grade(example, word[::-1]) == {"accuracy": 1.0}
    assert task.grade(example, f"{word[::-1]}!") == {"accuracy": 0.0}
