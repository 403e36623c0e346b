"""Models: what decoding must know about one, and what it calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

PromptStyle = Literal["chat", "compact"]
"""How a task asks: by a chat, or by a short plain text for models that know no chat."""

Attention = Literal["full", "block-causal", "causal"]
"""Which positions a position sees: all of them; those of its block and the blocks before it, on a grid that begins at
position 0; or those before it, as in an autoregressive model."""


@dataclass(frozen=True)
class ModelSpec:
    """What decoding must know about a model."""

    family: str
    vocab_size: int
    mask_id: int
    """The mask token; -1 for an autoregressive model, which has none."""
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    shift: bool = False
    """Whether the logits at position i - 1 predict position i (Dream)."""
    attention: Attention = "full"
    """An autoregressive ("causal") model decodes by its own ``generate``: see ``Autoregressive``."""
    block_length: int | None = None
    """The family's own block length (tokens), used where the user names none."""
    rounds_up: bool = True
    """Whether the last block of a block-causal model's grid is filled up with masks; else it ends with the answer."""
    has_kv: bool = True
    """False for encoders: they cannot run under a K/V cache."""
    suppressed: tuple[int, ...] = ()
    """Tokens that are never decoded."""
    prefix: tuple[int, ...] = ()
    """Tokens that the model expects before a plain text ([CLS], BOS)."""
    suffix: tuple[int, ...] = ()
    """Tokens that it expects at the end, behind the masks ([SEP])."""
    image_offset: int | None = None
    """Id of the first image code, in a vocabulary that holds some behind its text (MMaDA); None: unknown or none."""
    image_codes: int = 0
    """How many image codes the vocabulary holds."""
    prompt_style: PromptStyle = "chat"
    default_cache: str = "none"
    """Name of the cache that is used where the user names none."""


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
    """What an autoregressive model (``spec.attention == "causal"``) offers in place of masks to fill."""

    def generate(
        self, prompts: Sequence[Sequence[int]], gen_length: int, choose: Callable[[Tensor, Tensor], Tensor]
    ) -> list[list[int]]:
        """For each prompt the tokens that follow it, up to its end token or ``gen_length``.

        ``choose`` is called once a step with the ids so far ``[B, T]`` and the next token's logits ``[B, V]``. It
        returns logits in which all but the chosen token of each row are -inf.
        """
        ...
