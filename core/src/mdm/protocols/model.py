"""What decoding knows of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor


PromptStyle = Literal["chat", "compact"]


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
