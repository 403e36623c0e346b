"""Prompts become requests: encoded, checked, each with its length and the key of its random draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Literal, NamedTuple

from mdm.errors import MdmError
from mdm.models.model import Model
from mdm.protocols.model import ModelSpec
from mdm.protocols.settings import INT64
from mdm.protocols.task import Message

PromptForm = Literal["raw", "ids", "chat"]
"""How a prompt was given: as text, as token ids, or as chat messages."""

KINDS = 'a text, a list of token ids or a list of {"role": …, "content": …}'


class EncodedPrompt(NamedTuple):
    """A prompt's token ids, and how it was given."""

    tokens: list[int]
    form: PromptForm


@dataclass(frozen=True)
class Request:
    """One prompt to decode: ids that may hold masks, and how many masks follow them."""

    index: int
    tokens: Sequence[int]
    gen_length: int
    row_id: int
    suffix: Sequence[int] = ()
    """visible tokens behind all masks"""


def encode_prompts(model: Model, prompts: Any) -> list[EncodedPrompt]:
    """Each prompt as token ids.

    Raises:
        MdmError: a prompt is of no kind that can be encoded, or the model lacks a tokenizer or a chat template.
    """
    if isinstance(prompts, (str, Mapping)) or not isinstance(prompts, Iterable):
        shown = "one text" if isinstance(prompts, str) else repr(prompts)
        raise MdmError(f"prompts is {shown}: give a list of prompts")
    return [_encode(model, number, prompt) for number, prompt in enumerate(prompts)]


def _encode(model: Model, number: int, prompt: Any) -> EncodedPrompt:
    if isinstance(prompt, str):
        return EncodedPrompt([*model.spec.prefix, *model.encode(prompt)], "raw")
    if isinstance(prompt, Mapping) or not isinstance(prompt, Iterable):
        raise MdmError(f"prompt {number} is {prompt!r}: it should be {KINDS}")
    items = list(prompt)
    if items and all(isinstance(item, (Mapping, Message)) for item in items):
        return EncodedPrompt(model.encode_chat([_message(number, item) for item in items]), "chat")
    if wrong := [item for item in items if not hasattr(item, "__index__")]:
        raise MdmError(f"prompt {number} holds {wrong[0]!r}: it should be {KINDS}")
    return EncodedPrompt([index(item) for item in items], "ids")


def _message(number: int, item: Mapping[str, Any] | Message) -> Message:
    if isinstance(item, Message):
        return item
    if set(item) != {"role", "content"} or not all(isinstance(value, str) for value in item.values()):
        raise MdmError(f'prompt {number}: a chat message is {{"role": …, "content": …}} of two texts, not {item!r}')
    return Message(item["role"], item["content"])


def open_requests(
    spec: ModelSpec, prompts: Sequence[EncodedPrompt], gen_lengths: Sequence[int], row_ids: Any,
    suffix: Sequence[int] | None, *, guidance: bool,
) -> list[Request]:  # fmt: skip
    """The requests of encoded prompts; ``gen_lengths`` has one number a prompt, the others are as in ``mdm.decode``.

    Raises:
        MdmError: a prompt that cannot be decoded, or lists of different lengths.
    """
    if len(gen_lengths) != len(prompts):
        raise MdmError(f"gen_length has {len(gen_lengths)} numbers for {len(prompts)} prompts: give one, or one each")
    keys = range(len(prompts)) if row_ids is None else _row_ids(row_ids, len(prompts))
    requests = []
    for number, (prompt, length, key) in enumerate(zip(prompts, gen_lengths, keys, strict=True)):
        _check_prompt(number, prompt.tokens, length, spec, guidance)
        behind = suffix if suffix is not None else () if prompt.form == "ids" else spec.suffix
        requests.append(Request(number, prompt.tokens, length, key, tuple(behind)))
    return requests


def _row_ids(row_ids: Any, count: int) -> list[int]:
    try:
        keys = [index(key) for key in row_ids]
    except TypeError:
        raise MdmError("row_ids should be integers, one a prompt") from None
    if len(keys) != count:
        raise MdmError(f"row_ids has {len(keys)} numbers for {count} prompts: give one each")
    if wide := [key for key in keys if key not in INT64]:
        raise MdmError(f"row_ids: {wide[0]} does not fit into 64 bits")
    return keys


def _check_prompt(number: int, tokens: Sequence[int], length: int, spec: ModelSpec, guidance: bool) -> None:
    masks = spec.mask_id in tokens
    if length == 0 and not masks:
        raise MdmError(f"prompt {number}: gen_length is 0 and the prompt holds no mask: there is nothing to decode")
    if wrong := [token for token in tokens if not 0 <= token < spec.vocab_size]:
        raise MdmError(f"prompt {number}: token id {wrong[0]} is outside the vocabulary of {spec.vocab_size}")
    if spec.shift and (not tokens or tokens[0] == spec.mask_id):
        raise MdmError(
            f"prompt {number}: this model predicts a position from the one before it: the first cannot be a mask"
        )
    if guidance and (masks or not tokens):
        raise MdmError(f"prompt {number}: guidance compares with a masked prompt, and an infill has none to mask")
