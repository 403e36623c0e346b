"""The Python API: ``load_model``, ``decode``, ``steps``, ``open_session`` and ``read``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from mdm.engine import reading
from mdm.engine.autoregressive import generate
from mdm.engine.decisions import no_end
from mdm.engine.memory import plan_batch as plan_batch
from mdm.engine.prepare import check_arguments, make_policy as make_policy, prepare
from mdm.engine.requests import encode_prompts
from mdm.engine.result import Result as Result
from mdm.engine.session import Session as Session
from mdm.engine.steps import Step as Step, Steps as Steps
from mdm.engine.tickets import Update as Update
from mdm.errors import MdmError
from mdm.models.layout import Layout
from mdm.models.loading import load_model as load_model
from mdm.models.model import Model
from mdm.protocols.cache import BaseCache
from mdm.protocols.hooks import StepEvent
from mdm.protocols.sampler import BaseSampler
from mdm.protocols.settings import Settings, check_settings, help_text
from mdm.protocols.task import Message, Prompt
from mdm.scoring.logit_rules import Processor


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
            encodes, and whose last message may be the assistant's: the answer begins with it, ``[MASK]`` included;
            or a ``Prompt``, which may ask for a picture (``kind="image"``); or a ``Layout`` of ids. What texts and
            contents name of special tokens is text: a prompt that has such tokens is ids.
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
    run = _begin(
        model, prompts, sampler, sampler_options, cache, cache_options, gen_length=gen_length, suffix=suffix,
        unconditional=unconditional, logits_processors=logits_processors, row_ids=row_ids, trace=trace,
        on_finish=on_finish, on_step=on_step, **options,
    )  # fmt: skip
    if run.job.policy is None:
        with no_end():
            generate(model, run.job.requests, run.settings, run.job.rules, on_finish=run.finish, on_step=on_step)
    else:
        for _ in run:
            pass
    return run.results


def steps(
    model: Model, prompts: Any, sampler: str | BaseSampler | None = None,
    sampler_options: Mapping[str, Any] | None = None, cache: str | BaseCache | None = None,
    cache_options: Mapping[str, Any] | None = None, *, logits: bool = False, **options: Any,
) -> Steps:  # fmt: skip
    """Decode prompts as ``decode`` does, to the same tokens, and watch: ``for step in mdm.steps(...)``.

    A ``Step`` says what one step did to one prompt; prompts that are decoded together take turns. All other arguments
    are those of ``decode``.

    Args:
        logits: whether steps carry the logits that the sampler's scores were made of, ``Step.logits``: another pass
            over the head, and a copy to the CPU, each step.

    Raises:
        MdmError: as ``decode``; an autoregressive model, which has no canvas.
    """
    if not isinstance(logits, bool):
        raise MdmError(f"logits is {logits!r}: it is True or False")
    run = _begin(
        model, prompts, sampler, sampler_options, cache, cache_options, watched=True, logits=logits, **options
    )  # fmt: skip
    if run.job.policy is None:
        raise MdmError(f"{model.name or model.spec.family} is autoregressive: it has no steps to watch; use mdm.decode")
    return run


def _begin(
    model: Model, prompts: Any, *policy: Any, gen_length: Any = None, suffix: Any = None, unconditional: Any = None,
    logits_processors: Any = (), row_ids: Any = None, trace: Any = True, on_finish: Any = None, on_step: Any = None,
    watched: bool = False, logits: bool = False, **options: Any,
) -> Steps:  # fmt: skip
    """A decode that has not begun; the arguments are those of ``decode`` and ``Steps``."""
    check_arguments(model, logits_processors, {"on_finish": on_finish, "on_step": on_step})
    if trace not in (True, False, "full"):
        raise MdmError(f'trace is {trace!r}: it is True, False or "full"')
    job = prepare(
        model, prompts, check_settings(options, _NAMES), *policy, gen_length=gen_length, suffix=suffix,
        unconditional=unconditional, processors=logits_processors, row_ids=row_ids,
    )  # fmt: skip
    return Steps(model, job, trace=trace, on_finish=on_finish, on_step=on_step, watched=watched, logits=logits)


def open_session(
    model: Model, sampler: str | BaseSampler | None = None, sampler_options: Mapping[str, Any] | None = None,
    cache: str | BaseCache | None = None, cache_options: Mapping[str, Any] | None = None, *,
    row_tokens: int | None = None, **options: Any,
) -> Session:  # fmt: skip
    """A session that decodes requests as they come: ``submit``, ``cancel`` and ``step``.

    Each is decoded as ``decode`` would decode it alone, whatever is decoded beside it. Sampler, cache and decoding
    options are as in ``decode``, and hold for requests that say nothing else; ``batch_size`` is how many are decoded
    at one time.

    Args:
        row_tokens: tokens of all canvases that are decoded at one time; None: what half of the free memory holds.

    Raises:
        MdmError: an unknown name, an option that does not fit, an autoregressive model.
    """
    check_arguments(model, (), {})
    given = {
        "sampler": sampler, "sampler_options": sampler_options, "cache": cache, "cache_options": cache_options,
    } | options  # fmt: skip
    return Session(model, {name: value for name, value in given.items() if value is not None}, row_tokens)


def read(
    model: Model, prompts: Any, labels: Sequence[str | int]
) -> dict[str | int, float] | list[dict[str | int, float]]:
    """What a model reads at a hole: the probability of each label there, from one forward for as many prompts as fit.

    Args:
        prompts: prompts as in ``decode``, each with one ``[MASK]`` (or mask id); or one text.
        labels: texts of one token each, or token ids.

    Returns:
        Label -> its probability among all tokens (they need not add up to 1); of a list of prompts a list of these.

    Raises:
        MdmError: a prompt has no mask or several, or a label is no single token.
    """
    check_arguments(model, (), {})
    if model.spec.attention == "causal":
        raise MdmError(f"{model.name or model.spec.family} is autoregressive: it reads no hole")
    ids = reading.label_ids(model, labels)
    one = isinstance(prompts, (str, Prompt, Layout))
    layouts = encode_prompts(model, [prompts] if one else prompts)
    found = [dict(zip(labels, shares, strict=True)) for shares in reading.read(model, layouts, ids)]
    return found[0] if one else found


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
