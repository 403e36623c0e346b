"""Our samplers behind dllm's interface: the real one where it is installed, else a stand-in of the same fields."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import mdm
import pytest
import torch
from torch import nn


def stand_in() -> dict[str, ModuleType]:
    @dataclass
    class BaseSamplerOutput:
        sequences: torch.Tensor
        histories: list[torch.Tensor] | None = None

    @dataclass
    class BaseSamplerConfig:
        return_dict: bool = False

    @dataclass
    class BaseSampler(ABC):
        model: Any
        tokenizer: Any
        scheduler: Any = None

        @abstractmethod
        def sample(self, prompts, config=None, **kwargs): ...

        @abstractmethod
        def infill(self, inputs, config=None, **kwargs): ...

    modules = {
        name: ModuleType(name) for name in ("dllm", "dllm.core", "dllm.core.samplers", "dllm.core.samplers.base")
    }
    for part in (BaseSamplerOutput, BaseSamplerConfig, BaseSampler):
        setattr(modules["dllm.core.samplers.base"], part.__name__, part)
    modules["dllm.core.samplers"].base = modules["dllm.core.samplers.base"]
    return modules


if find_spec("dllm") is None:
    with pytest.MonkeyPatch.context() as patch:
        for name, module in stand_in().items():
            patch.setitem(sys.modules, name, module)
        from mdm_dllm import MdmSampler, MdmSamplerConfig
else:
    from mdm_dllm import MdmSampler, MdmSamplerConfig


class Plain(nn.Module):
    """mdm-tiny as dllm has a model: ids and a mask of visible positions to logits of all positions."""

    def __init__(self, model):
        super().__init__()
        self.network, self.config = model.body, SimpleNamespace(vocab_size=model.spec.vocab_size)
        self.head, self.calls = model.lm_head, 0

    @property
    def device(self):
        return self.head.weight.device

    def forward(self, input_ids, attention_mask=None):
        self.calls += 1
        length = input_ids.shape[1]
        hidden = (attention_mask == 0)[:, None, None].expand(-1, 1, length, -1)
        mask = torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(torch.float32).min)
        return SimpleNamespace(logits=self.head(self.network(input_ids, attention_mask=mask).last_hidden_state))


PROMPTS = ["1234341221430321:", "12,34,5,41:"]


@pytest.fixture(scope="module")
def model():
    return mdm.load_model("tiny", device="cpu")


@pytest.fixture
def sampler(model):
    return MdmSampler(model=Plain(model), tokenizer=model.tokenizer)


@pytest.mark.parametrize("policy", ["confidence", "info-gain", "random"])
def test_a_plain_network_decodes_as_the_engine_does(model, sampler, policy):
    prompts = [model.encode(text) for text in PROMPTS]
    config = MdmSamplerConfig(sampler=policy, max_new_tokens=16, steps=16, block_size=8, seed=3)
    got = sampler.sample(prompts, config)
    expected = mdm.decode(model, prompts, sampler=policy, gen_length=16, steps=16, block_length=8, seed=3)
    assert got.shape == (2, len(prompts[0]) + 16)
    for row, result in zip(got.tolist(), expected, strict=True):
        assert row[: len(result.sequence)] == result.sequence
        assert set(row[len(result.sequence) :]) <= {model.spec.eos_ids[0]}


def test_histories_go_from_the_masked_canvas_to_the_sequences(model, sampler):
    prompts = [torch.tensor(model.encode(text)) for text in PROMPTS]
    out = sampler.sample(prompts, MdmSamplerConfig(max_new_tokens=8, steps=4, return_dict=True))
    masks = [(canvas == model.spec.mask_id).sum(1).tolist() for canvas in out.histories]
    assert masks == [[8, 8], [6, 6], [4, 4], [2, 2], [0, 0]]
    assert torch.equal(out.histories[-1], out.sequences)
    for before, after in zip(out.histories, out.histories[1:], strict=False):
        changed = before != after
        assert (before[changed] == model.spec.mask_id).all()
    for row, prompt in enumerate(prompts):
        assert torch.equal(out.histories[0][row, : len(prompt)], prompt)


def test_infill_fills_the_masks_and_nothing_else(model, sampler):
    ids = model.encode("12343412214[MASK]43[MASK]1")
    out = sampler.infill([ids], MdmSamplerConfig(steps=None, return_dict=True))
    assert model.decode(out.sequences[0].tolist()) == "1234341221434321"
    assert [int((canvas == model.spec.mask_id).sum()) for canvas in out.histories] == [2, 1, 0]


def test_a_model_of_ours_has_caches_and_a_foreign_one_says_that_it_has_not(model, sampler):
    prompts = [model.encode(PROMPTS[0])]
    ours = MdmSampler(model=model, tokenizer=model.tokenizer)
    config = MdmSamplerConfig(sampler="confidence", cache="prefix", max_new_tokens=16, steps=16)
    assert model.decode(ours.sample(prompts, config)[0, -16:].tolist()) == "1234341221434321"
    with pytest.raises(mdm.MdmError, match="needs keys and values"):
        sampler.sample(prompts, config)


def test_settings_come_from_the_call_and_from_dllms_own_configs(model, sampler):
    prompts = [model.encode(PROMPTS[0])]
    theirs = SimpleNamespace(max_new_tokens=4, steps=4, block_size=4, remasking="low_confidence", return_dict=False)
    assert sampler.sample(inputs=prompts, config=theirs).shape[1] == len(prompts[0]) + 4
    assert sampler.sample(prompts, theirs, max_new_tokens=6).shape[1] == len(prompts[0]) + 6
    assert sampler.sample(prompts, max_new_tokens=None, max_length=20, steps=3).shape[1] == 20
    sampler.model.calls = 0
    sampler.sample(prompts, sampler="confidence", max_new_tokens=8, steps=2)
    assert sampler.model.calls == 2
    never = int(sampler.sample(prompts, theirs)[0, len(prompts[0])])
    assert int(sampler.sample(prompts, theirs, suppress_tokens=[never])[0, len(prompts[0])]) != never
    with pytest.raises(mdm.MdmError, match="cfg_keep_tokens"):
        sampler.sample(prompts, theirs, cfg_keep_tokens=[1])
    with pytest.raises(mdm.MdmError, match="unknown setting 'setps'"):
        sampler.sample(prompts, theirs, setps=4)
    with pytest.raises(mdm.MdmError, match="nothing to generate"):
        sampler.sample(prompts, max_new_tokens=None)
