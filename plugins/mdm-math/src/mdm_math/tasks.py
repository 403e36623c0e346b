"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168) and MATH-500 (Hendrycks et al. 2021; Lightman et al. 2023)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

from mdm.data import HubData, read, read_hub
from mdm.protocols import BaseTask, Example, Message, NoOptions, Prompt, PromptStyle
from mdm.protocols.answers import answer_part
from pydantic import BaseModel, Field

from mdm_math.expressions import equivalent
from mdm_math.formulas import settled_formula
from mdm_math.numbers import settled_number
from mdm_math.published import boxed, last_number, normal
from mdm_math.symbolic import Comparer

GEN_LENGTH = 256


class MathTask(BaseTask):
    """A question with one short answer. ``accuracy`` goes by meaning, ``published`` by the published rule."""

    instruction: ClassVar[str]
    worked: ClassVar[tuple[tuple[str, str], ...]]

    def prompt(self, example: Example, style: PromptStyle) -> Prompt:
        question: str = example.inputs["question"]
        shots = self.worked[: self.options.shots]
        if style == "compact":
            solved = "".join(f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in shots)
            return Prompt(f"{solved}Question: {question}\nAnswer:", gen_length=GEN_LENGTH, stop=("Question:",))
        turns: list[Message] = []
        for asked, answer in shots:
            turns += [Message("user", self.instruction.format(asked)), Message("assistant", answer)]
        return Prompt((*turns, Message("user", self.instruction.format(question))), gen_length=GEN_LENGTH)


class Gsm8kOptions(NoOptions):
    """Where the problems come from and how they are put."""

    shots: int = Field(2, ge=0, le=2, description="worked examples (ours) before the question")
    revision: str = Field("740312add88f781978c0658806c59bc2815b9866", description="commit of openai/gsm8k")


class Gsm8kRow(BaseModel):
    """A problem as it is published."""

    question: str = Field(min_length=1)
    answer: str = Field(pattern=r"####\s*\S")


class Gsm8k(MathTask):
    """GSM8K: 1319 word problems whose answer is a number."""

    Options: ClassVar[type[BaseModel]] = Gsm8kOptions
    instruction = "Solve the problem step by step. End with a line that says #### and the number.\n\n{}"
    worked = (
        ("A box holds 12 eggs. Mia buys 3 boxes and uses 7 eggs. How many eggs are left?",
         "Mia buys 3 * 12 = 36 eggs. She has 36 - 7 = 29 left.\n#### 29"),
        ("Tom reads 20 pages a day. How many days does a book of 300 pages take him if he skips the first 60?",
         "He reads 300 - 60 = 240 pages. That takes 240 / 20 = 12 days.\n#### 12"),
    )  # fmt: skip

    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        source = HubData("openai/gsm8k", "test", self.options.revision, "main")
        for number, row in read_hub(source, Gsm8kRow) if data is None else read(data, Gsm8kRow):
            text = re.sub(r"<<[^>]*>>", "", row.answer)
            answer = text.rsplit("####", 1)[1].strip().replace(",", "")
            yield Example(f"gsm8k-{number}", {"question": row.question, "answer": answer}, text)

    def answer(self, example: Example, completion: str) -> str | None:
        number = settled_number(completion)
        if number is None or number.denominator == 1:
            return None if number is None else str(number.numerator)
        return str(Decimal(number.numerator) / number.denominator)

    def grade(self, example: Example, completion: str) -> Mapping[str, float]:
        """``accuracy``: equal in value, exactly; ``published``: the number after ####, else the last one."""
        answer: str = example.inputs["answer"]
        gold = settled_number(answer)
        return {
            "accuracy": float(gold is not None and settled_number(completion) == gold),
            "published": float(last_number(answer_part(completion)) == last_number(answer)),
        }


class Math500Options(NoOptions):
    """Where the problems come from and how they are put."""

    shots: int = Field(0, ge=0, le=2, description="worked examples (ours) before the problem")
    revision: str = Field("6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", description="commit of HuggingFaceH4/MATH-500")


class Math500Row(BaseModel):
    """A problem as it is published."""

    problem: str = Field(min_length=1)
    solution: str
    answer: str = Field(min_length=1)


class Math500(MathTask):
    """MATH-500: 500 competition problems whose answer is an expression."""

    Options: ClassVar[type[BaseModel]] = Math500Options
    instruction = "Solve the problem step by step. Put the final answer within \\boxed{{}}.\n\n{}"
    worked = (
        ("What is the sum of the roots of $x^2 - 5x + 6$?",
         "It factors as $(x - 2)(x - 3)$, so the sum is $2 + 3 = \\boxed{5}$."),
        ("Simplify $\\frac{6}{8}$.", "Dividing both by $2$ gives $\\boxed{\\frac{3}{4}}$."),
    )  # fmt: skip

    def __init__(self, options: Math500Options) -> None:
        super().__init__(options)
        self._comparer = Comparer()

    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        source = HubData("HuggingFaceH4/MATH-500", "test", self.options.revision)
        for number, row in read_hub(source, Math500Row) if data is None else read(data, Math500Row):
            yield Example(f"math500-{number}", {"question": row.problem, "answer": row.answer}, row.solution)

    def answer(self, example: Example, completion: str) -> str | None:
        return settled_formula(completion)

    def grade(self, example: Example, completion: str) -> Mapping[str, float]:
        """``accuracy``: equal in meaning; ``published``: the last box, compared as normalised text."""
        answer: str = example.inputs["answer"]
        box, formula = boxed(answer_part(completion)), settled_formula(completion)
        question: str = example.inputs["question"]
        return {
            "accuracy": float(formula is not None and equivalent(answer, formula, self._comparer.same, question)),
            "published": float(box is not None and normal(box) == normal(answer)),
        }

    def close(self) -> None:
        self._comparer.close()
