"""The Python API: ``load_model`` and ``decode``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from mdm import registry
from mdm.engine import memory
from mdm.engine.autoregressive import generate
from mdm.engine.engine import Engine
from mdm.engine.memory import plan_batch as plan_batch
from mdm.engine.requests import Request
from mdm.engine.rows import RowRecord
from mdm.engine.trace import cumulative_entropy
from mdm.errors import MdmError
from mdm.models import compiled
from mdm.models.loading import load_model as load_model
from mdm.models.model import Model
from mdm.protocols.cache import BaseCache
from mdm.protocols.hooks import Line, StepEvent
from mdm.protocols.model import ModelSpec
from mdm.protocols.sampler import BaseSampler
from mdm.protocols.settings import SCHEDULES, Settings, Size, refuse_policy
from mdm.scoring.logit_rules import LogitRules, Processor
from pydantic import BaseModel, ValidationError


@dataclass(frozen=True)
class Result:
    """One decoded prompt."""

    tokens: list[int]
    """the generated ids; of an infill, the ids put where the masks were"""
    text: str | None
    """their text; None without a tokenizer"""
    sequence: list[int]
    """prompt and generation"""
    trace: list[Line] = field(repr=False)
    """empty with ``trace=False``"""
    cumulative_entropy: float
    """nats"""
    forwards: int
    """model calls this prompt took part in"""
    rows: int
    """canvases it sent through the model, candidates included"""


def decode(
    model: Model,
    prompts: Sequence[Sequence[int] | str],
    sampler: str | BaseSampler | None = None,
    sampler_options: Mapping[str, Any] | None = None,
    cache: str | BaseCache | None = None,
    cache_options: Mapping[str, Any] | None = None,
    gen_length: int | Sequence[int] = 64,
    suffix: Sequence[int] | None = None,
    steps: int | None = None,
    tokens_per_step: int | None = None,
    schedule: str = "even",
    block_length: int | None = None,
    temperature: float = 0.0,
    guidance: float = 0.0,
    eos_penalty: float = 0.0,
    pad_penalty: float = 0.0,
    stop_at_eos: bool = False,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
    allowed_tokens: Sequence[tuple[int, int]] | None = None,
    suppressed_tokens: Sequence[int] = (),
    logits_processors: Sequence[Processor] = (),
    batch_size: Size | None = None,
    max_rows: Size | None = "auto",
    compile: bool = False,
    row_ids: Sequence[int] | None = None,
    seed: int = 0,
    trace: bool | Literal["full"] = True,
    on_finish: Callable[[int, Result], None] | None = None,
    on_step: Callable[[StepEvent], None] | None = None,
    reuse_scores: bool = True,
) -> list[Result]:
    """Decode prompts of any lengths.

    Args:
        model: from ``load_model``.
        prompts: token ids, in which the model's mask id marks a position to fill in; or texts.
        sampler: a registered name, or an object of your own; None takes info-gain. Neither a sampler nor a cache
            applies to an autoregressive model, which decodes by itself.
        sampler_options: validated by the sampler's own Options.
        cache: a registered name, or an object of your own; None takes the one that is natural to the model.
        cache_options: validated by the cache's own Options.
        gen_length: masks after each prompt (tokens), one number or one a prompt; 0 decodes the prompt's own masks.
        suffix: ids behind the masks of every prompt; None: what the model wants behind a text ([SEP]), else nothing.
        steps: steps for the whole generation, split over the blocks; None: one per token.
        tokens_per_step: the other way to say it.
        schedule: how a block's tokens are spread over its steps: even, linear, cosine, dream.
        block_length: tokens decoded together, left to right; a block-causal model's grid. None: the family's, or 32.
        temperature: of the token draw; 0 takes the argmax.
        guidance: classifier-free guidance scale w, logits u + (w + 1)(c - u); needs a prompt.
        eos_penalty: taken off the end token's logit wherever it is scored.
        pad_penalty: the same for the padding token; where both are one id the penalties add up.
        stop_at_eos: fill the masks behind the first EOS with EOS.
        eos_token_id: in place of the model's own.
        pad_token_id: in place of the model's own.
        allowed_tokens: ranges of ids ``[start, stop)`` outside of which nothing is drawn.
        suppressed_tokens: ids that are never drawn.
        logits_processors: transformers' LogitsProcessor objects.
        batch_size: rows decoded together; "auto": as many as fit and pay; None: all.
        max_rows: canvases in one model call; "auto": as many as fit; None: no limit.
        compile: compile forwards and scoring: slow to begin, then faster. Changes no decision.
        row_ids: keys of the random draws, default the index in ``prompts``.
        seed: of the random draws.
        trace: whether results carry their trace; "full" adds confidences and the candidates weighed to its lines.
        on_finish: called with the index of a prompt and its result as soon as it is done.
        on_step: called with the trace lines of every step.
        reuse_scores: let a sampler's lookahead stand for the next forward. Changes speed, never decisions.

    Returns:
        One result for each prompt, in order.

    Raises:
        MdmError: an unknown name, an option that does not fit, nothing to decode.
    """
    if trace not in (True, False, "full"):
        raise MdmError(f'trace is {trace!r}: it is True, False or "full"')
    if isinstance(prompts, str):
        raise MdmError("prompts is one text: give a list of prompts")
    spec = model.spec
    causal = spec.attention == "causal"
    if causal:
        refuse_policy(
            spec.family,
            {
                "sampler": sampler, "sampler_options": sampler_options, "cache": cache, "cache_options": cache_options,
                "steps": steps, "tokens_per_step": tokens_per_step, "block_length": block_length, "guidance": guidance,
            },
        )  # fmt: skip
    block_length = spec.block_length or 32 if block_length is None else block_length
    _check(schedule, block_length, steps, tokens_per_step, temperature, batch_size, max_rows)
    if compile and not causal:
        compiled.require(model)
    ids = [[*spec.prefix, *model.encode(p)] if isinstance(p, str) else [int(t) for t in p] for p in prompts]
    tails = [tuple(suffix) if suffix is not None else spec.suffix if isinstance(p, str) else () for p in prompts]
    lengths = [gen_length] * len(ids) if isinstance(gen_length, int) else [int(n) for n in gen_length]
    for i, (tokens, length) in enumerate(zip(ids, lengths, strict=True)):
        _check_prompt(i, tokens, length, spec.vocab_size, spec.mask_id, spec.shift, guidance)
    eos_ids = spec.eos_ids if eos_token_id is None else (eos_token_id,)
    pad_id = spec.pad_id if pad_token_id is None else pad_token_id
    rules = LogitRules(
        _penalties(eos_ids, eos_penalty, pad_id, pad_penalty),
        (*spec.suppressed, *suppressed_tokens),
        None if allowed_tokens is None else tuple((int(a), int(b)) for a, b in allowed_tokens),
        tuple(logits_processors),
    )
    _check_rules(rules, spec)
    mode = None if causal else make_cache(spec, spec.default_cache if cache is None else cache, cache_options)
    longest = max((len(t) + n + len(s) for t, n, s in zip(ids, lengths, tails, strict=True)), default=1)
    chosen = memory.plan_batch(
        model, longest, len(ids), kv=mode is None or mode.uses_kv, cfg_branches=2 if guidance else 1,
        batch_size=batch_size, max_rows=max_rows,
    )  # fmt: skip
    settings = Settings(
        block_length=block_length, steps=steps, tokens_per_step=tokens_per_step, schedule=schedule,
        temperature=temperature, guidance=guidance, stop_at_eos=stop_at_eos,
        seed=seed, batch_size=chosen.batch_size, max_rows=chosen.max_rows, compile=compile,
        reuse_scores=reuse_scores,
    )  # fmt: skip
    results: dict[int, Result] = {}

    def finish(row: RowRecord) -> None:
        sequence = row.tokens
        end = row.length - len(tails[row.request])
        made = sequence[row.prompt_length : end] if end > row.prompt_length else [sequence[i] for i in row.targets]
        lines = row.trace
        results[row.request] = Result(
            tokens=made,
            text=model.decode(made) if model.tokenizer is not None else None,
            sequence=sequence,
            trace=lines if trace else [],
            cumulative_entropy=cumulative_entropy(lines),
            forwards=sum(line["forwards"] for line in lines),
            rows=sum(line["rows"] for line in lines),
        )
        if on_finish is not None:
            on_finish(row.request, results[row.request])

    keys = range(len(ids)) if row_ids is None else row_ids
    requests = [
        Request(i, tokens, length, key, tail)
        for i, (tokens, length, key, tail) in enumerate(zip(ids, lengths, keys, tails, strict=True))
    ]
    if causal:
        generate(model, requests, settings, rules, on_finish=finish, on_step=on_step)
    else:
        policy = make_sampler(spec, sampler or "info-gain", sampler_options)
        engine = Engine(
            model,
            policy,
            mode,
            settings,
            rules,
            tuple(eos_ids),
            on_finish=finish,
            on_step=on_step,
            full_trace=trace == "full",
        )
        with compiled.forwards(model) if compile else nullcontext():
            engine.run(requests)
    return [results[i] for i in range(len(ids))]


def make_cache(spec: ModelSpec, cache: str | BaseCache, options: Mapping[str, Any] | None) -> Any:
    """A cache mode that a model can run under; name and options as in ``decode``.

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
    """A sampler that a model suits; name and options as in ``decode``.

    Raises:
        MdmError: it is unknown, or not for such a model.
    """
    policy = _plugin("sampler", sampler, options)
    policy.check(spec)
    return policy


def _plugin(kind: str, name: str | BaseSampler | BaseCache, options: Mapping[str, Any] | None) -> Any:
    """An instance of the plugin ``name`` with validated options; an object is one already."""
    if not isinstance(name, str):
        if options:
            raise MdmError(f"the {kind} is an object, which has its options: give {kind}_options with a name only")
        registry.require(kind, name, f"the {kind} {type(name).__name__}")
        return name
    plugin = registry.resolve(kind, name)
    model: type[BaseModel] = plugin.Options
    try:
        return plugin(model.model_validate(dict(options or {})))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        known = ", ".join(model.model_fields) or "none"
        raise MdmError(f"{kind} {name!r}: option {place!r}: {first['msg']} (its options: {known})") from None


def _check(
    schedule: str,
    block_length: int,
    steps: int | None,
    tokens_per_step: int | None,
    temperature: float,
    batch_size: Size | None,
    max_rows: Size | None,
) -> None:
    if schedule not in SCHEDULES:
        raise MdmError(f"schedule {schedule!r} is unknown: use one of {', '.join(SCHEDULES)}")
    if steps is not None and tokens_per_step is not None:
        raise MdmError("steps and tokens_per_step say the same thing twice: give one of them")
    if temperature < 0:
        raise MdmError(f"temperature {temperature} is below 0")
    counts = {"block_length": block_length, "steps": steps, "tokens_per_step": tokens_per_step}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise MdmError(f"{name} is {value}: it must be at least 1")
    for name, size in {"batch_size": batch_size, "max_rows": max_rows}.items():
        if size is not None and size != "auto" and (isinstance(size, str) or size < 1):
            raise MdmError(f'{name} is {size!r}: it must be at least 1, or "auto"')


def _penalties(eos_ids: Sequence[int], eos_penalty: float, pad_id: int | None, pad_penalty: float) -> dict[int, float]:
    """What is taken off each token's logit."""
    penalties = dict.fromkeys(eos_ids, eos_penalty)
    if pad_id is not None:
        penalties[pad_id] = penalties.get(pad_id, 0.0) + pad_penalty
    return {token: amount for token, amount in penalties.items() if amount}


def _check_rules(rules: LogitRules, spec: ModelSpec) -> None:
    size = spec.vocab_size
    for token in (*rules.penalties, *rules.suppressed):
        if not 0 <= token < size:
            raise MdmError(
                f"token id {token} is outside the vocabulary of {size}: it cannot be suppressed or penalised"
            )
    for start, stop in rules.allowed or ():
        if not 0 <= start < stop <= size:
            raise MdmError(f"allowed tokens {start}:{stop}: not a range of ids in the vocabulary of {size}")
    never = {*rules.suppressed, spec.mask_id}
    if all(token in never for start, stop in rules.allowed or ((0, size),) for token in range(start, stop)):
        raise MdmError("the allowed tokens are all suppressed: nothing is left to draw")


def _check_prompt(
    index: int, tokens: list[int], length: int, vocabulary: int, mask_id: int, shift: bool, guidance: float
) -> None:
    if length < 0:
        raise MdmError(f"prompt {index}: gen_length {length} is below 0")
    if length == 0 and mask_id not in tokens:
        raise MdmError(f"prompt {index}: gen_length is 0 and the prompt holds no mask: there is nothing to decode")
    bad = next((t for t in tokens if not 0 <= t < vocabulary), None)
    if bad is not None:
        raise MdmError(f"prompt {index}: token id {bad} is outside the vocabulary of {vocabulary}")
    if shift and (not tokens or tokens[0] == mask_id):
        raise MdmError(
            f"prompt {index}: this model predicts a position from the one before it: the first cannot be a mask"
        )
    if guidance and (mask_id in tokens or not tokens):
        raise MdmError(f"prompt {index}: guidance compares with a masked prompt, and an infill has none to mask")
