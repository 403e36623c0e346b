"""How lm-eval's texts become token ids: as its own models encode them, special tokens from a chat template alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mdm.errors import MdmError
from mdm.models import Model
from mdm.models.text import Rendered

from mdm_lm_eval.likelihood import Answer


def opened(model: Model, ids: Sequence[int]) -> list[int]:
    """``ids`` of a text behind what the model expects before one ([CLS], BOS), unless they begin with it already."""
    prefix = list(model.spec.prefix)
    return [*ids] if list(ids[: len(prefix)]) == prefix else [*prefix, *ids]


class Encoder:
    """Texts of lm-eval as ids of a model.

    Special tokens that a text names are text, but for those that the chat template wrote. lm-eval hands on what
    ``chat`` returned as a plain string; it is known again here.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._template: str | None = None
        self._chats: dict[str, Rendered] = {}
        """Chats whose contents spell special tokens, by their text."""
        self._templated = False

    def template(self, chosen: bool | str) -> str:
        """The model's chat template, or that of the name ``chosen`` where it has several.

        Raises:
            MdmError: there is none, or none of that name.
        """
        own = getattr(self._model.tokenizer, "chat_template", None) or self._model.chat_template
        if own is None:
            raise MdmError(f"{self._model.name or 'the model'} has no chat template: leave --apply_chat_template out")
        if isinstance(chosen, str):
            if not isinstance(own, Mapping) or chosen not in own:
                names = ", ".join(own) if isinstance(own, Mapping) else "one without a name"
                raise MdmError(f"there is no chat template {chosen!r}: the checkpoint has {names}")
            self._template = chosen
        elif isinstance(own, Mapping) and "default" not in own:
            raise MdmError(f"the checkpoint has several chat templates: name one of {', '.join(own)}")
        self._templated = True
        return str(own[self._template or "default"] if isinstance(own, Mapping) else own)

    def chat(self, history: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """A chat as the model's template writes it; without the generation prompt its last turn is left open."""
        chat = self._model.render_chat(
            history, add_generation_prompt=add_generation_prompt, template=self._template,
            continue_final_message=not add_generation_prompt,
        )  # fmt: skip
        self._templated = True
        if chat.spelled:
            self._chats[chat.text] = chat
        return chat.text

    def context(self, text: str) -> list[int]:
        """Ids of a context to continue, which is never empty where the model needs a token before the first."""
        return opened(self._model, self._ids(self._parts(text))) or list(self.start())

    def start(self) -> tuple[int, ...]:
        """What stands before an answer without a context: the model's own opening, or EOS where position i - 1
        predicts position i."""
        spec = self._model.spec
        return spec.prefix or (spec.eos_ids[:1] if spec.shift else ())

    def text(self, text: str) -> list[int]:
        """Ids of a text by itself."""
        return self._model.encode(text, None)

    def answers(self, pairs: Iterable[Sequence[str]]) -> list[Answer]:
        """Contexts with their continuations.

        Blanks at a context's end belong to the continuation, and both are encoded in one: what lies behind the
        context's ids is the answer. A token may reach from the context into a continuation. Then all continuations of
        this context are scored from the last place where the context's own tokens are those of every one of them, so
        that answers are compared over the same text; no answer is empty.
        """
        encoded = [self._encode(context, continuation) for context, continuation in pairs]
        shared: dict[str, int] = {}
        for context, ids, whole in encoded:
            count = next(
                (i for i, (a, b) in enumerate(zip(ids, whole, strict=False)) if a != b), min(len(ids), len(whole))
            )
            shared[context] = min(shared.get(context, count), count)
        return [
            Answer(
                tuple(whole[: shared[context]]) if context and shared[context] else self.start(),
                tuple(whole[shared[context] :]),
            )
            for context, _, whole in encoded
        ]

    def _encode(self, context: str, continuation: str) -> tuple[str, list[int], list[int]]:
        """The context without blanks at its end, its ids, and those of both texts together."""
        kept = context.rstrip()
        whole = self._parts(context) + self._model.text.spelled(continuation)
        before, both = (opened(self._model, self._ids(part)) for part in (whole[: len(kept)], whole))
        return kept, before, both

    def _parts(self, context: str) -> Rendered:
        known = next((text for text in self._chats if context.startswith(text)), "")
        return self._chats.get(known, Rendered("")) + Rendered(context[len(known) :])

    def _ids(self, text: Rendered) -> list[int]:
        return self._model.text.rendered(text) if self._templated else self.text(text.text)
