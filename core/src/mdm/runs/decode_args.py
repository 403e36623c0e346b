"""From a configuration to what ``mdm.decode`` is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mdm.errors import MdmError
from mdm.protocols.task import MASK, BaseTask, Example, Prompt
from mdm.runs.config import DecodeConfig, RunConfig
from mdm.runs.grading import EncodedExample

if TYPE_CHECKING:
    from mdm.models.model import Model


def encode(model: Model, prompt: Prompt) -> tuple[list[int], int]:
    """The canvas a prompt starts from, and how many of its ids are the context."""
    if isinstance(prompt.context, str):
        context = [*model.spec.prefix, *(model.encode(prompt.context) if prompt.context else [])]
    else:
        context = list(model.encode_chat(prompt.context))
    answer = list(model.encode(prompt.answer)) if prompt.answer else []
    return context + answer, len(context)


def decode_settings(
    config: DecodeConfig, model: Model, sampler: str, tokens_per_step: int | None = None
) -> dict[str, Any]:
    """The arguments of ``mdm.decode`` that a configuration fixes for all prompts, at the pace named or its only one."""
    shared = {"suffix": model.spec.suffix} | config.model_dump(
        include={
            "temperature", "eos_penalty", "pad_penalty", "allowed_tokens", "suppressed_tokens", "batch_size",
            "max_rows", "seed",
        }
    )  # fmt: skip
    if model.spec.attention == "causal":
        return shared
    return (
        shared
        | {
            "sampler": sampler,
            "tokens_per_step": tokens_per_step or next(iter(config.tokens_per_step or []), None),
            "sampler_options": config.options.get(sampler, {}),
            "cache": cache_name(config, model),
            "cache_options": config.options.get(config.cache, {}),
            "block_length": config.block_length or model.spec.block_length or 32,
            "trace": "full" if config.trace == "full" else True,
        }
        | config.model_dump(include={"steps", "schedule", "guidance", "stop_at_eos", "compile"})
    )


def cache_name(config: DecodeConfig, model: Model) -> str:
    return model.spec.default_cache if config.cache == "auto" else config.cache


def load_model(config: DecodeConfig, name: str) -> Model:
    """A model as a configuration asks for it."""
    from mdm import api

    wanted = {"device", "dtype", "adapter", "offline", "device_map", "quantization", "attn_implementation"}
    return api.load_model(name, **config.model_dump(include=wanted))


def encode_example(config: RunConfig, model: Model, task: BaseTask, index: int, example: Example) -> EncodedExample:
    ask = task.continuation if model.spec.attention == "causal" else task.prompt
    prompt = ask(example, model.spec.prompt_style)
    gen_length = prompt.gen_length if config.gen_length is None else config.gen_length
    try:
        ids, context = encode(model, prompt)
        if not gen_length and model.spec.mask_id not in ids:
            raise MdmError(f"nothing to decode: gen_length is 0 and the prompt holds no {MASK}")
    except MdmError as error:
        raise MdmError(f"{config.task}, example {example.id}: {error}") from error
    canvas = [None if i == model.spec.mask_id else text for i, text in zip(ids, model.token_texts(ids), strict=True)]
    return EncodedExample(index, example, prompt, ids, context, gen_length, canvas)
