"""Tasks: examples, prompts and grading. Imports no torch, so that a task is cheap to load."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from mdm.protocols.model import PromptStyle
from mdm.protocols.options import NoOptions
from pydantic import BaseModel

MASK = "[MASK]"
"""How a masked position is written in a text, whatever the model's own mask token is called."""

Answers = Literal["text", "image"]
"""What a model answers with: a text, or a picture."""


@dataclass(frozen=True)
class Picture:
    """A picture in a chat, for models that see."""

    path: Path
    squash: bool = False
    """resize the whole of it to the model's square, instead of cutting out its middle"""


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str | Picture | tuple[str | Picture, ...]
    """a text, a picture, or several of them in the order in which they are meant; texts stand on lines of their own"""

    @property
    def text(self) -> str:
        """The content without its pictures."""
        return "\n".join(part for part in self._parts if isinstance(part, str))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures of the content."""
        return tuple(part for part in self._parts if isinstance(part, Picture))

    @property
    def _parts(self) -> tuple[str | Picture, ...]:
        return self.content if isinstance(self.content, tuple) else (self.content,)


@dataclass(frozen=True)
class Prompt:
    """What a task shows to a model.

    The completion that is graded is everything after the context: ``answer`` with its masks filled, followed by the
    generated tokens.
    """

    context: str | tuple[Message, ...]
    """plain text, or a chat; what it names of masks and special tokens is text"""
    answer: str = ""
    """how the answer begins; it may hold ``MASK``"""
    gen_length: int = 0
    """tokens to generate after it"""
    stop: tuple[str, ...] = ()
    """texts at which the answer ends, special tokens included; they are looked for in what is generated"""
    kind: Answers = "text"
    """"image" asks a model that draws for a picture of what the context, a plain text, says"""


@dataclass(frozen=True)
class Example:
    """One example of a task."""

    id: str
    inputs: Mapping[str, Any]
    """what the prompt and the grader need"""
    reference: str
    """a right answer"""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """anything else that is worth keeping"""


@dataclass(frozen=True)
class Piece:
    """A token of an answer as it was decoded."""

    text: str
    step: int
    """the step in which it was committed for the last time; -1: it was given, or filled in behind an end token"""


class BaseTask:
    """Examples, how to ask for them, and how to grade completions.

    A task overrides ``examples``, ``prompt`` and ``grade``, or ``grade_image`` where it asks for pictures. It is
    created once for a run, with an instance of its ``Options``.
    """

    Options: ClassVar[type[BaseModel]] = NoOptions
    metric: ClassVar[str] = "accuracy"
    """The key of ``grade`` that a summary reports as the accuracy."""
    default_limit: ClassVar[int | None] = None
    """How many examples a run has when neither ``--limit`` nor ``--data`` is given; None is all of them."""
    answers: ClassVar[Answers] = "text"
    """What its prompts ask for; of one task they all ask for the same."""
    options_to_grade: ClassVar[Mapping[str, Any]] = {}
    """Options that ``mdm grade`` sets unless it is told otherwise, of a task whose runs may leave grading for later."""
    executes_code: ClassVar[bool] = False
    """Whether grading runs what the model wrote, so that a run needs ``--allow-code-execution``."""
    measures: ClassVar[Sequence[str]] = ()
    """The names of the grades that ``measure`` gives; without any it is not called."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of ``mdm check`` that this task cannot pass -> why."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        """All rows of ``data`` (else of the task's own data) in order, or an endless pure function of ``seed``.

        Raises:
            MdmError: ``data`` is missing or broken; the message names file, line and field.
        """
        raise NotImplementedError

    @abstractmethod
    def prompt(self, example: Example, style: PromptStyle) -> Prompt:
        """What a model is shown."""
        raise NotImplementedError

    def continuation(self, example: Example, style: PromptStyle) -> Prompt:
        """What an autoregressive model is shown, which can only continue a text: a prompt without masks."""
        return self.prompt(example, style)

    def grade(self, example: Example, completion: str) -> Mapping[str, float] | Future[Mapping[str, float]]:
        """Scores of one completion, finite numbers, most of them in [0, 1]. Never raises on a strange completion.

        Decoding waits while this runs. A task that grades slowly hands the work to a pool of its own and returns
        the future, which must come to an end by itself.
        """
        raise NotImplementedError

    def answer(self, example: Example, completion: str) -> str | None:
        """What ``grade`` reads as the answer in a completion, to be shown; None where that is all of it, or nothing."""
        return None

    def grade_image(self, example: Example, image: Path) -> Mapping[str, float] | Future[Mapping[str, float]]:
        """``grade`` of a picture, which lies in the PNG file ``image``. Without ``metric`` it counts as not graded."""
        raise NotImplementedError

    def measure(self, example: Example, pieces: Sequence[Piece]) -> Mapping[str, float]:
        """Further grades of one answer, by how it was decoded; those of a run are kept when it is graded once more.

        ``pieces`` are all tokens behind the context, given ones and end tokens too, in the order of the canvas.
        """
        return {}

    def aggregate(self, grades: Mapping[str, Sequence[Mapping[str, float]]]) -> Mapping[str, float]:
        """Further metrics of a whole run, such as pass@k.

        ``grades`` has for each example's id the grades of its repeats, in order; a repeat that failed has none, and
        what is not graded yet is left out.
        """
        return {}

    def close(self) -> None:
        """Release what the task holds. Called when a run ends, however it ends."""
