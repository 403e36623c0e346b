"""What each embedded model is: its tokens, its network, and the examples that it is trained on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from mdm import registry
from mdm.protocols import MASK, Example

EOS, MASK_TOKEN, UNKNOWN = "<|eos|>", "<|mask|>", "<|unknown|>"
SIGNS = "+-*/=,:()?._ \nabcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"
TRAINING_SEED = 1_000_000_007
"""Added to the seed of the data; evaluations use small seeds."""


class Source(NamedTuple):
    """Examples of one task within a curriculum."""

    task: str
    options: dict[str, Any]
    rows: int
    """of each step's batch"""
    weight: float = 1.0
    """of its mean loss"""
    length: int | None = None
    """tokens of an answer that is generated, of those that have no more; None: as many as the prompt asks for"""
    keep: Callable[[Example], bool] = lambda example: True
    """which examples are used"""


class Phase(NamedTuple):
    """A part of a training with a curriculum of its own, over which the learning rate rises and falls once."""

    steps: int
    learning_rate: float
    """its highest"""
    curriculum: tuple[Source, ...]


@dataclass(frozen=True)
class Sequence:
    ids: tuple[int, ...]
    first: int
    """where the response begins"""


@dataclass(frozen=True)
class Recipe:
    """A model and its training."""

    tokens: tuple[str, ...]
    """the text of each token; behind them come the end token, the mask and the unknown token"""
    pattern: str
    """a regular expression whose matches, one after the other, are a text's tokens"""
    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    phases: tuple[Phase, ...]
    skew: float = 1.0
    """the rate of masks is a uniform number to this power; below 1 there are more rows with nearly all masked"""
    float32_muon: bool = False
    """torch's Muon computes in bfloat16, which costs more than the network does where a CPU is slow with it"""
    waves: bool = False
    """whether the vectors of numbers begin as waves of several lengths, so that sums and differences are turns"""

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    @property
    def eos_id(self) -> int:
        return len(self.tokens)

    @property
    def mask_id(self) -> int:
        return len(self.tokens) + 1

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: id for id, token in enumerate(self.tokens)}

    def encode(self, text: str) -> list[int]:
        return [self._ids[part] for part in re.findall(self.pattern, text)]

    def stream(self, source: Source, seed: int) -> Iterator[Sequence]:
        """Training sequences of one source, endless."""
        kind = registry.resolve("task", source.task)
        maker = kind(kind.Options.model_validate(source.options))
        for example in maker.examples(seed=TRAINING_SEED + seed):
            if not source.keep(example):
                continue
            prompt = maker.prompt(example, "compact")
            context, answer = self.encode(prompt.context), self.encode(example.reference)
            if prompt.gen_length:
                length = source.length or prompt.gen_length
                if len(answer) > length:
                    continue
                answer += [self.eos_id] * (length - len(answer))
            elif len(answer) != len(self.encode(prompt.answer.replace(MASK, "_"))):
                raise AssertionError(f"{example.id}: the reference does not fit the infill")
            yield Sequence((*context, *answer), len(context))


TINY = Recipe(
    tokens=(*DIGITS, *SIGNS), pattern=r"[\s\S]", vocabulary=64, width=128, layers=4, heads=4, inner=384,
    phases=(
        Phase(12000, 3e-3, (
            Source("sudoku", {"mode": "infill"}, 24),
            Source("sudoku", {"mode": "generate"}, 4),
            Source("countdown", {"numbers": 3}, 12),
            Source("countdown", {"numbers": 4}, 2),
            Source("equations", {"operation": "product"}, 96),
            Source("equations", {"operation": "sum"}, 8),
        )),
    ),
)  # fmt: skip
"""Characters as tokens."""

NUMBERS = (*DIGITS, *(f"{n:02}" for n in range(100)), *(str(n) for n in range(100, 200)))
"""Those of one digit, of two, and from 100 to 199; longer ones are written with several of these."""


def begins_with_the_first_two(example: Example) -> bool:
    """Whether a solution of three numbers begins with the first two of them, or no solution does.

    Most problems have several solutions that differ in their order only: a small model learns one of them sooner.
    """
    from mdm_planning.steps import compute

    a, b, c, target = map(int, example.inputs["puzzle"].split(","))
    found = []
    for operator in "+-*/":
        value = compute(max(a, b), operator, min(a, b))
        if value is not None:
            begun = f"{max(a, b)}{operator}{min(a, b)}={value}"
            large, small = max(value, c), min(value, c)
            found += [f"{begun},{large}{o}{small}={target}" for o in "+-*/" if compute(large, o, small) == target]
    return example.reference in found or not found


COUNTDOWN = Recipe(
    tokens=(*NUMBERS, *SIGNS), pattern=r"1?\d{1,2}|\D", vocabulary=256, width=128, layers=4, heads=4, inner=384,
    phases=(
        Phase(4500, 3e-3, (
            Source("countdown", {"numbers": 3}, 80, length=12, keep=begins_with_the_first_two),
            Source("countdown", {"numbers": 3}, 4, 0.05, keep=begins_with_the_first_two),
            Source("judgment", {"verdict": "first"}, 4, 0.1),
            Source("judgment", {"verdict": "last"}, 4, 0.1),
        )),
        Phase(1500, 1.5e-3, (
            Source("countdown", {"numbers": 3}, 40, length=12, keep=begins_with_the_first_two),
            Source("countdown", {"numbers": 3}, 4, 0.05, keep=begins_with_the_first_two),
            Source("judgment", {"verdict": "first"}, 32),
            Source("judgment", {"verdict": "last"}, 32),
        )),
    ),
    skew=0.5, float32_muon=True, waves=True,
)  # fmt: skip
"""Numbers as tokens, so that an equation is six of them."""

RECIPES = {"tiny": TINY, "tiny-countdown": COUNTDOWN}
