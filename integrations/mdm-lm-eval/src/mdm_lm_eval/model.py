"""The model that lm-evaluation-harness finds under the name ``mdm``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from mdm import api
from mdm.errors import MdmError
from mdm.runs import config
from mdm.runs.decode_args import decode_settings, load_model
from tqdm import tqdm

from mdm_lm_eval.likelihood import Answer, log_likelihoods, opened

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What tasks call the number of tokens to generate, first come first served."""


class MdmLM(LM):
    """A masked diffusion model under any sampler and cache.

    Args:
        pretrained: a named checkpoint, a local folder or a hub id.
        draws: masks drawn for a log-likelihood.
        max_length: tokens of prompt and answer together, as far as rolling log-likelihoods cut a text.
        greedy: say of each log-likelihood whether the sampler itself would write that answer, which takes a decode.
        batch_size, device: as lm-eval gives them. A batch size of ``auto`` is what fits; ``cuda:0``, which lm-eval says
            where nobody says anything, is ``auto`` on a machine without.
        settings: whatever `mdm run` takes (sampler, cache, gen_length, steps, block_length, temperature, seed, dtype)
            and options of the sampler and the cache as after `-o`: ``candidates=4``, ``info-gain.candidates=4``.

    Raises:
        MdmError: an unknown setting, plugin or option, or a model that cannot be loaded.
    """

    def __init__(
        self,
        pretrained: str = "tiny",
        draws: int = 128,
        max_length: int = 2048,
        greedy: bool = False,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if draws < 1 or max_length < 2:
            raise MdmError(f"draws={draws}, max_length={max_length}: at least 1 and 2")
        if str(batch_size).isdigit():
            settings["batch_size"] = int(str(batch_size))
        elif str(batch_size).startswith("auto"):
            settings["batch_size"] = "auto"
        if device is not None and (torch.cuda.is_available() or not device.startswith("cuda")):
            settings["device"] = device
        known = config.DecodeConfig.model_fields
        flags = {"model": pretrained} | {name: value for name, value in settings.items() if name in known}
        assignments = [f"{name}={value}" for name, value in settings.items() if name not in known]
        self.config = config.build(config.DecodeConfig, None, flags, assignments)
        self.draws, self.max_length, self.greedy = draws, max_length, greedy
        self.model = load_model(self.config, pretrained)

    def get_model_info(self) -> dict[str, Any]:
        return {"mdm": self.config.model_dump(mode="json"), "mdm_draws": self.draws}

    @property
    def device(self) -> Any:
        return self.model.device

    @property
    def tokenizer_name(self) -> str:
        return self.model.name.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        template = self._template()
        text: str = self.model.tokenizer.apply_chat_template(
            chat_history, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )  # fmt: skip
        return text

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self._template() if chat_template else None

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        asked = [(request.args[0], dict(request.args[1])) for request in requests]
        written: dict[int, str] = {}
        with tqdm(total=len(asked), desc="decoding", disable=disable_tqdm) as bar:
            for temperature, indices in _grouped(self._temperature(kwargs) for _, kwargs in asked).items():

                def finish(i: int, result: api.Result, indices: list[int] = indices) -> None:
                    index = indices[i]
                    written[index] = cut(result.text or "", asked[index][1].get("until"))
                    self.cache_hook.add_partial("generate_until", requests[index].args, written[index])
                    bar.update()

                settings = decode_settings(self.config, self.model, self.config.sampler[0])
                api.decode(
                    self.model,
                    [self._context(asked[index][0]) for index in indices],
                    gen_length=[self._length(asked[index][1]) for index in indices],
                    row_ids=indices,
                    on_finish=finish,
                    **settings | {"temperature": temperature},
                )
        return [written[index] for index in range(len(asked))]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        answers = [self._pair(*request.args) for request in requests]
        values = self._bounds(answers, disable_tqdm)
        greedy = self._writes(answers) if self.greedy else [False] * len(answers)
        results = list(zip(values, greedy, strict=True))
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, result)
        return results

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        windows = [self._windows(self.model.encode(request.args[0])) for request in requests]
        values = iter(self._bounds([window for of_one in windows for window in of_one], disable_tqdm))
        results = [sum(next(values) for _ in of_one) for of_one in windows]
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, result)
        return results

    def _bounds(self, answers: Sequence[Answer], disable_tqdm: bool) -> list[float]:
        batch_size = self.config.batch_size
        if batch_size == "auto":
            longest = max((len(answer.prefix) + len(answer.target) for answer in answers), default=1)
            batch_size = api.plan_batch(
                self.model,
                longest,
                len(answers) * self.draws,
                kv=False,
                cfg_branches=1,
                batch_size="auto",
                max_rows=None,
            ).batch_size
        with tqdm(total=len(answers), desc="log-likelihoods", disable=disable_tqdm) as bar:
            return log_likelihoods(
                self.model, answers, draws=self.draws, seed=self.config.seed, batch_size=batch_size,
                block_length=self.config.block_length, done=lambda _: bar.update(),
            )  # fmt: skip

    def _writes(self, answers: Sequence[Answer]) -> list[bool]:
        """Whether the sampler, given as many masks, writes exactly the answer."""
        results = api.decode(
            self.model,
            [answer.prefix for answer in answers],
            gen_length=[len(answer.target) for answer in answers],
            **decode_settings(self.config, self.model, self.config.sampler[0]) | {"temperature": 0.0},
        )
        return [
            tuple(result.tokens[: len(answer.target)]) == answer.target
            for result, answer in zip(results, answers, strict=True)
        ]

    def _pair(self, context: str, continuation: str) -> Answer:
        """Both as ids. Blanks at the context's end belong to the continuation's first word."""
        kept = context.rstrip()
        prefix = opened(self.model, self.model.encode(kept))
        whole = opened(self.model, self.model.encode(context + continuation))
        answer = Answer(tuple(whole[: len(prefix)]), tuple(whole[len(prefix) :]))
        return answer if kept else Answer(self._start(), answer.target)

    def _windows(self, ids: list[int]) -> list[Answer]:
        """A long text in pieces: the first fills ``max_length``, each later one has as much again before it."""
        start, opening = self._start(), self.model.spec.prefix
        first, step = self.max_length - len(start), self.max_length // 2
        windows = [Answer(start, tuple(ids[:first]))] if ids else []
        for begin in range(first, len(ids), step):
            end = min(begin + step, len(ids))
            context = ids[end - self.max_length + len(opening) : begin]
            windows.append(Answer((*opening, *context), tuple(ids[begin:end])))
        return windows

    def _start(self) -> tuple[int, ...]:
        """What stands before an answer without a context: the model's own opening, or EOS where position i - 1
        predicts position i."""
        return self.model.spec.prefix or (self.model.spec.eos_ids[:1] if self.model.spec.shift else ())

    def _context(self, text: str) -> list[int]:
        return opened(self.model, self.model.encode(text)) or list(self._start())

    def _length(self, kwargs: dict[str, Any]) -> int:
        asked = next((kwargs[name] for name in LENGTHS if kwargs.get(name) is not None), None)
        return int(self.config.gen_length or asked or 256)

    def _temperature(self, kwargs: dict[str, Any]) -> float:
        if kwargs.get("do_sample") is False:
            return 0.0
        return float(kwargs.get("temperature") or self.config.temperature)

    def _template(self) -> str:
        template = getattr(self.model.tokenizer, "chat_template", None) or self.model.chat_template
        if template is None:
            raise MdmError(f"{self.model.name or 'the model'} has no chat template: leave --apply_chat_template out")
        return str(template)


def cut(text: str, until: str | Sequence[str] | None) -> str:
    """The text before the first of the strings that end it."""
    ends = [until] if isinstance(until, str) else until or []
    return text[: min((at for end in ends if end and (at := text.find(end)) >= 0), default=len(text))]


def _grouped(values: Iterable[float]) -> dict[float, list[int]]:
    """Value -> the indices that have it."""
    groups: dict[float, list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault(value, []).append(index)
    return groups
