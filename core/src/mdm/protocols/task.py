"""The seams: what a plugin implements and what the core hands to it.

Nothing here imports torch, so a plugin may import these types and stay cheap to list.
Tensors carry a leading row axis B; L is the canvas length, K the scored positions of a row,
N the candidates of a row, Q the positions of one forward, D the hidden width, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from mdm.protocols.model import PromptStyle
from pydantic import BaseModel

if TYPE_CHECKING:
    from concurrent.futures import Future


MASK = "[MASK]"
"""How a masked position is written in a text, whatever the model's own mask token is called."""


@dataclass(frozen=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Prompt:
    """What a task shows to a model.

    ``context`` is plain text or a chat; ``answer`` continues it and may hold ``MASK``. The completion
    that is graded is everything after the context: ``answer`` with its masks filled, followed by
    ``gen_length`` generated tokens.
    """

    context: str | tuple[Message, ...]
    answer: str = ""
    gen_length: int = 0


@dataclass(frozen=True)
class Example:
    """One example of a task. ``inputs`` is what the prompt and the grader need; ``reference`` a right answer."""

    id: str
    inputs: Mapping[str, Any]
    reference: str
    extra: Mapping[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """Examples, how to ask for them, and how to grade what comes back.

    ``Task(options)`` is called with an instance of ``Options``. A task may also have

    - ``presets``, a mapping from a name to settings, which are fields of ``DecodeConfig`` and options of the task:
      ``--preset NAME`` begins from them, and whatever the user sets wins.
    - ``executes_code = True``: grading runs what the model wrote, so a run needs ``--allow-code-execution``.
    - ``aggregate(grades)``: from example id -> the grades of its repeats, in order, further metrics of the whole run,
      as pass@k. A repeat that failed has no grades.
    - ``close()``, called when a run ends, however it ends.
    - ``continuation(example, style)``: the prompt for a model that can only continue a text, if ``prompt`` has masks.
    """

    Options: ClassVar[type[BaseModel]]
    metric: ClassVar[str]
    """The key of ``grade`` that a summary reports as the accuracy."""
    default_limit: ClassVar[int | None]
    """How many examples a run takes when neither ``--limit`` nor ``--data`` is given; None is all of them."""

    def __init__(self, options: Any) -> None: ...

    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        """All rows of ``data`` (else of the task's own data) in order, or an endless pure function of ``seed``.

        Raises:
            MdmError: ``data`` is missing or broken; the message names file, line and field.
        """
        ...

    def prompt(self, example: Example, style: PromptStyle) -> Prompt: ...

    def grade(self, example: Example, completion: str) -> Mapping[str, float] | Future[Mapping[str, float]]:
        """Scores of one completion, each in [0, 1]. Never raises on a strange completion.

        Decoding waits while this runs. A task that grades slowly hands the work to a pool of its own and returns
        the future, which must come to an end by itself.
        """
        ...


ChatMessages = Sequence[Message]
