"""Models of a given shape with random weights: what they decode is noise, what they cost is real."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from mdm.models import Model
from mdm.protocols import ModelSpec


@dataclass(frozen=True)
class Experts:
    """The mixtures of experts of a shape, in the place of its MLPs."""

    number: int
    per_token: int
    width: int
    """of one expert, and of the one that all tokens share"""
    groups: int
    groups_per_token: int
    dense_layers: int
    """how many of the first layers keep their MLP"""


@dataclass(frozen=True)
class Shape:
    """The sizes that decide what a forward costs."""

    family: str
    """llada, dream, sdar or llada2: Llama, Qwen2, Qwen3 or Glm4Moe"""
    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    head_dim: int | None = None
    experts: Experts | None = None

    @property
    def block_causal(self) -> bool:
        return self.family in ("sdar", "llada2")

    @property
    def cache(self) -> str:
        """The cache that the published runs of this family use."""
        return "block" if self.block_causal else "dual"

    @property
    def spec(self) -> ModelSpec:
        """The last tokens of the vocabulary are an end token and the mask."""
        return ModelSpec(
            family=self.family,
            vocab_size=self.vocab,
            mask_id=self.vocab - 1,
            eos_ids=(self.vocab - 2,),
            shift=self.family == "dream",
            attention="block-causal" if self.block_causal else "full",
            default_cache=self.cache,
        )


SHAPES = {
    "llada-8b": Shape("llada", 126464, 4096, 32, 32, 32, 12288),
    "dream-7b": Shape("dream", 152064, 3584, 28, 28, 4, 18944),
    "sdar-8b": Shape("sdar", 151936, 4096, 36, 32, 8, 12288, head_dim=128),
    "llada2-mini": Shape(
        "llada2", 157184, 2048, 20, 16, 4, 5120, head_dim=128, experts=Experts(256, 8, 512, 8, 4, dense_layers=1)
    ),
    "tiny": Shape("llada", 512, 64, 4, 4, 4, 256),
}


def random_model(shape: Shape, *, device: str = "cpu", dtype: str = "float32", seed: int = 0) -> Model:
    """A model of ``shape``; on the device "meta" it has all but memory for its weights."""
    network = _on_meta(shape)
    config = network.config
    network = network.to(getattr(torch, dtype)).to_empty(device=device)
    random = None if device == "meta" else torch.Generator(device).manual_seed(seed)
    for name, weight in network.named_parameters():
        if weight.dim() == 1 and not name.endswith("bias"):
            weight.data.fill_(1.0)
        else:
            weight.data.normal_(0.0, 0.02, generator=random)
    for name, buffer in network.named_buffers():
        if name.endswith("e_score_correction_bias"):  # of a router; a checkpoint has it among its weights
            buffer.zero_()
    # Buffers such as the rotary frequencies are no parameters, and have no values on the meta device: make them anew.
    network.model.rotary_emb = type(network.model.rotary_emb)(config).to(device)
    network.eval().requires_grad_(False)
    return Model(shape.spec, network.model, network.lm_head, name="random weights")


def weight_bytes(shape: Shape, dtype: str) -> int:
    """Size of the weights of ``shape`` in bytes."""
    return int(sum(weight.numel() for weight in _on_meta(shape).parameters()) * getattr(torch, dtype).itemsize)


def _on_meta(shape: Shape) -> Any:
    """The network without memory for its weights."""
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": shape.vocab, "hidden_size": shape.hidden, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "intermediate_size": shape.mlp,
        "max_position_embeddings": 1 << 16, "tie_word_embeddings": False,
    }  # fmt: skip
    if shape.head_dim:
        sizes["head_dim"] = shape.head_dim
    if shape.experts is not None:
        sizes |= _mixture(shape.experts)
    prefix = {"llada": "Llama", "dream": "Qwen2", "sdar": "Qwen3", "llada2": "Glm4Moe"}[shape.family]
    config = getattr(transformers, f"{prefix}Config")(**sizes)
    config.is_causal = False
    with torch.device("meta"):
        return getattr(transformers, f"{prefix}ForCausalLM")(config)


def _mixture(experts: Experts) -> dict[str, Any]:
    """What ``Glm4MoeConfig`` says of a mixture, as LLaDA2 has it."""
    return {
        "n_routed_experts": experts.number, "num_experts_per_tok": experts.per_token, "n_shared_experts": 1,
        "moe_intermediate_size": experts.width, "n_group": experts.groups, "topk_group": experts.groups_per_token,
        "first_k_dense_replace": experts.dense_layers, "routed_scaling_factor": 2.5, "use_qk_norm": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 600000.0, "partial_rotary_factor": 0.5},
        "num_mtp_layers": 0,
    }  # fmt: skip
