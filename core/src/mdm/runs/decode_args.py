"""From a configuration to what ``mdm.decode`` and ``mdm.load_model`` are given."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mdm.errors import MdmError, blamed
from mdm.protocols.settings import DIFFUSION_ONLY, Settings
from mdm.protocols.task import MASK, BaseTask, Example, Prompt
from mdm.runs.config import DecodeConfig, LoadingConfig, RunConfig
from mdm.runs.grading import EncodedExample

if TYPE_CHECKING:
    from mdm.api import Result
    from mdm.models.layout import Layout
    from mdm.models.model import Model
    from mdm.runs.watch import RunObserver


def canvas_texts(model: Model, ids: Sequence[int], gen_length: int = 0) -> list[str | None]:
    """The text of each token, None where it is masked, and ``gen_length`` masks behind them."""
    texts = zip(ids, model.shown_texts(ids), strict=True)
    return [None if token == model.spec.mask_id else text for token, text in texts] + [None] * gen_length


def begin_view(observer: RunObserver, label: str, model: Model, layouts: Mapping[int, Layout]) -> None:
    """Tell an observer what is about to be decoded: layouts by their row id, and how pictures among them look."""
    canvases = {row: canvas_texts(model, layout.tokens, layout.gen_length or 0) for row, layout in layouts.items()}
    grids = {row: layout.grid for row, layout in layouts.items() if layout.grid is not None}
    pictures: dict[str, Any] = {"grids": grids} if grids else {}
    if grids and model.draws_pictures:
        pictures["pictures"] = partial(model.picture, grid=next(iter(grids.values())))
    observer.on_begin(label, canvases, model.shown_texts, **pictures)


def decode_settings(
    config: DecodeConfig, model: Model, sampler: str, tokens_per_step: int | None = None
) -> dict[str, Any]:
    """The arguments of ``mdm.decode`` that a configuration fixes for all prompts.

    Args:
        tokens_per_step: one of the configuration's; None: its only one.
    """
    settings = {name: getattr(config, name) for name in Settings.model_fields if name != "gen_length"}
    settings["tokens_per_step"] = tokens_per_step or next(iter(config.tokens_per_step or []), None)
    arguments: dict[str, Any] = {"trace": "full" if config.trace == "full" else True}
    if config.unconditional is not None:
        arguments["unconditional"] = config.unconditional
    if model.spec.attention == "causal":
        return arguments | {name: value for name, value in settings.items() if name not in DIFFUSION_ONLY}
    return arguments | settings | {
        "sampler": sampler,
        "sampler_options": config.options_of("sampler", sampler),
        "cache": cache_name(config, model),
        "cache_options": config.options_of("cache", config.cache),
    }  # fmt: skip


def cache_name(config: DecodeConfig, model: Model) -> str:
    """The cache that a model decodes with."""
    return model.spec.default_cache if config.cache == "auto" else config.cache


def as_asked(result: Result, layout: Layout) -> list[int]:
    """The sequence of a result that began from ``layout``, without what a grid's last block holds behind the answer."""
    generated = len(result.sequence) - len(layout.tokens) - len(layout.suffix or ())
    return result.sequence[: len(layout.tokens) + min(len(result.tokens), generated)]


def completion(
    config: DecodeConfig, model: Model, sequence: list[int], layout: Layout, stop: tuple[str, ...] = ()
) -> str:
    """The text that answers: behind the context, up to an end token or a stop text; none where a picture does.

    Args:
        layout: what ``sequence`` began from.
        stop: the prompt's own stop texts, beside the configuration's.
    """
    if layout.grid is not None:
        return ""
    behind = list(layout.tokens[layout.context :])
    given = behind.index(model.spec.mask_id) if model.spec.mask_id in behind else len(behind)
    return model.decode(sequence[layout.context :], end_tokens(config, model), (*stop, *config.stop), given)


def end_tokens(config: DecodeConfig, model: Model) -> tuple[int, ...]:
    """The tokens that end an answer."""
    return model.spec.eos_ids if config.eos_token_id is None else (config.eos_token_id,)


def load_model(config: DecodeConfig, name: str) -> Model:
    """A model as a configuration asks for it."""
    from mdm import api

    arguments = {field: getattr(config, field) for field in LoadingConfig.model_fields}
    return api.load_model(name, revision=config.revisions.get(name), **arguments)


def encode_example(config: RunConfig, model: Model, task: BaseTask, index: int, example: Example) -> EncodedExample:
    ask = task.continuation if model.spec.attention == "causal" else task.prompt
    style, what = config.prompt_style or model.spec.prompt_style, f"task {config.task!r}, example {example.id}"
    with blamed(f"{what}: it has no prompt"):
        prompt = ask(example, style)
    if not isinstance(prompt, Prompt) or not all(isinstance(text, str) for text in (prompt.answer, *prompt.stop)):
        raise MdmError(f"{what}: its prompt is {reprlib.repr(prompt)}, which is no Prompt")
    try:
        with blamed("its prompt cannot be encoded"):
            layout = model.lay_out(prompt)
        if layout.grid is not None and config.image_tokenizer is None:
            raise MdmError("it asks for a picture: name what makes one of its codes, --image-tokenizer")
        if config.gen_length is not None and layout.grid is None:
            layout = replace(layout, gen_length=config.gen_length)
        if not layout.gen_length and model.spec.mask_id not in layout.tokens:
            raise MdmError(f"nothing to decode: gen_length is 0 and the prompt holds no {MASK}")
    except MdmError as error:
        raise MdmError(f"{config.task}, example {example.id}: {error}") from error
    return EncodedExample(index, example, prompt, layout, canvas_texts(model, layout.tokens))
