"""mdm's samplers as samplers of the dllm framework (https://github.com/ZHZisZZ/dllm).

from mdm_dllm import MdmSampler, MdmSamplerConfig

sampler = MdmSampler(model=model, tokenizer=tokenizer)
sampler.sample(prompts, MdmSamplerConfig(sampler="info-gain", max_new_tokens=64, steps=64))
"""

from importlib import import_module
from typing import Any

__all__ = ["MdmSampler", "MdmSamplerConfig"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mdm_dllm' has no attribute {name!r}")
    return getattr(import_module("mdm_dllm.sampler"), name)
