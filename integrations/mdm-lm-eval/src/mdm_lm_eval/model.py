"""The model that lm-evaluation-harness finds under the name ``mdm``."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from mdm import api, registry
from mdm.errors import MdmError, MdmWarning
from mdm.protocols.cache import BaseCache
from mdm.protocols.settings import Settings
from mdm.runs import config, presets
from mdm.runs.decode_args import cache_name, decode_settings, load_model
from mdm.runs.variants import AUTOREGRESSIVE, without_policy
from tqdm import tqdm

from mdm_lm_eval.encoding import Encoder
from mdm_lm_eval.generation import generation
from mdm_lm_eval.likelihood import Answer, exact, log_likelihoods

V = TypeVar("V", bound=Hashable)

DRAWS = 128
"""Masks drawn for a log-likelihood where nobody says how many."""


class MdmLM(LM):
    """A masked diffusion model under any sampler and cache.

    What its arguments say of a generation holds for every task; what they leave open the task says.

    Args:
        pretrained: a named checkpoint, a local folder or a hub id.
        draws: masks drawn for a log-likelihood; None: 128. An autoregressive model's are exact, and it takes none.
        max_length: tokens of prompt and answer together, as far as rolling log-likelihoods cut a text.
        greedy: say of each log-likelihood whether the sampler itself would write that answer, which takes a decode.
        batch_size: as lm-eval gives it; ``auto`` is what fits, at most ``max_batch_size``.
        device: ``cuda:0``, which lm-eval says where nobody says anything, is ``auto`` on a machine without.
        settings: whatever `mdm run` takes (sampler, cache, gen_length, steps, block_length, temperature, seed, dtype)
            and options of the sampler and the cache as after `-o`: ``candidates=4``, ``info-gain.candidates=4``.
            Of these, log-likelihoods heed guidance, block_length, seed and batch_size.

    Raises:
        MdmError: an unknown setting, plugin or option, or a model that cannot be loaded.
    """

    def __init__(
        self,
        pretrained: str = "tiny",
        draws: int | None = None,
        max_length: int = 2048,
        greedy: bool = False,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if (draws is not None and draws < 1) or max_length < 2:
            raise MdmError(f"draws={draws}, max_length={max_length}: at least 1 and 2")
        if "model" in settings:
            raise MdmError(f"model={settings['model']}: the model is named by pretrained")
        if batch_size is not None:
            settings["batch_size"] = "auto" if str(batch_size).startswith("auto") else batch_size
        if max_batch_size is not None and settings.get("batch_size") != "auto":
            raise MdmError(f"max_batch_size={max_batch_size} goes with batch_size=auto")
        if device is not None and (torch.cuda.is_available() or device not in ("cuda", "cuda:0")):
            settings["device"] = device
        known = config.DecodeConfig.model_fields
        flags = {"model": pretrained} | {name: value for name, value in settings.items() if name in known}
        assignments = [f"{name}={value}" for name, value in settings.items() if name not in known]
        self.config = config.build(config.DecodeConfig, None, flags, assignments)
        named = {*flags, *self._preset()} & set(Settings.model_fields)
        self.asked = {name: getattr(self.config, name) for name in named}
        """the decoding options that the arguments name, those of a preset included"""
        self._check_single()
        self.max_batch_size, self.max_length, self.greedy = max_batch_size, max_length, greedy
        self.model = load_model(self.config, pretrained)
        for warning in presets.warnings(self.config.preset, {pretrained: self.model.spec.family}):
            warnings.warn(warning, MdmWarning, stacklevel=2)
        self.causal = self.model.spec.attention == "causal"
        if self.causal:
            self.config = without_policy(self.config)
            if draws is not None or greedy:
                raise MdmError(
                    f"draws and greedy do not apply to {pretrained}: autoregressive log-likelihoods are exact"
                )
        self.draws = draws or DRAWS
        self.encoder = Encoder(self.model)

    def _preset(self) -> set[str]:
        """The names of what a preset sets."""
        name = self.config.preset
        return set() if name is None else set(presets.layer(name, registry.resolve("preset", name), None)[0])

    def _check_single(self) -> None:
        """Refuse several values where a run compares them, and what only a run's folder shows."""
        for name in ("sampler", "model", "tokens_per_step"):
            if len(values := getattr(self.config, name) or []) > 1:
                raise MdmError(f"{name}={','.join(map(str, values))}: lm-eval takes one; `mdm run` compares several")
        if self.config.trace != "plain":
            raise MdmError(f"trace={self.config.trace}: lm-eval keeps no traces; `mdm run` does")

    def get_model_info(self) -> dict[str, Any]:
        return {"mdm": self.config.model_dump(mode="json"), "mdm_draws": None if self.causal else self.draws}

    @property
    def device(self) -> Any:
        return self.model.device

    @property
    def tokenizer_name(self) -> str:
        return self.model.name.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.encoder.chat(chat_history, add_generation_prompt=add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.encoder.template(chat_template) if chat_template else None

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        asked = [generation(request.args[1], self.asked, self.config.stop) for request in requests]
        contexts = [self.encoder.context(request.args[0]) for request in requests]
        written: dict[int, str] = {}
        with tqdm(total=len(asked), desc="decoding", disable=disable_tqdm) as bar:
            for options, indices in _grouped(one.settings for one in asked).items():

                def finish(i: int, result: api.Result, indices: list[int] = indices) -> None:
                    index = indices[i]
                    written[index] = result.text or ""
                    self.cache_hook.add_partial("generate_until", requests[index].args, written[index])
                    bar.update()

                self._decode(
                    [contexts[index] for index in indices], [asked[index].length for index in indices],
                    row_ids=indices, on_finish=finish, **dict(options),
                )  # fmt: skip
        return [written[index] for index in range(len(asked))]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self._check_likelihoods()
        answers = self.encoder.answers(request.args for request in requests)
        if self.causal:
            results = self._exact(answers, disable_tqdm)
        else:
            values = self._bounds(answers, disable_tqdm)
            results = list(zip(values, self._writes(answers) if self.greedy else [False] * len(answers), strict=True))
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, result)
        return results

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        if self.config.guidance:
            raise MdmError(
                f"guidance={self.config.guidance:g} does not apply to rolling log-likelihoods: no prompt is there"
            )
        self._check_likelihoods()
        windows = [self._windows(self.encoder.text(request.args[0])) for request in requests]
        every = [window for of_one in windows for window in of_one]
        found = (
            [value for value, _ in self._exact(every, disable_tqdm)]
            if self.causal
            else self._bounds(every, disable_tqdm)
        )
        values = iter(found)
        results = [sum(next(values) for _ in of_one) for of_one in windows]
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, result)
        return results

    def _check_likelihoods(self) -> None:
        if self.config.unconditional is not None:
            raise MdmError(
                "unconditional does not apply to log-likelihoods, whose guidance compares with the masked context"
            )

    def _bounds(self, answers: Sequence[Answer], disable_tqdm: bool) -> list[float]:
        longest = max((len(answer.prefix) + len(answer.target) for answer in answers), default=1)
        with tqdm(total=len(answers), desc="log-likelihoods", disable=disable_tqdm) as bar:
            return log_likelihoods(
                self.model, answers, draws=self.draws, seed=self.config.seed,
                batch_size=self._batch_size(longest, len(answers) * self.draws, kv=False) or 1,
                block_length=self.config.block_length, guidance=self.config.guidance, done=lambda _: bar.update(),
            )  # fmt: skip

    def _exact(self, answers: Sequence[Answer], disable_tqdm: bool) -> list[tuple[float, bool]]:
        size = self._batch_size(self.max_length, len(answers), kv=False) or 1
        with tqdm(total=len(answers), desc="log-likelihoods", disable=disable_tqdm) as bar:
            return exact(self.model, answers, max_length=self.max_length, batch_size=size, done=lambda _: bar.update())

    def _batch_size(self, longest: int, count: int, *, kv: bool, features: bool = False) -> int | None:
        """Rows of at most ``longest`` tokens to run together, of ``count``."""
        if self.config.batch_size != "auto":
            return self.config.batch_size
        planned = api.plan_batch(
            self.model, longest, count, kv=kv, cfg_branches=2 if self.config.guidance else 1, batch_size="auto",
            max_rows=self.config.max_rows, features=features,
        ).batch_size  # fmt: skip
        return min(planned, self.max_batch_size or planned)

    def _decode(self, prompts: Sequence[Sequence[int]], lengths: Sequence[int], **arguments: Any) -> list[api.Result]:
        sampler = next(iter(self.config.sampler), AUTOREGRESSIVE)
        settings = decode_settings(self.config, self.model, sampler) | {"suffix": self.model.spec.suffix}
        if self.max_batch_size is not None:
            mode = BaseCache if self.causal else registry.resolve("cache", cache_name(self.config, self.model))
            longest = max((len(p) + n for p, n in zip(prompts, lengths, strict=True)), default=1)
            settings["batch_size"] = self._batch_size(
                longest, len(prompts), kv=mode.uses_kv, features=mode.inside_layers
            )
        return api.decode(self.model, prompts, gen_length=lengths, **settings | arguments)

    def _writes(self, answers: Sequence[Answer]) -> list[bool]:
        """Whether the sampler, given as many masks, writes exactly the answer."""
        prompts, lengths = [answer.prefix for answer in answers], [len(answer.target) for answer in answers]
        results = self._decode(prompts, lengths, temperature=0.0)
        return [
            tuple(result.tokens[: len(answer.target)]) == answer.target
            for result, answer in zip(results, answers, strict=True)
        ]

    def _windows(self, ids: list[int]) -> list[Answer]:
        """A long text in pieces: the first fills ``max_length``, each later one has as much again before it."""
        start, opening = self.encoder.start(), self.model.spec.prefix
        first, step = self.max_length - len(start), self.max_length // 2
        windows = [Answer(start, tuple(ids[:first]))] if ids else []
        for begin in range(first, len(ids), step):
            end = min(begin + step, len(ids))
            context = ids[end - self.max_length + len(opening) : begin]
            windows.append(Answer((*opening, *context), tuple(ids[begin:end])))
        return windows


def _grouped(values: Iterable[V]) -> dict[V, list[int]]:
    """Value -> the indices that have it."""
    groups: dict[V, list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault(value, []).append(index)
    return groups
