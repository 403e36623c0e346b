r"""Grades published gold answers in many dresses: ``python tests/support/answer_tables.py`` prints the whole table.

Each gold answer is written in 20 ways that models write; each must be right for its own problem, and wrong for another
problem, whose answer it is not. ``grade`` is run as a run does.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from mdm.protocols import BaseTask, Example
from mdm_gpqa import Gpqa, GpqaOptions
from mdm_math.published import normal
from mdm_math.tasks import Gsm8k, Gsm8kOptions, Math500, Math500Options

DATA = Path(__file__).parents[3] / "shared" / "data"

MATH = (
    r"\boxed{@}",
    r"$\boxed{@}$.",
    r"\boxed{@.}",
    r"\[ \boxed{@} \]",
    r"**\boxed{@}**",
    r"\fbox{@}",
    r"\boxed{ $@$ }",
    "\\boxed{@}\n\nThe answer is in \\boxed{} as asked.",
    "As asked in \\boxed{}: \\boxed{@}",
    r"\boxed{\boxed{@}}",
    "So we get \\boxed{1234321}. Wait, that is wrong. It is \\boxed{@}.",
    "\\boxed{@}<|im_end|>\\boxed{1234321}",
    "\\boxed{@}\n\nQuestion: What is 1 + 1?\nAnswer: \\boxed{1234321}",
    r"\boxed{\displaystyle @\,}",
    "The answer is $@$.",
    "**Final Answer**\n\n$@$",
    "The final answer is:\n\n$$@$$",
    r"Answer: \(@\)",
    "<answer>@</answer>",
    "```\n\\boxed{@}\n```",
)
GSM8K = (
    "####@",
    "#### @.",
    "#### **@**",
    "#### *@*",
    "#### `@`",
    "#### __@__",
    "#### $@",
    r"#### \$@",
    "#### @ dollars",
    "#### (@)",
    "#### ~@",
    "#### @.00",
    "The answer is @.",
    "**Answer:** @ apples",
    "**Final Answer**\n\n@",
    r"Thus \[ \boxed{\text{@}} \]",
    "The answer is 1234321. Wait, that is wrong.\n#### @",
    "<answer>@</answer>",
    "#### @\n\nQuestion: Tom has 2 and buys 3.\nAnswer: 2 + 3 = 5\n#### 5",
    "#### @\nuser\n\nAnd then?assistant\n\n#### 7",
)
GPQA = (
    "@",
    "(@)",
    "@) 3 eV",
    "**@**",
    "@. 10^-4 eV",
    "The answer is (@).",
    "The answer is @.",
    "Answer: @",
    "**Answer: @**",
    r"\boxed{@}",
    r"\boxed{\text{@}}",
    r"\boxed{\textbf{(@)}}",
    r"\boxed{@: the second law}",
    "The correct option is @.",
    "Therefore, the correct choice is @",
    "<answer>@</answer>",
    "**Final Answer**\n\n@. 10^-4 eV",
    'The answer is "@".',
    "A) is odd. B) is odd. C) is odd. D) is odd. The answer is (@)",
    "Option @ is correct.",
)
DRESSES = {"math500": MATH, "gsm8k": GSM8K, "gpqa": GPQA}


def task(name: str) -> BaseTask:
    """The task of a table."""
    if name == "gpqa":
        return Gpqa(GpqaOptions())
    return Math500(Math500Options()) if name == "math500" else Gsm8k(Gsm8kOptions())


def examples(name: str) -> list[tuple[Example, str]]:
    """Each problem of a table and its gold answer."""
    if name == "gpqa":
        inputs = {"question": "q", "choices": ["w", "x", "y", "z"]}
        return [(Example(letter, inputs, f"The answer is ({letter})"), letter) for letter in "ABCD"]
    return [(e, e.inputs["answer"]) for e in task(name).examples(seed=0, data=DATA / f"{name}_test.jsonl")]


def value(name: str, gold: str) -> str | Fraction:
    """By which gold answers are told apart, so that one is wrong for another."""
    return Fraction(gold) if name == "gsm8k" else normal(gold)


def cases(name: str, right: bool) -> Iterator[tuple[Example, str]]:
    """All problems with a completion each: their own answer in every dress, or that of a problem drawn at random."""
    golds = examples(name)
    values = {gold: value(name, gold) for _, gold in golds}
    draw = random.Random(f"{name}:{right}")
    for example, gold in golds:
        for dress in DRESSES[name]:
            answer = gold
            while not right and values[answer] == values[gold]:
                _, answer = draw.choice(golds)
            yield example, dress.replace("@", answer)


def graded(subject: BaseTask, some: Sequence[tuple[Example, str]]) -> list[float]:
    """The accuracy of each case."""
    return [dict(subject.grade(example, text))["accuracy"] for example, text in some]  # type: ignore[call-overload]


def main() -> None:
    print("| task | golds | dresses | right | of | shuffled: right | of | seconds |\n|---|---|---|---|---|---|---|---|")
    for name in sys.argv[1:] or DRESSES:
        subject, start = task(name), time.monotonic()
        row = [name, len(examples(name)), len(DRESSES[name])]
        for right in (True, False):
            some = list(cases(name, right))
            found = graded(subject, some)
            row += [f"{int(sum(found))} ({sum(found) / len(found):.2%})", len(found)]
            for (example, text), grade in zip(some, found, strict=True):
                if grade != right:
                    print("  differs:", example.inputs.get("answer", example.reference), repr(text), file=sys.stderr)
        subject.close()
        print("|", " | ".join(map(str, (*row, round(time.monotonic() - start)))), "|", flush=True)


if __name__ == "__main__":
    main()
