"""Everything done to logits before they are scored: penalties, bans and transformers' processors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from mdm.errors import MdmError, PromptError, first_line
from mdm.protocols.upload import upload
from torch import Tensor

Processor = Callable[[Tensor, Tensor], Tensor]
"""transformers' LogitsProcessor: (canvas ids ``[T, L]``, logits ``[T, V]``) -> logits ``[T, V]``."""


@dataclass(frozen=True)
class LogitRules:
    """Applied wherever logits are scored, lookahead included.

    ``penalties``: a constant taken off a token's logit (nats). ``suppressed``: tokens never drawn.
    ``allowed``: ranges ``[start, stop)`` outside of which nothing is drawn; None: no restriction.
    """

    penalties: Mapping[int, float] = field(default_factory=dict)
    suppressed: tuple[int, ...] = ()
    allowed: tuple[tuple[int, int], ...] | None = None
    processors: Sequence[Processor] = ()
    _biases: dict[tuple[torch.device, int], Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def facts(self) -> Hashable:
        """What two rules have to share to be the same."""
        return (*self.penalties.items(), self.suppressed, self.allowed, *map(id, self.processors))

    def hull(self, vocab_size: int) -> tuple[int, int]:
        """The shortest range of tokens that holds all that are allowed."""
        if not self.allowed:
            return 0, vocab_size
        return min(start for start, _ in self.allowed), max(stop for _, stop in self.allowed)

    def choices(self, vocab_size: int, never: int) -> int:
        """How many tokens the allowed ranges leave to be drawn, without the token ``never``; without ranges, all."""
        if self.allowed is None:
            return vocab_size
        return len(set().union(*(range(*bounds) for bounds in self.allowed)) - {*self.suppressed, never})

    def within(self, start: int, stop: int) -> LogitRules:
        """The same rules for logits of the tokens ``[start, stop)`` alone, which processors cannot see."""
        assert not self.processors
        allowed = self.allowed
        if allowed is not None:
            clipped = ((max(a, start) - start, min(b, stop) - start) for a, b in allowed)
            allowed = tuple((a, b) for a, b in clipped if a < b)
            if (0, stop - start) in allowed:
                allowed = None
        return LogitRules(
            {token - start: amount for token, amount in self.penalties.items() if start <= token < stop},
            tuple(token - start for token in self.suppressed if start <= token < stop),
            allowed,
        )

    def __call__(self, logits: Tensor, canvas: Callable[[], Tensor] | None) -> Tensor:
        """Logits ``[T, V]`` after the rules, float32 where there are any.

        ``canvas`` gives the ids ``[T, L]`` that each row of logits belongs to; only processors ask for it.
        """
        if self.penalties or self.suppressed or self.allowed is not None:
            logits = logits.float() + self._bias(logits.device, logits.shape[1])
        for processor in self.processors:
            assert canvas is not None
            logits = _processed(processor, canvas(), logits.float())
        return logits

    def _bias(self, device: torch.device, vocab_size: int) -> Tensor:
        """What the rules add to the logits, float32 ``[V]``: made once, since a copy to a device waits for it."""
        key = device, vocab_size
        if key not in self._biases:
            with torch.inference_mode(False):  # later decodes use it too
                bias = torch.zeros(vocab_size)
                for token, amount in self.penalties.items():
                    bias[token] -= amount
                bias[list(self.suppressed)] = -torch.inf
                if self.allowed is not None:
                    outside = torch.ones(vocab_size, dtype=torch.bool)
                    for start, stop in self.allowed:
                        outside[start:stop] = False
                    bias[outside] = -torch.inf
                self._biases[key] = upload(bias, device)
        return self._biases[key]


def name_of(processor: Processor) -> str:
    """What error lines call a processor."""
    return f"logits processor {getattr(processor, '__qualname__', type(processor).__name__)}"


def _processed(processor: Processor, canvas: Tensor, logits: Tensor) -> Tensor:
    """What a processor, which is anybody's code, makes of ``logits`` ``[T, V]``.

    Raises:
        PromptError: it raised something, or answered no logits.
    """
    shape = logits.shape
    try:
        result = processor(canvas, logits)
    except (torch.OutOfMemoryError, MdmError):
        raise
    except Exception as error:
        raise PromptError(f"{name_of(processor)} failed: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(result, Tensor) or result.shape != shape or not result.is_floating_point():
        shown = f"{result.dtype} {list(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise PromptError(f"{name_of(processor)} gives {shown}, and should give logits {list(shape)}")
    return result.to(logits.device)
