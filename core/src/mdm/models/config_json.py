"""What a config.json may say: the types and bounds of the keys that families read, whatever the family."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from mdm.data import documents
from mdm.errors import MdmError, explain
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, create_model

Size = Annotated[int, Strict(), Field(ge=1, le=2**31)]
Count = Annotated[int, Strict(), Field(ge=0, le=2**31)]
Id = Annotated[int, Strict(), Field(ge=-(2**31), le=2**31)]
Ids = Annotated[list[Id], Field(max_length=1000)]
Real = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
Name = Annotated[str, Field(max_length=200)]

KEYS: dict[Any, tuple[str, ...]] = {
    Size: (
        "vocab_size", "embedding_size", "new_vocab_size", "hidden_size", "d_model", "n_embd", "intermediate_size",
        "mlp_hidden_size", "num_hidden_layers", "n_layers", "n_layer", "num_attention_heads", "n_heads", "n_head",
        "num_key_value_heads", "n_kv_heads", "head_dim", "max_position_embeddings", "max_sequence_length",
        "n_positions", "block_size", "bd_size", "expert_intermediate_size", "dense_intermediate_size",
    ),
    Count: (
        "num_experts", "num_experts_per_tok", "num_shared_experts", "moe_intermediate_size", "n_group", "topk_group",
        "first_k_dense_replace",
    ),
    Id | Ids: ("bos_token_id", "eos_token_id"),
    Id: ("mask_token_id", "pad_token_id", "cls_token_id", "sep_token_id"),
    Real: (
        "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rope_theta", "routed_scaling_factor",
        "partial_rotary_factor",
    ),
    Flag: ("tie_word_embeddings", "weight_tying", "is_decoder", "attention_bias", "use_cache"),
    Name: ("model_type", "dtype", "torch_dtype", "prompt_style", "hidden_act", "activation_type"),
    Annotated[list[Name], Field(max_length=100)]: ("architectures",),
    Annotated[list[Name], Field(max_length=10_000)]: ("layer_types",),
}  # fmt: skip
"""Type of a value -> the keys of that type. All may be null or missing; further keys may be anything."""

_fields: dict[str, Any] = {key: (kind | None, None) for kind, keys in KEYS.items() for key in keys}
_Config: type[BaseModel] = create_model(
    "Config", __config__=ConfigDict(extra="allow", protected_namespaces=()), **_fields
)


def parse_config(path: Path) -> dict[str, Any]:
    """A config.json.

    Raises:
        FileNotFoundError: there is none.
        MdmError: it cannot be read, is no mapping, or has a value of a wrong type; the line names the key.
    """
    config = documents.read_json(path, finite=False)  # JSON as Python writes it: some have Infinity
    if not isinstance(config, dict):
        raise MdmError(f"{path} is not a JSON object")
    try:
        _Config.model_validate(config)
    except ValidationError as error:
        raise MdmError(explain(error, f"{path}: ", _Config)) from None
    return config
