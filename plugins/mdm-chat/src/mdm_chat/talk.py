"""A talk: what was said, how much of it the model is shown, and how it is answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mdm import api
from mdm.errors import MdmError
from mdm.protocols import Message, Prompt, StepEvent
from mdm.protocols.settings import DEFAULT_GEN_LENGTH
from mdm.runs.decode_args import decode_settings

if TYPE_CHECKING:
    from mdm.api import Result
    from mdm.models.layout import Layout
    from mdm.models.model import Model
    from mdm.protocols import PromptStyle
    from mdm.runs.config import PromptConfig

Turn = tuple[str, str]
"""A question and its answer."""


@dataclass
class Talk:
    """What was said. In plain text, without a chat, every question stands by itself.

    Args:
        style: how the model is asked.
    """

    model: Model
    style: PromptStyle
    system: str = ""
    turns: list[Turn] = field(default_factory=list)

    def messages(self, *more: str, first: int = 0) -> list[Message]:
        """The system's message, the turns from the one numbered ``first`` on, and one ``more`` question."""
        said = [Message("system", self.system)] if self.system else []
        for question, answer in self.turns[first:]:
            said += [Message("user", question), Message("assistant", answer)]
        return said + [Message("user", question) for question in more]

    def lay_out(self, question: str, gen_length: int) -> tuple[Layout, int]:
        """A question on the model's canvas, and how many of the oldest turns had to be left out for it.

        Raises:
            MdmError: not even the question alone fits, or it cannot be encoded.
        """
        longest = self._longest()
        for first in range(len(self.turns) + 1):
            layout = self._encode(question, first, gen_length)
            length = len(layout.tokens) + gen_length + len(layout.suffix or ())
            if longest is None or length <= longest:
                return layout, first if self.style == "chat" else 0
        raise MdmError(
            f"the question and the {gen_length:,} tokens of its answer are {length:,} tokens, and {self.model.name} "
            f"was trained on {longest:,}: ask for less, or for a shorter answer (--gen-length, /set gen_length=N)"
        )

    def _encode(self, question: str, first: int, gen_length: int) -> Layout:
        chat = self.style == "chat"
        return self.model.lay_out(
            Prompt(tuple(self.messages(question, first=first)) if chat else question, "", gen_length)
        )

    def _longest(self) -> int | None:
        """Tokens of the longest canvas that the model was trained on; None where its configuration does not say."""
        longest = getattr(self.model.body.config, "max_position_embeddings", None)
        return longest if isinstance(longest, int) and longest > 0 else None


def gen_length(config: PromptConfig) -> int:
    """Tokens of an answer at most."""
    return DEFAULT_GEN_LENGTH if config.gen_length is None else config.gen_length


def answer(
    config: PromptConfig, model: Model, layout: Layout, row_id: int, on_step: Callable[[StepEvent], None] | None
) -> Result:
    """Decode a question's answer, up to the block that holds its end.

    Args:
        row_id: keys the random draws together with the seed.
        on_step: called with the full trace lines of each step.

    Raises:
        MdmError: it cannot be decoded.
    """
    settings = decode_settings(config, model, config.sampler[0])
    del settings["trace"]
    session = api.open_session(model, **settings)
    try:
        session.submit(layout, trace="full", row_id=row_id)
        while True:
            for update in session.step():
                if update.lines and on_step is not None:
                    on_step(StepEvent(update.lines))
                if update.error is not None:
                    raise update.error
                if update.result is not None:
                    return update.result
    finally:
        session.close()
