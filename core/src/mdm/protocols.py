"""The seams: what a plugin implements and what the core hands to it.

Nothing here imports torch, so a plugin may import these types and stay cheap to list.
Tensors carry a leading row axis B; L is the canvas length, K the scored positions of a row,
N the candidates of a row, Q the positions of one forward, D the hidden width, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from concurrent.futures import Future

    from mdm.model import Model
    from mdm.rng import Draws
    from mdm.state import Commit, Evaluate, Plan, Scores, State
    from torch import Tensor

MASK = "[MASK]"
"""How a masked position is written in a text, whatever the model's own mask token is called."""

PromptStyle = Literal["chat", "compact"]


class NoOptions(BaseModel):
    """The options of a plugin that has none. Base of every Options: an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class ModelSpec:
    """What decoding must know about a model family."""

    family: str
    vocab_size: int
    mask_id: int
    """-1 for an autoregressive model, which has none."""
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    shift: bool = False
    """The row of position i-1 predicts position i (Dream)."""
    attention: Literal["full", "block-causal", "causal"] = "full"
    """block-causal: full inside a block, causal across blocks, on a grid from position 0 (SDAR). causal: an
    autoregressive baseline, which decodes by its own ``generate`` (see ``Autoregressive``)."""
    block_length: int | None = None
    """The family's own block length, used where the user names none."""
    has_kv: bool = True
    """False for encoders: they cannot run under a K/V cache."""
    suppressed: tuple[int, ...] = ()
    """Tokens that are never drawn."""
    prefix: tuple[int, ...] = ()
    """What the model wants before a plain text ([CLS], BOS)."""
    suffix: tuple[int, ...] = ()
    """And behind it ([SEP]), after the masks."""
    image_offset: int | None = None
    """Id of the first image code, in a vocabulary that holds some behind its text (MMaDA); None: unknown or none."""
    image_codes: int = 0
    """How many image codes the vocabulary holds."""
    prompt_style: PromptStyle = "chat"
    default_cache: str = "none"


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


class Sampler(Protocol):
    """A decoding policy: which masked positions to commit, and to which tokens.

    ``Sampler(options)`` is called with an instance of ``Options``. It keeps nothing else in ``self``.
    ``mdm.sampler.BaseSampler`` has the usual answers to all but ``decide``.
    """

    Options: ClassVar[type[BaseModel]]
    works_on: ClassVar[Literal["block", "canvas"]]
    """Which masked positions a row may commit: its current block's, or all of them."""
    reads: ClassVar[Literal["masked", "generated"]]
    """Which of them are scored: masks, or also positions decoded before."""
    budgets: ClassVar[Literal["masks", "size"]]
    """What the schedule divides among a block's steps: its masks, or its size."""
    pace: ClassVar[Literal["schedule", "own"]]
    """Whether a step commits at most ``state.budget`` tokens, or as many as the sampler sees fit."""
    keeps_logits: ClassVar[bool]
    """Whether ``Scores.logits`` is wanted."""

    def decide(
        self, state: State, scores: Scores, memory: Any, draws: Draws
    ) -> Commit | Generator[Evaluate, Scores, Commit]:
        """One step for all rows at once. May first yield ``Evaluate`` to see what a commit would bring."""
        ...


class CacheMode(Protocol):
    """Which positions each step computes, and whose keys and values are kept.

    A mode that is right for one kind of attention only says so in a class attribute ``attention``, as in ``ModelSpec``.
    """

    Options: ClassVar[type[BaseModel]]
    uses_kv: ClassVar[bool]

    def __init__(self, options: Any) -> None: ...

    def plan(self, state: State, spec: ModelSpec) -> Plan: ...


class ModelFamily(Protocol):
    """How checkpoints of one family become a ``Model``. Registered under ``mdm.models``.

    It may also have ``example(folder)``, which writes a tiny random checkpoint: what ``mdm check`` runs on by default.

    A family of autoregressive baselines has a class attribute ``causal = True``: samplers and caches do not apply.
    """

    name: str

    def claims(self, config: Mapping[str, Any]) -> bool:
        """Whether a config.json is of this family."""
        ...

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        """Read the weights (safetensors only).

        Raises:
            MdmError: a missing, unexpected or misshapen weight, or a config key the family cannot honour.
        """
        ...


class Network(Protocol):
    """The forward of a model, without policy."""

    def hidden(self, tokens: Tensor, positions: Tensor, *, mask: Tensor | None = None, cache: Any = None) -> Tensor:
        """Final hidden states ``[R, Q, D]`` of ``tokens`` ``[R, Q]`` at ``positions`` ``[R, Q]``.

        ``mask`` is an additive float mask ``[R, 1, Q, T]`` over the keys, or None where every key is visible.
        """
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Logits ``[..., V]`` of hidden states ``[..., D]``."""
        ...


class Autoregressive(Protocol):
    """What a model with ``spec.attention == "causal"`` offers in place of masks to fill."""

    def generate(
        self, prompts: Sequence[Sequence[int]], gen_length: int, choose: Callable[[Tensor, Tensor], Tensor]
    ) -> list[list[int]]:
        """For each prompt the tokens that follow it, up to its end token or ``gen_length``.

        ``choose`` is called once a step with the ids so far and their logits ``[B, V]``, and gives logits back that
        leave one token to each row.
        """
        ...


ChatMessages = Sequence[Message]
