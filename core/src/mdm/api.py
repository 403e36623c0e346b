"""The Python API: ``load_model`` and ``decode``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from traceback import walk_tb
from typing import Any, Literal

from mdm import registry
from mdm.engine.autoregressive import generate
from mdm.engine.canvas import block_length_of
from mdm.engine.engine import Engine
from mdm.engine.memory import check_fits, plan_batch as plan_batch
from mdm.engine.pictures import for_pictures
from mdm.engine.requests import Request, encode_prompts, open_requests, with_unconditional
from mdm.engine.rows import RowRecord
from mdm.engine.trace import cumulative_entropy
from mdm.errors import MdmError, blamed, cause
from mdm.models import compiled
from mdm.models.cuda_graphs import graphs_of
from mdm.models.layout import Layout, PromptForm
from mdm.models.loading import load_model as load_model
from mdm.models.model import Model
from mdm.protocols.cache import BaseCache
from mdm.protocols.hooks import Line, StepEvent
from mdm.protocols.model import ModelSpec
from mdm.protocols.options import check_numbers, check_options
from mdm.protocols.sampler import BaseSampler
from mdm.protocols.settings import DEFAULT_SAMPLER, Settings, check_settings, diffusion_only, help_text, refuse_policy
from mdm.protocols.task import Message, Prompt
from mdm.scoring.logit_rules import LogitRules, Processor
from pydantic import BaseModel


@dataclass(frozen=True)
class Result:
    """One decoded prompt."""

    tokens: list[int]
    """The generated ids; of an infill, the ids that replaced the masks."""
    text: str | None
    """Their text up to the first end token and the first of ``stop``; None without a tokenizer. The tokens stay."""
    sequence: list[int]
    """Prompt and generation. A block-causal model decodes whole blocks, so it may hold more tokens than asked for."""
    trace: list[Line] = field(repr=False)
    """Empty with ``trace=False``."""
    cumulative_entropy: float
    """In nats."""
    forwards: int
    """Forward passes that this prompt took part in."""
    rows: int
    """Sequences that it sent through the model, candidates included."""
    block_steps: list[int] = field(default_factory=list, repr=False)
    """Steps in each block, in the order in which they were decoded."""
    prompt_style: PromptForm = "ids"
    """How the prompt was given: "raw" (a text), "ids", "chat" or "image"."""
    image: Any = field(default=None, repr=False)
    """The picture that was asked for, an array uint8 ``[H, W, 3]``; None without an image tokenizer."""


def decode(
    model: Model,
    prompts: Sequence[str | Sequence[int] | Sequence[Mapping[str, Any] | Message] | Prompt | Layout],
    sampler: str | BaseSampler | None = None,
    sampler_options: Mapping[str, Any] | None = None,
    cache: str | BaseCache | None = None,
    cache_options: Mapping[str, Any] | None = None,
    *,
    gen_length: int | Sequence[int] | None = None,
    suffix: Sequence[int] | None = None,
    unconditional: Any = None,
    logits_processors: Sequence[Processor] = (),
    row_ids: Sequence[int] | None = None,
    trace: bool | Literal["full"] = True,
    on_finish: Callable[[int, Result], None] | None = None,
    on_step: Callable[[StepEvent], None] | None = None,
    **options: Any,
) -> list[Result]:
    """Decode prompts of any lengths.

    Args:
        model: from ``load_model``.
        prompts: each a raw text, in which ``[MASK]`` marks a position to fill in; or token ids, in which the model's
            mask id does; or a chat, a list of ``{"role": ..., "content": ...}``, which the model's chat template
            encodes; or a ``Prompt``, which may ask for a picture (``kind="image"``); or a ``Layout`` of ids. What
            texts and contents name of special tokens is text: a prompt that has such tokens is ids.
        sampler: a registered name or an object of your own; None: info-gain. An autoregressive model takes neither a
            sampler nor a cache.
        sampler_options: validated by the sampler's own Options.
        cache: a registered name or an object of your own; None: the model's default.
        cache_options: validated by the cache's own Options.
        gen_length: tokens to generate after each prompt, one number or one a prompt; 0 fills the prompt's own masks.
            None: a ``Prompt``'s own, or 64.
        suffix: ids behind the masks of every prompt; None: what the model wants behind a text ([SEP]), else nothing.
        unconditional: the prompt that guidance compares with in place of the masked one, not longer than the prompt and
            with its end at the same place: a text, ids or a chat for all prompts, or a list of one each. None: the
            prompt with all of it masked; of a picture, the empty text.
        logits_processors: transformers' LogitsProcessor objects.
        row_ids: keys of the random draws (int64), one a prompt; None: the index in ``prompts``.
        trace: whether results carry their trace; "full" adds to its lines the confidences and the candidates compared.
        on_finish: called with the index of a prompt and its result as soon as it is done.
        on_step: called with the trace lines of every step.
        options: the decoding options, which are the fields of ``mdm.protocols.settings.Settings``.

    Returns:
        One result for each prompt, in order.

    Raises:
        MdmError: an unknown name, an option that does not fit, nothing to decode.
    """
    _check_arguments(model, logits_processors, {"on_finish": on_finish, "on_step": on_step})
    if trace not in (True, False, "full"):
        raise MdmError(f'trace is {trace!r}: it is True, False or "full"')
    spec, settings = model.spec, check_settings(options, _NAMES)
    layouts = encode_prompts(model, prompts)
    settings = for_pictures(settings, layouts, spec)
    if unconditional is not None and not settings.guidance:
        raise MdmError("unconditional changes nothing without guidance: set guidance too")
    layouts = with_unconditional(model, layouts, unconditional)
    if spec.attention == "causal":
        asked = {
            "sampler": sampler, "sampler_options": sampler_options, "cache": cache, "cache_options": cache_options,
            "unconditional": unconditional,
        }  # fmt: skip
        refuse_policy(spec.family, {name: value for name, value in asked.items() if value} | diffusion_only(settings))
        policy = None
    else:
        if settings.compile:
            compiled.require(model)
        policy = (
            make_sampler(spec, sampler or DEFAULT_SAMPLER, sampler_options),
            make_cache(spec, spec.default_cache if cache is None else cache, cache_options),
        )
        if settings.eos_rank == "last" and not policy[0].ranks_by_certainty:
            name = sampler if isinstance(sampler, str) else type(sampler).__name__
            raise MdmError(f"eos_rank last does not apply to {name}, which does not rank by certainty")
    eos_ids = _end_tokens(spec, settings)
    rules = _logit_rules(spec, settings, eos_ids, logits_processors)
    requests = open_requests(
        spec, layouts, gen_length, row_ids, suffix, guidance=settings.guidance != 0,
        allowed=settings.allowed_tokens,
    )  # fmt: skip
    results: dict[int, Result] = {}

    def finish(row: RowRecord) -> None:
        number = row.request
        text_ends = (eos_ids, settings.stop)
        results[number] = _result(row, requests[number], layouts[number], model, text_ends, with_trace=bool(trace))
        if on_finish is not None:
            on_finish(number, results[number])

    settings = _with_sizes(settings, model, requests, policy)
    if settings.stop and model.tokenizer is None:
        raise MdmError("stop: this checkpoint has no tokenizer, so that there is no text to end")
    if policy is None:
        with _no_end():
            generate(model, requests, settings, rules, on_finish=finish, on_step=on_step)
    else:
        with (
            _no_end(),
            compiled.forwards(model) if settings.compile else nullcontext(),
            graphs_of(model) if settings.graphs else nullcontext() as graphs,
        ):
            Engine(
                model, *policy, settings, rules, eos_ids, on_finish=finish, on_step=on_step,
                full_trace=trace == "full", graphs=graphs,
            ).run(requests)  # fmt: skip
    return [results[number] for number in range(len(requests))]


@contextmanager
def _no_end() -> Iterator[None]:
    """Name who raises what a caller's loop would take for its own end: a sampler, a processor, ``on_step``."""
    try:
        yield
    except (StopIteration, GeneratorExit, RuntimeError) as error:
        end = error.__cause__ if isinstance(error, RuntimeError) else error  # of a StopIteration within a generator
        if not isinstance(end, (StopIteration, GeneratorExit)):
            raise
        *_, (frame, _) = walk_tb(end.__traceback__)
        who = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"
        raise MdmError(f"{who} raised {cause(end)}, which does not end a decode") from error


def _check_arguments(model: Any, processors: Any, callbacks: Mapping[str, Any]) -> None:
    """Refuse arguments of a wrong type that would be noticed deep inside."""
    if not isinstance(model, Model):
        raise MdmError(f"model is {model!r}: it should be what load_model gives")
    if not isinstance(processors, Iterable) or not all(map(callable, processors)):
        raise MdmError(f"logits_processors is {processors!r}: it should be a list of functions (ids, logits) -> logits")
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise MdmError(f"{name} is {callback!r}: it should be a function")


def _document(function: Callable[..., Any]) -> tuple[str, ...]:
    """Let the function's signature and docstring show the fields of ``Settings``; returns its own names."""
    signature = inspect.signature(function)
    own = {p.name: p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD}
    fields = {name: value for name, value in Settings.model_fields.items() if name not in own}
    kind, types = inspect.Parameter.KEYWORD_ONLY, Settings.__annotations__
    options = [
        inspect.Parameter(name, kind, default=value.default, annotation=types[name]) for name, value in fields.items()
    ]
    function.__signature__ = signature.replace(parameters=[*own.values(), *options])  # type: ignore[attr-defined]
    lines = [f"        {name}: {help_text(value)}" for name, value in fields.items()]
    head, options_line, tail = (function.__doc__ or "").partition("        options: ")
    function.__doc__ = "\n".join([head.rstrip("\n"), *lines, tail.partition("\n")[2]]) if options_line else head
    return tuple(own)


_NAMES = _document(decode)
"""The keyword arguments of ``decode`` that are no decoding options."""


def make_cache(spec: ModelSpec, cache: str | BaseCache, options: Mapping[str, Any] | None) -> Any:
    """A cache that a model can decode with; name and options as in ``decode``.

    Raises:
        MdmError: it is unknown, or not for such a model.
    """
    mode = _plugin("cache", cache, options)
    name = cache if isinstance(cache, str) else type(cache).__name__
    if mode.uses_kv and not spec.has_kv:
        raise MdmError(f"cache {name!r} needs keys and values, which a {spec.family} model has not: use --cache none")
    if mode.attention not in (None, spec.attention):
        raise MdmError(
            f"cache {name!r} is for {mode.attention} models, and {spec.family} has {spec.attention} attention: "
            f"use --cache {spec.default_cache}"
        )
    return mode


def make_sampler(spec: ModelSpec, sampler: str | BaseSampler, options: Mapping[str, Any] | None) -> Any:
    """A sampler that a model can decode with; name and options as in ``decode``.

    Raises:
        MdmError: it is unknown, or not for such a model.
    """
    policy = _plugin("sampler", sampler, options)
    with blamed(f"sampler {type(policy).__name__} failed in check"):
        policy.check(spec)
    return policy


def _plugin(kind: str, plugin: str | BaseSampler | BaseCache, options: Mapping[str, Any] | None) -> Any:
    """An instance of a registered plugin with checked options; an object is an instance already."""
    if isinstance(plugin, str):
        factory = registry.resolve(kind, plugin)
        checked = check_options(plugin, factory.Options, options or {})
        with blamed(f"{kind} {plugin!r} cannot be made"):
            return factory(checked)
    if options:
        raise MdmError(f"the {kind} is an object, which has its options: give {kind}_options with a name only")
    if isinstance(plugin, type):
        name = plugin.__name__
        raise MdmError(f"the {kind} {name} is a class: give an instance of it, such as {name}({name}.Options())")
    registry.require(kind, plugin, f"the {kind} {type(plugin).__name__}")
    if isinstance(given := getattr(plugin, "options", None), BaseModel):
        check_numbers(type(plugin).__name__, given)
    return plugin


def _end_tokens(spec: ModelSpec, settings: Settings) -> tuple[int, ...]:
    """The end tokens in use; an error where something asks for one and the model has none that it may write."""
    _check_ids(spec, "eos_token_id", settings.eos_token_id)
    _check_ids(spec, "pad_token_id", settings.pad_token_id)
    eos_ids = spec.eos_ids if settings.eos_token_id is None else (settings.eos_token_id,)
    for name in ("stop_at_eos", "eos_penalty", "eos_rank"):
        asked = getattr(settings, name) != Settings.model_fields[name].default
        if asked and not set(eos_ids) - set(spec.suppressed):
            raise MdmError(f"{name}: this {spec.family} model has no end token; name one with eos_token_id")
    return eos_ids


def _logit_rules(
    spec: ModelSpec, settings: Settings, eos_ids: Sequence[int], processors: Sequence[Processor]
) -> LogitRules:
    """What is done to logits before they are scored.

    Raises:
        MdmError: an id outside the vocabulary, no padding token to penalise, or nothing left to generate.
    """
    penalties = dict.fromkeys(eos_ids, settings.eos_penalty)
    pad_id = spec.pad_id if settings.pad_token_id is None else settings.pad_token_id
    if settings.pad_penalty:
        if pad_id is None:
            raise MdmError(f"pad_penalty: this {spec.family} model has no padding token; name one with pad_token_id")
        penalties[pad_id] = penalties.get(pad_id, 0.0) + settings.pad_penalty
    size = spec.vocab_size
    _check_ids(spec, "suppressed_tokens", *settings.suppressed_tokens)
    for start, stop in settings.allowed_tokens or ():
        if not start < stop <= size:
            raise MdmError(f"allowed_tokens {start}:{stop}: not a range of ids in the vocabulary of {size}")
    suppressed = (*spec.suppressed, *settings.suppressed_tokens)
    never = {*suppressed, spec.mask_id}
    if all(token in never for bounds in settings.allowed_tokens or [(0, size)] for token in range(*bounds)):
        raise MdmError("the allowed tokens are all suppressed: nothing is left to generate")
    penalties = {token: amount for token, amount in penalties.items() if amount}
    allowed = None if settings.allowed_tokens is None else tuple(settings.allowed_tokens)
    return LogitRules(penalties, suppressed, allowed, tuple(processors))


def _check_ids(spec: ModelSpec, name: str, *ids: int | None) -> None:
    for token in ids:
        if token is not None and token >= spec.vocab_size:
            raise MdmError(f"{name}: token id {token} is outside the vocabulary of {spec.vocab_size}")


def _with_sizes(
    settings: Settings, model: Model, requests: Sequence[Request], policy: tuple[Any, Any] | None
) -> Settings:
    """Settings in which the numbers of rows, and the block length, are decided.

    Raises:
        MdmError: not even one row can be had.
    """
    longest = max((len(r.tokens) + r.gen_length + len(r.suffix) for r in requests), default=1)
    kv, block_length = policy is None or policy[1].uses_kv, block_length_of(settings, model.spec)
    if model.spec.attention == "block-causal" and model.spec.rounds_up:
        longest += -longest % block_length
    beside = {}
    if policy is not None:
        scored = longest if policy[0].works_on == "canvas" else min(block_length, longest)
        options = ""
        if isinstance(given := getattr(policy[0], "options", None), BaseModel):
            fields = type(given).model_fields
            options = ", ".join(f"{name}={value}" for name, value in given if value != fields[name].default)
        beside = {
            "step_bytes": policy[0].step_bytes(scored, longest),
            "sampler": f"sampler {type(policy[0]).__name__}({options})",
        }
    check_fits(model, longest, len(requests), kv=kv, batch_size=settings.batch_size, **beside)
    sizes = plan_batch(
        model, longest, len(requests), kv=kv, cfg_branches=2 if settings.guidance else 1,
        batch_size=settings.batch_size, max_rows=settings.max_rows,
    )  # fmt: skip
    decided = {"batch_size": sizes.batch_size, "max_rows": sizes.max_rows, "block_length": block_length}
    return settings.model_copy(update=decided)


def _result(
    row: RowRecord, request: Request, prompt: Layout, model: Model,
    text_ends: tuple[Sequence[int], Sequence[str]], *, with_trace: bool,
) -> Result:  # fmt: skip
    sequence, lines, start = row.tokens, row.trace, row.prompt_length
    end = min(row.length - len(request.suffix), start + request.gen_length)  # a grid's last block may reach further
    tokens = sequence[start:end] if end > start else [sequence[i] for i in row.targets]
    text = image = None
    if prompt.grid is not None:
        image = model.picture(sequence[prompt.context : end], prompt.grid)
    elif model.tokenizer is not None:
        text = model.decode(tokens, *text_ends)
    return Result(
        tokens, text=text, sequence=sequence, image=image,
        trace=lines if with_trace else [], cumulative_entropy=cumulative_entropy(lines), prompt_style=prompt.form,
        forwards=sum(line["forwards"] for line in lines), rows=sum(line["rows"] for line in lines),
        block_steps=row.steps_taken,
    )  # fmt: skip
