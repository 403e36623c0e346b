"""From what is asked for to what an engine decodes: policy, end tokens, rules of logits, requests and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mdm import registry
from mdm.engine.canvas import block_length_of
from mdm.engine.memory import check_fits, plan_batch
from mdm.engine.pictures import for_pictures
from mdm.engine.requests import Request, encode_prompts, open_requests, with_unconditional
from mdm.errors import MdmError, blamed
from mdm.models import compiled
from mdm.models.features import require as require_layers
from mdm.models.layout import Layout
from mdm.models.model import Model
from mdm.protocols.cache import BaseCache
from mdm.protocols.model import ModelSpec
from mdm.protocols.options import check_numbers, check_options
from mdm.protocols.sampler import BaseSampler
from mdm.protocols.settings import DEFAULT_SAMPLER, Settings, diffusion_only, refuse_policy
from mdm.scoring.logit_rules import LogitRules, Processor
from pydantic import BaseModel

Policy = tuple[Any, Any]
"""A sampler and a cache."""


@dataclass(frozen=True)
class Job:
    """Prompts, and how they are decoded."""

    layouts: list[Layout]
    requests: list[Request]
    settings: Settings
    policy: Policy | None
    """None: the model is autoregressive"""
    eos_ids: tuple[int, ...]
    rules: LogitRules


def prepare(
    model: Model, prompts: Any, settings: Settings, sampler: str | BaseSampler | None = None,
    sampler_options: Mapping[str, Any] | None = None, cache: str | BaseCache | None = None,
    cache_options: Mapping[str, Any] | None = None, *, gen_length: Any = None, suffix: Sequence[int] | None = None,
    unconditional: Any = None, processors: Sequence[Processor] = (), row_ids: Sequence[int] | None = None,
) -> Job:  # fmt: skip
    """What ``mdm.decode`` is asked for, checked; the arguments are its own.

    Raises:
        MdmError: an unknown name, an option that does not fit, nothing to decode.
    """
    spec = model.spec
    layouts = encode_prompts(model, prompts)
    settings = for_pictures(settings, layouts, spec)
    if unconditional is not None and not settings.guidance:
        raise MdmError("unconditional changes nothing without guidance: set guidance too")
    layouts = with_unconditional(model, layouts, unconditional)
    policy = None
    if spec.attention == "causal":
        asked = {
            "sampler": sampler, "sampler_options": sampler_options, "cache": cache, "cache_options": cache_options,
            "unconditional": unconditional,
        }  # fmt: skip
        refuse_policy(spec.family, {name: value for name, value in asked.items() if value} | diffusion_only(settings))
    else:
        if settings.compile:
            compiled.require(model)
        policy = make_policy(spec, sampler, sampler_options, cache, cache_options)
        if policy[1].inside_layers:
            require_layers(model, compiled=settings.compile)
        if settings.eos_rank == "last" and not policy[0].ranks_by_certainty:
            name = sampler if isinstance(sampler, str) else type(sampler).__name__
            raise MdmError(f"eos_rank last does not apply to {name}, which does not rank by certainty")
    if settings.stop and model.tokenizer is None:
        raise MdmError("stop: this checkpoint has no tokenizer, so that there is no text to end")
    eos_ids = end_tokens(spec, settings)
    rules = logit_rules(spec, settings, eos_ids, processors)
    requests = open_requests(
        spec, layouts, gen_length, row_ids, suffix, guidance=settings.guidance != 0, allowed=settings.allowed_tokens
    )
    return Job(layouts, requests, settings, policy, eos_ids, rules)


def check_arguments(model: Any, processors: Any, callbacks: Mapping[str, Any]) -> None:
    """Refuse arguments of a wrong type that would be noticed deep inside."""
    if not isinstance(model, Model):
        raise MdmError(f"model is {model!r}: it should be what load_model gives")
    if not isinstance(processors, Iterable) or not all(map(callable, processors)):
        raise MdmError(f"logits_processors is {processors!r}: it should be a list of functions (ids, logits) -> logits")
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise MdmError(f"{name} is {callback!r}: it should be a function")


def make_policy(
    spec: ModelSpec, sampler: str | BaseSampler | None = None, sampler_options: Mapping[str, Any] | None = None,
    cache: str | BaseCache | None = None, cache_options: Mapping[str, Any] | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """A sampler and a cache mode that a model can decode with; the arguments are those of ``decode``.

    Raises:
        MdmError: one is unknown, not for such a model, or not for the other.
    """
    sampler = sampler or DEFAULT_SAMPLER
    made = _sampler(spec, sampler, sampler_options), _cache(spec, cache or spec.default_cache, cache_options)
    if made[0].reads == "left-out":
        name = sampler if isinstance(sampler, str) else type(sampler).__name__
        if made[1].uses_kv:
            raise MdmError(f"sampler {name!r} reads scores that take a forward of the whole canvas: use --cache none")
        if spec.shift:
            raise MdmError(f"sampler {name!r} is not for {spec.family} models, which predict a token where another is")
    return made


def _cache(spec: ModelSpec, cache: str | BaseCache, options: Mapping[str, Any] | None) -> Any:
    """A cache that a model can decode with; name and options as in ``decode``.

    Raises:
        MdmError: it is unknown, or not for such a model.
    """
    mode = _plugin("cache", cache, options)
    name = cache if isinstance(cache, str) else type(cache).__name__
    if (mode.uses_kv or mode.reads_attention) and not spec.has_kv:
        raise MdmError(f"cache {name!r} needs keys and values, which a {spec.family} model has not: use --cache none")
    if mode.attention not in (None, spec.attention):
        raise MdmError(
            f"cache {name!r} is for {mode.attention} models, and {spec.family} has {spec.attention} attention: "
            f"use --cache {spec.default_cache}"
        )
    return mode


def _sampler(spec: ModelSpec, sampler: str | BaseSampler, options: Mapping[str, Any] | None) -> Any:
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


def end_tokens(spec: ModelSpec, settings: Settings) -> tuple[int, ...]:
    """The end tokens in use; an error where something asks for one and the model has none that it may write."""
    _check_ids(spec, "eos_token_id", settings.eos_token_id)
    _check_ids(spec, "pad_token_id", settings.pad_token_id)
    eos_ids = spec.eos_ids if settings.eos_token_id is None else (settings.eos_token_id,)
    for name in ("stop_at_eos", "eos_penalty", "eos_rank"):
        asked = getattr(settings, name) != Settings.model_fields[name].default
        if asked and not set(eos_ids) - set(spec.suppressed):
            raise MdmError(f"{name}: this {spec.family} model has no end token; name one with eos_token_id")
    return eos_ids


def logit_rules(
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


def with_sizes(
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
    beside: dict[str, Any] = {}
    kept: dict[str, Any] = {"kv": kv}
    if policy is not None:
        kept |= {"features": policy[1].inside_layers, "maps": policy[1].reads_attention}
        whole = "canvas" in (policy[0].works_on, policy[0].sees)
        scored = longest if whole else min(block_length, longest)
        options = ""
        if isinstance(given := getattr(policy[0], "options", None), BaseModel):
            fields = type(given).model_fields
            options = ", ".join(f"{name}={value}" for name, value in given if value != fields[name].default)
        beside = {
            "step_bytes": policy[0].step_bytes(scored, longest),
            "sampler": f"sampler {type(policy[0]).__name__}({options})",
        }
    check_fits(model, longest, len(requests), **kept, batch_size=settings.batch_size, **beside)
    sizes = plan_batch(
        model, longest, len(requests), **kept, cfg_branches=2 if settings.guidance else 1,
        batch_size=settings.batch_size, max_rows=settings.max_rows,
    )  # fmt: skip
    decided = {"batch_size": sizes.batch_size, "max_rows": sizes.max_rows, "block_length": block_length}
    return settings.model_copy(update=decided)
