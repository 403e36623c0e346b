"""Prompts become requests: laid out, checked, each with its length and the key of its random draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import index
from typing import Any, get_args, get_type_hints

from mdm.errors import MdmError, suggest
from mdm.models.layout import Layout
from mdm.models.model import Model
from mdm.protocols.model import ModelSpec
from mdm.protocols.settings import DEFAULT_GEN_LENGTH, INT64, Settings, check_settings
from mdm.protocols.task import Message, Picture, Prompt
from mdm.scoring.logit_rules import LogitRules

ROLES = get_args(get_type_hints(Message)["role"])
KINDS = 'a text, a list of token ids, a list of {"role": …, "content": …} or a Prompt'


@dataclass(frozen=True)
class Request:
    """One prompt to decode: ids that may hold masks, and how many masks follow them."""

    index: int
    tokens: Sequence[int]
    gen_length: int
    row_id: int
    suffix: Sequence[int] = ()
    """visible tokens behind all masks"""
    unconditional: Sequence[int] | None = None
    """what guidance compares with, ending where ``tokens`` end; None: ``tokens`` masked"""
    known_slots: int = 0
    """visible tokens of a picture of which masks are to be filled in"""
    settings: Settings | None = None
    rules: LogitRules | None = None
    """its own, in what rows of an engine may differ; None: the engine's"""


def encode_prompts(model: Model, prompts: Any) -> list[Layout]:
    """Each prompt on the model's canvas.

    Raises:
        MdmError: a prompt is of no kind that can be encoded, or the model lacks a tokenizer or a chat template.
    """
    if isinstance(prompts, (str, Mapping, Prompt)) or not isinstance(prompts, Iterable):
        shown = "one text" if isinstance(prompts, str) else repr(prompts)
        raise MdmError(f"prompts is {shown}: give a list of prompts")
    prompts = list(prompts)
    if prompts and all(isinstance(item, (Mapping, Message)) for item in prompts):
        raise MdmError("prompts is one chat: give a list of prompts, such as [chat]")
    return [_encode(model, f"prompt {number}", prompt) for number, prompt in enumerate(prompts)]


def with_unconditional(model: Model, layouts: Sequence[Layout], unconditional: Any) -> list[Layout]:
    """Layouts with the second prompts of guidance: ``unconditional`` is one for all of them, or a list of one each.

    Raises:
        MdmError: there are more or fewer than prompts, or one cannot be encoded.
    """
    if unconditional is None:
        return list(layouts)
    several = isinstance(unconditional, Iterable) and not isinstance(unconditional, (str, Mapping, Prompt))
    each = list(unconditional) if several else [unconditional]
    if not several or all(isinstance(item, (Mapping, Message)) or hasattr(item, "__index__") for item in each):
        each = [unconditional] * len(layouts)
    if len(each) != len(layouts):
        raise MdmError(f"unconditional has {len(each)} prompts for {len(layouts)}: give one, or one each")
    return [
        replace(layout, unconditional=_second_prompt(model, f"unconditional prompt {number}", layout, second))
        for number, (layout, second) in enumerate(zip(layouts, each, strict=True))
    ]


def _second_prompt(model: Model, name: str, layout: Layout, second: Any) -> Sequence[int] | None:
    if second is None:
        return layout.unconditional
    if layout.grid is None:
        return _encode(model, name, second).tokens
    if isinstance(second, str):
        second = Prompt(second, kind="image")
    encoded = _encode(model, name, second)
    if encoded.form == "chat" or (encoded.form == "raw" and isinstance(second, Prompt)):
        raise MdmError(f'{name}: a picture is compared with another: give a text, ids or a Prompt of kind="image"')
    return [*encoded.tokens, *layout.tokens[layout.context :]] if encoded.form == "image" else encoded.tokens


def _encode(model: Model, name: str, prompt: Any) -> Layout:
    if isinstance(prompt, Layout):
        return prompt
    if isinstance(prompt, Prompt):
        layout = model.lay_out(prompt)
        return layout if layout.gen_length or model.spec.mask_id in layout.tokens else replace(layout, gen_length=None)
    if isinstance(prompt, str):
        return Layout([*model.spec.prefix, *model.encode(prompt)], "raw", suffix=model.spec.suffix)
    if isinstance(prompt, Mapping) or not isinstance(prompt, Iterable):
        raise MdmError(f"{name} is {prompt!r}: it should be {KINDS}")
    items = list(prompt)
    if items and all(isinstance(item, (Mapping, Message)) for item in items):
        return replace(model.lay_out(_chat(name, [_message(name, item) for item in items])), gen_length=None)
    if wrong := [item for item in items if not hasattr(item, "__index__")]:
        raise MdmError(f"{name} holds {wrong[0]!r}: it should be {KINDS}")
    return Layout([index(item) for item in items])


def _chat(name: str, messages: Sequence[Message]) -> Prompt:
    """A chat; where its last message is the assistant's, the answer begins with it."""
    for message in messages:
        if message.role not in ROLES:
            near = suggest(message.role, ROLES)
            raise MdmError(f"{name}: the role {message.role!r} is none of {', '.join(ROLES)}.{near}")
    if messages[-1].role != "assistant":
        return Prompt(tuple(messages))
    if messages[-1].pictures or len(messages) == 1:
        raise MdmError(f"{name}: the assistant's message at the end is the beginning of a text, behind other messages")
    return Prompt(tuple(messages[:-1]), messages[-1].text)


def _message(name: str, item: Mapping[str, Any] | Message) -> Message:
    if isinstance(item, Message):
        return item
    content = item.get("content")
    content = (content,) if isinstance(content, Picture) else content
    several = isinstance(content, (list, tuple))
    parts: tuple[Any, ...] = tuple(content) if several else (content,)  # type: ignore[arg-type]
    readable = isinstance(item.get("role"), str) and all(isinstance(part, (str, Picture)) for part in parts)
    if set(item) != {"role", "content"} or not readable:
        raise MdmError(f'{name}: a chat message is {{"role": …, "content": …}} of two texts, not {item!r}')
    return Message(item["role"], parts if several else parts[0])


def open_requests(
    spec: ModelSpec, layouts: Sequence[Layout], gen_length: Any, row_ids: Any, suffix: Sequence[int] | None, *,
    guidance: bool, allowed: Sequence[tuple[int, int]] | None = None,
) -> list[Request]:  # fmt: skip
    """The requests of prompts that are laid out.

    ``gen_length``, ``row_ids`` and ``suffix`` are those of ``mdm.decode``.

    Args:
        allowed: ranges of the tokens that may be generated; None: all.

    Raises:
        MdmError: a prompt that cannot be decoded, or lists of different lengths.
    """
    lengths = list(gen_length) if isinstance(gen_length, Iterable) else [gen_length] * len(layouts)
    lengths = [check_settings({"gen_length": length}).gen_length for length in lengths]
    if len(lengths) != len(layouts):
        raise MdmError(f"gen_length has {len(lengths)} numbers for {len(layouts)} prompts: give one, or one each")
    keys = range(len(layouts)) if row_ids is None else _row_ids(row_ids, len(layouts))
    requests = []
    for number, (layout, length, key) in enumerate(zip(layouts, lengths, keys, strict=True)):
        if layout.grid is not None and length is not None:
            raise MdmError(f"prompt {number}: gen_length does not apply to a picture, whose size is the model's")
        length = next((n for n in (length, layout.gen_length) if n is not None), DEFAULT_GEN_LENGTH)
        _check_prompt(number, layout, length, spec, guidance)
        behind = _suffix(next((s for s in (suffix, layout.suffix) if s is not None), ()))
        if wrong := [token for token in behind if not 0 <= token < spec.vocab_size]:
            raise MdmError(f"suffix: token id {wrong[0]} is outside the vocabulary of {spec.vocab_size}")
        if spec.mask_id in behind:
            raise MdmError(f"suffix: token id {spec.mask_id} is the mask, which is not filled in there")
        requests.append(Request(
            number, layout.tokens, length, key, behind, layout.unconditional if guidance else None,
            _known_slots(layout, length, spec.mask_id, allowed),
        ))  # fmt: skip
    return requests


def _suffix(tokens: Any) -> tuple[int, ...]:
    try:
        return tuple(map(index, tokens))
    except TypeError:
        raise MdmError(f"suffix is {tokens!r}: it should be a list of token ids") from None


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


def _known_slots(layout: Layout, length: int, mask_id: int, allowed: Sequence[tuple[int, int]] | None) -> int:
    """Visible tokens of a picture that is drawn in part: without a grid, allowed ones that lie beside masks."""
    if layout.grid is None and allowed is None:
        return 0
    if layout.grid is not None:
        return layout.grid[0] * layout.grid[1] - list(layout.tokens).count(mask_id) - length
    tokens = [*layout.tokens, *[mask_id] * min(length, 1)]  # behind the prompt there are masks alone
    ranges = [range(*bounds) for bounds in allowed or ()]
    known = 0
    for is_slot, run in groupby(tokens, lambda token: token == mask_id or any(token in each for each in ranges)):
        slots = list(run)
        if is_slot and mask_id in slots:
            known += len(slots) - slots.count(mask_id)
    return known


def _check_prompt(number: int, layout: Layout, length: int, spec: ModelSpec, guidance: bool) -> None:
    tokens, second = layout.tokens, layout.unconditional
    masks = spec.mask_id in tokens
    if length == 0 and not masks:
        raise MdmError(f"prompt {number}: gen_length is 0 and the prompt holds no mask: there is nothing to decode")
    if wrong := [token for token in (*tokens, *(second or ())) if not 0 <= token < spec.vocab_size]:
        raise MdmError(f"prompt {number}: token id {wrong[0]} is outside the vocabulary of {spec.vocab_size}")
    if spec.shift and (not tokens or tokens[0] == spec.mask_id):
        raise MdmError(
            f"prompt {number}: this model predicts a position from the one before it: the first cannot be a mask"
        )
    if not guidance:
        return
    if second is not None:
        _check_second(number, tokens, second, spec)
    elif masks or not tokens:
        raise MdmError(
            f"prompt {number}: guidance compares with a masked prompt, and an infill has none to mask: "
            "name the prompt to compare with (unconditional)"
        )


def _check_second(number: int, tokens: Sequence[int], second: Sequence[int], spec: ModelSpec) -> None:
    """Refuse a second prompt that is longer than the first, or lacks the masks that are to be filled."""
    missing = len(tokens) - len(second)
    if missing < 0:
        raise MdmError(
            f"prompt {number}: the unconditional prompt has {len(second)} tokens and the prompt {len(tokens)}: "
            "it cannot be longer"
        )
    holes = [place for place, token in enumerate(tokens) if token == spec.mask_id]
    if spec.shift and (not second or holes[:1] == [missing]):
        raise MdmError(
            f"prompt {number}: this model predicts a position from the one before it: the unconditional prompt needs "
            "at least one token before its first mask"
        )
    if wrong := [place for place in holes if place < missing or second[place - missing] != spec.mask_id]:
        raise MdmError(
            f"prompt {number}: the unconditional prompt has no mask where the prompt has one at position {wrong[0]}; "
            "the two end at the same place"
        )
