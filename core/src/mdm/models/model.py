"""A loaded model: weights, tokenizer and the facts decoding needs, over any transformers module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, get_args

import torch
from mdm.errors import MdmError
from mdm.models import attention, products
from mdm.models.layout import Layout, PromptForm
from mdm.models.placement import is_hooked
from mdm.models.text import Rendered, TextCodec
from mdm.protocols.model import ModelSpec
from mdm.protocols.task import MASK, Answers, Message, Prompt
from torch import Tensor, nn


def run(body: nn.Module, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
    """Final hidden states of a transformers body; the arguments are those of ``Model.hidden``."""
    out = body(
        input_ids=tokens,
        position_ids=positions,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=cache is not None,
    )
    hidden: Tensor = out.last_hidden_state
    return hidden


_running: ContextVar[tuple[Model | None, Callable[..., Tensor]]] = ContextVar("mdm.models.model", default=(None, run))


@contextmanager
def running(model: Model, how: Callable[..., Tensor]) -> Iterator[None]:
    """Within the block ``model``'s forwards are run by ``how`` in place of ``run``, in this thread."""
    token = _running.set((model, how))
    try:
        yield
    finally:
        _running.reset(token)


class Model:
    """What ``load_model`` returns.

    Args:
        spec: what decoding must know of the family.
        body: the transformers module that gives hidden states (``LlamaModel`` and the like), not causal.
        lm_head: hidden states to logits.
        tokenizer: a transformers tokenizer, or None: then prompts are ids.
        chat_template: used where the tokenizer has none.
    """

    def __init__(
        self,
        spec: ModelSpec,
        body: nn.Module,
        lm_head: nn.Module,
        tokenizer: Any = None,
        *,
        name: str = "",
        chat_template: str | None = None,
    ) -> None:
        self.spec = spec
        self.body = body
        if spec.has_kv:
            attention.install(body)
            if next(body.parameters()).device.type == "cuda":
                products.join(body)
                torch.cuda.empty_cache()  # what the narrow products held
        self.lm_head = lm_head
        self.tokenizer = tokenizer
        self.name = name
        self.chat_template = chat_template
        self._codec: tuple[Any, TextCodec] | None = None

    def __repr__(self) -> str:
        parameters = {id(p): p for part in (self.body, self.lm_head) for p in part.parameters()}.values()
        # Weights of 4 bits lie packed in others' shapes.
        size = sum(getattr(p, "quant_state", p).shape.numel() for p in parameters)
        scale, unit = next((s for s in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if size >= s[0]), (1, ""))
        shown = f"{size / scale:.{int(scale > 1 and size < 10 * scale)}f}{unit}"
        devices = ", ".join(sorted({str(p.device) for p in parameters}))
        kind = f"{str(self.dtype).removeprefix('torch.')} on {devices}, cache {self.spec.default_cache}"
        return f"<mdm model {self.name!r}: family {self.spec.family}, {shown} parameters, {kind}>"

    @property
    def device(self) -> torch.device:
        return next(self.body.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.body.parameters()).dtype

    @property
    def layers(self) -> int:
        """Attention layers that keep keys and values."""
        return int(self.body.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]

    def hidden(self, tokens: Tensor, positions: Tensor, *, mask: Tensor | None = None, cache: Any = None) -> Tensor:
        """Final hidden states ``[R, Q, D]`` of ``tokens`` at ``positions`` ``[R, Q]``.

        ``mask``: additive float ``[R, 1, Q, T]`` over the keys, or None where every key is visible.
        """
        model, how = _running.get()
        hidden = (how if model is self else run)(self.body, tokens, positions, mask, cache)
        return hidden.to(tokens.device)  # a model on several devices ends on another than it began

    def head(self, hidden: Tensor) -> Tensor:
        """Logits ``[..., V]`` of hidden states ``[..., D]``."""
        logits: Tensor = self.lm_head(hidden)
        return logits.to(hidden.device)

    @property
    def head_is_matrix(self) -> bool:
        """Whether ``head_part`` is to be had: a plain linear head, neither quantized nor hooked into."""
        head = self.lm_head
        # accelerate hooks into a head that lies elsewhere than the hidden states, or on the disk.
        return type(head) is nn.Linear and not is_hooked(head) and type(self).head is Model.head

    def head_part(self, hidden: Tensor, first: int, end: int, out: Tensor | None = None) -> Tensor:
        """Logits ``[T, end - first]`` of the tokens from ``first`` on, for ``hidden`` ``[T, D]``; in ``out``."""
        head = self.lm_head
        assert isinstance(head, nn.Linear)
        weight = head.weight[first:end].t()
        if head.bias is None:
            return torch.mm(hidden, weight, out=out)
        return torch.addmm(head.bias[first:end], hidden, weight, out=out)

    @torch.inference_mode()
    def score_logits(self, tokens: Tensor, block_length: int | None = None, positions: Tensor | None = None) -> Tensor:
        """Plain full-forward logits ``[B, L, V]`` of unpadded ``tokens`` ``[B, L]``; row i predicts position i.

        Args:
            block_length: the grid of a block-causal family (default: the family's own).
            positions: int64 ``[K]``; gives ``[B, K, V]``, the head run on these positions only.
        """
        length = tokens.shape[1]
        tokens = tokens.to(self.device)
        at = torch.arange(length, device=self.device)
        mask = None
        if self.spec.attention == "block-causal":
            block = at // (block_length or self.spec.block_length or length)
            hidden_from = block[None, :] > block[:, None]
            mask = torch.zeros(length, length, dtype=self.dtype, device=self.device)
            mask = mask.masked_fill(hidden_from, attention.hiding(self.dtype))[None, None]
            mask = mask.expand(len(tokens), -1, -1, -1)
        source = at if positions is None else positions.to(self.device)
        if self.spec.shift:
            source = (source - 1).clamp(min=0)
        return self.head(self.hidden(tokens, at.expand_as(tokens), mask=mask)[:, source])

    @property
    def text(self) -> TextCodec:
        """Between texts and ids, by the model's tokenizer.

        Raises:
            MdmError: it has none.
        """
        if self.tokenizer is None:
            raise MdmError(
                f"{self.name or 'this checkpoint'} has no tokenizer: put its files there, or give ids of tokens"
            )
        spec = self.spec
        key = (id(self.tokenizer), self.name, spec.mask_id, spec.eos_ids, spec.pad_id)
        if self._codec is None or self._codec[0] != key:
            ids = {*spec.eos_ids, *(() if spec.pad_id is None else (spec.pad_id,))}
            self._codec = key, TextCodec(self.tokenizer, self.name or "the model", spec.mask_id, ids)
        return self._codec[1]

    def encode(self, text: str, mask: str | None = MASK) -> list[int]:
        """Ids of a text. What it names of special tokens is text.

        Args:
            mask: how it writes a masked position; None: it has none.

        Raises:
            MdmError: the checkpoint has no tokenizer, or the text has characters it does not know.
        """
        ids: list[int] = []
        for i, part in enumerate([text] if mask is None else text.split(mask)):
            if i:
                if self.spec.mask_id < 0:
                    raise MdmError(f"{self.name or 'the model'} is autoregressive: it cannot fill in {mask}")
                ids.append(self.spec.mask_id)
            if part:
                ids += self.text.content(part)
        return ids

    def lay_out(self, prompt: Prompt, mask: str = MASK) -> Layout:
        """A prompt on this model's canvas.

        Args:
            mask: how its answer writes a masked position.

        Raises:
            MdmError: it cannot be encoded, or asks for what this model does not do.
        """
        if prompt.kind not in get_args(Answers):
            raise MdmError(f"a prompt of the kind {prompt.kind!r}: there are {' and '.join(get_args(Answers))}")
        if prompt.kind == "image":
            raise MdmError(f"{self.name or 'the model'} draws no pictures: an mmada model does")
        if isinstance(prompt.context, str):
            shown = [*self.spec.prefix, *(self.encode(prompt.context, None) if prompt.context else [])]
        else:
            shown = self.encode_chat(prompt.context)
        answer = self.encode(prompt.answer, mask) if prompt.answer else []
        form: PromptForm = "raw" if isinstance(prompt.context, str) else "chat"
        return Layout([*shown, *answer], form, len(shown), prompt.gen_length, self.spec.suffix)

    def picture(self, tokens: Sequence[int | None], grid: tuple[int, int]) -> Any:
        """The picture, uint8 ``[H, W, 3]``, of the tokens of a layout with this ``grid``; None without image tokenizer.

        A token that is None, or the mask, is a grey patch.
        """
        return None

    @property
    def draws_pictures(self) -> bool:
        """Whether ``picture`` gives any: an image tokenizer is loaded."""
        return False

    def load_image_tokenizer(self, source: str, *, offline: bool = False, image_size: int | None = None) -> None:
        """Load what turns pictures into tokens and back.

        Args:
            source: a local folder or a hub id.
            image_size: height and width (pixels) of the pictures that are drawn and seen; None: as trained.

        Raises:
            MdmError: this model has no use for it, or it does not fit.
        """
        raise MdmError(f"image_tokenizer does not apply to {self.name}: a {self.spec.family} model has no pictures")

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a chat that the assistant is to answer. What its contents name of special tokens is text.

        Raises:
            MdmError: there is no tokenizer or no chat template, the template refuses the chat, or it holds a picture,
                and the model sees none.
        """
        chat = [{"role": message.role, "content": message.text} for message in messages]
        if any(message.pictures for message in messages):
            raise MdmError(f"{self.name or 'the model'} sees no pictures: give texts alone")
        return self.text.rendered(self.render_chat(chat))

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True, **options: Any
    ) -> Rendered:
        """A chat as the checkpoint's template writes it, or the family's where it has none.

        ``options`` are those of transformers' ``apply_chat_template``.

        Raises:
            MdmError: as ``encode_chat``.
        """
        return self.text.render(messages, self.chat_template, add_generation_prompt=add_generation_prompt, **options)

    def decode(
        self, ids: Sequence[int], eos_ids: Sequence[int] | None = None, stop: Sequence[str] = (), given: int = 0
    ) -> str:
        """Text of ids up to the first end token or stop text, special tokens left out.

        Args:
            eos_ids: the end tokens; None: the model's own.
            stop: texts that end it too, looked for with the special tokens in place.
            given: how many of the first ids were not generated: no stop text ends in theirs.
        """
        return self.text.decode(ids, self.spec.eos_ids if eos_ids is None else eos_ids, stop, given)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each id by itself, special tokens included."""
        return self.text.each(ids)

    def shown_texts(self, ids: Sequence[int]) -> list[str]:
        """``token_texts`` to look at: of a character over several tokens each has its bytes, spelled ``‹E4 BD›``."""
        return self.text.spell_halves(ids, self.token_texts(ids))

    pieces = token_texts
    """The same, under the name that scripts have for it."""
