"""``MdmSampler``: a dllm sampler (a model together with a policy) that decodes with mdm's engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from dllm.core.samplers import base
from mdm import api
from mdm.errors import MdmError
from mdm.models import Model
from torch import Tensor

from mdm_dllm.network import Network

# Early releases named these without "Base".
Config: Any = getattr(base, "BaseSamplerConfig", None) or base.SamplerConfig
Output: Any = getattr(base, "BaseSamplerOutput", None) or base.SamplerOutput

REFUSED = ("cfg_keep_tokens", "begin_suppress_tokens", "stochastic_transfer")
"""Options of dllm's MDLM sampler that have no counterpart in mdm; they are refused when set."""


@dataclass
class MdmSamplerConfig(Config):
    """dllm's names for what they have in common with ``MDLMSamplerConfig``; the rest is ``mdm.decode``'s."""

    max_new_tokens: int | None = 128
    max_length: int | None = None
    """tokens of the longest prompt and its answer, where ``max_new_tokens`` is None"""
    block_size: int | None = 32
    steps: int | None = 128
    temperature: float = 0.0
    cfg_scale: float = 0.0
    suppress_tokens: list[int] | None = None
    right_shift_logits: bool = False
    """whether position i - 1 predicts position i; a model of ``mdm.load_model`` knows it by itself"""
    sampler: str = "info-gain"
    sampler_options: dict[str, Any] = field(default_factory=dict)
    cache: str | None = None
    seed: int = 0
    batch_size: int | None = None
    stop_at_eos: bool = False


@dataclass
class MdmSampler(base.BaseSampler):
    """A sampler of dllm that decodes as ``mdm.decode`` does.

    ``model`` is a network as dllm loads it, or a model of ``mdm.load_model``, which has caches as well. A config of
    another class will do: its fields of our names count, ``remasking`` is the business of ``sampler``.
    """

    def sample(self, inputs: Sequence[Tensor | list[int]], config: Any = None, **overrides: Any) -> Any:
        """Continue prompts with ``max_new_tokens`` tokens each.

        Returns:
            int64 ``[B, T]``, prompts first, rows padded with EOS on the right; with ``return_dict`` an output of these
            ``sequences`` and ``histories``, the canvases from the first to the last step.

        Raises:
            MdmError: a setting that does not fit.
        """
        settings = _settings(config, overrides)
        prompts = [_ids(prompt) for prompt in inputs]
        longest = max(len(prompt) for prompt in prompts)
        length = settings["max_new_tokens"] or (settings["max_length"] or 0) - longest
        if length < 1:
            raise MdmError("nothing to generate: give max_new_tokens, or a max_length above the longest prompt")
        return self._decode(prompts, length, settings)

    def infill(self, inputs: Sequence[Tensor | list[int]], config: Any = None, **overrides: Any) -> Any:
        """Fill the masks in the inputs, all of them as one block. Returns what ``sample`` returns."""
        return self._decode([_ids(prompt) for prompt in inputs], 0, _settings(config, overrides))

    def _decode(self, prompts: list[list[int]], length: int, settings: dict[str, Any]) -> Any:
        model = self.model
        if not isinstance(model, Model):
            model = Network(model, self.tokenizer, settings["right_shift_logits"])
        if model.spec.shift:
            begin = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else model.spec.eos_ids[0]
            prompts = [prompt or [begin] for prompt in prompts]
        results = api.decode(
            model,
            prompts,
            sampler=settings["sampler"],
            sampler_options=settings["sampler_options"],
            cache=settings["cache"],
            gen_length=length,
            steps=settings["steps"],
            block_length=settings["block_size"] or max(map(len, prompts)) + length,
            temperature=settings["temperature"],
            guidance=settings["cfg_scale"],
            suppressed_tokens=settings["suppress_tokens"] or (),
            stop_at_eos=settings["stop_at_eos"],
            batch_size=settings["batch_size"],
            seed=settings["seed"],
            trace=settings["return_dict"],
        )
        fill = model.spec.eos_ids[0] if model.spec.eos_ids else 0
        sequences = _padded([result.sequence for result in results], fill, model.device)
        if not settings["return_dict"]:
            return sequences
        return Output(sequences=sequences, histories=_histories(results, sequences, model.spec.mask_id))


def _settings(config: Any, overrides: dict[str, Any]) -> dict[str, Any]:
    """The settings: defaults, overridden by the config, overridden by the call."""
    settings = {name: getattr(config, name, value) for name, value in vars(MdmSamplerConfig()).items()}
    for name in REFUSED:
        if overrides.get(name, getattr(config, name, None)):
            raise MdmError(f"dllm's option {name!r} has no counterpart in mdm: leave it out")
    unknown = next((name for name in overrides if name not in (*settings, *REFUSED, "remasking")), None)
    if unknown:
        raise MdmError(f"unknown setting {unknown!r}; there are: {', '.join(settings)}")
    return settings | {name: value for name, value in overrides.items() if name in settings}


def _ids(prompt: Tensor | list[int]) -> list[int]:
    return [int(token) for token in (prompt.tolist() if isinstance(prompt, Tensor) else prompt)]


def _padded(sequences: list[list[int]], fill: int, device: torch.device) -> Tensor:
    longest = max(map(len, sequences))
    return torch.tensor([ids + [fill] * (longest - len(ids)) for ids in sequences], device=device)


def _histories(results: Sequence[api.Result], final: Tensor, mask_id: int) -> list[Tensor]:
    """The canvases ``[B, T]`` before the first step and after each; a row that is done stays as it is."""
    canvas = final.clone()
    steps: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for row, result in enumerate(results):
        for line in result.trace:
            canvas[row, line["positions"]] = mask_id
            steps.setdefault(line["step"], []).append((row, line))
    histories = [canvas]
    for step in sorted(steps):
        canvas = canvas.clone()
        for row, line in steps[step]:
            canvas[row, line["positions"]] = torch.tensor(line["tokens"], dtype=canvas.dtype, device=canvas.device)
        histories.append(canvas)
    return histories
