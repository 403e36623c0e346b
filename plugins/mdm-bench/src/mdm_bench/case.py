"""A decode to measure, and how it is timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from mdm import api, registry
from mdm.models import Model, torch_compile
from mdm.protocols import ModelSpec
from mdm.protocols.settings import Size


@lru_cache
def _prompts(vocabulary: int, batch: int, length: int) -> list[list[int]]:
    """The same random tokens at every call; cached, so that making them is not counted."""
    random = torch.Generator().manual_seed(0)
    prompts: list[list[int]] = torch.randint(vocabulary - 1, (batch, length), generator=random).tolist()
    return prompts


@dataclass(frozen=True)
class Case:
    """A decode of prompts of random tokens. Lengths are in tokens."""

    cache: str = "none"
    sampler: str = "info-gain"
    candidates: int = 8
    """of a lookahead: for samplers that have such an option"""
    prompt_length: int = 192
    gen_length: int = 64
    block_length: int = 32
    batch: int = 1
    max_rows: Size | None = None
    tokens_per_step: int | None = None
    compile: bool = False
    graphs: bool = True

    @property
    def length(self) -> int:
        """Tokens of a canvas."""
        return self.prompt_length + self.gen_length

    @property
    def keeps(self) -> bool:
        """Whether the cache stores keys and values."""
        return bool(registry.resolve("cache", self.cache).uses_kv)

    @property
    def options(self) -> dict[str, Any]:
        """The sampler's options: ``candidates``, where it has such an option."""
        fields = registry.resolve("sampler", self.sampler).Options.model_fields
        return {"candidates": self.candidates} if "candidates" in fields else {}

    def check(self, spec: ModelSpec, device: str) -> None:
        """Refuse now what ``decode`` would refuse for such a model on this type of device.

        Raises:
            MdmError: the cache or the sampler is unknown or not for such a model, or nothing can be compiled.
        """
        api.make_policy(spec, self.sampler, self.options, self.cache)
        if self.compile:
            torch_compile.require(device)

    def decode(self, model: Model, **more: Any) -> list[api.Result]:
        prompts = _prompts(model.spec.vocab_size, self.batch, self.prompt_length)
        settings: dict[str, Any] = {
            "cache": self.cache, "gen_length": self.gen_length, "block_length": self.block_length,
            "max_rows": self.max_rows, "tokens_per_step": self.tokens_per_step, "compile": self.compile,
            "graphs": self.graphs,
        }  # fmt: skip
        return api.decode(model, prompts, self.sampler, self.options, **settings | more)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Wall time of ``work``, until the device has finished it."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if cuda:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
