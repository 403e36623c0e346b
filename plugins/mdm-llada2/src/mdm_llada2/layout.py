"""LLaDA2's published layout: config keys, special tokens and the chat template. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.models import check_counts, check_network, end_tokens, mask_token, network_sizes, refuse

BLOCK = 32
"""The block of the published recipes; no config.json names it."""

MASK_TOKEN, END_OF_TURN = "<|mask|>", "<|role_end|>"
PUBLISHED_VOCABULARY, PUBLISHED_MASK, PUBLISHED_END = 157184, 156895, 156892
"""Where no tokenizer is there, these ids are known of the published vocabulary alone."""

CHAT = (
    "<role>SYSTEM</role>{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n{% endif %}"
    "detailed thinking off<|role_end|>"
    "{% for m in messages %}"
    "{% if m['role'] == 'user' %}<role>HUMAN</role>{{ m['content'] }}<|role_end|>"
    "{% elif m['role'] == 'assistant' %}<role>ASSISTANT</role>{{ m['content'] }}<|role_end|>"
    "{% elif m['role'] == 'tool' %}<role>OBSERVATION</role>{{ m['content'] }}<|role_end|>"
    "{% elif not loop.first %}{{ raise_exception('a system message stands first') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<role>ASSISTANT</role>{% endif %}"
)
"""The published chat template, for a checkpoint that carries none: the head is written without a system message too."""

NEEDED = (
    "num_experts", "num_shared_experts", "num_experts_per_tok", "n_group", "topk_group", "moe_intermediate_size",
    "first_k_dense_replace", "routed_scaling_factor", "partial_rotary_factor", "rope_theta",
)  # fmt: skip
HOW = "_moe_implementation"
"""How the code that trained a checkpoint computes experts, which says nothing of what they are."""
OFF = (None, False)
ACCEPTED: dict[str, tuple[Any, ...]] = {
    # LLaDA2.2: blocks routed as one, tokens inserted and deleted
    **dict.fromkeys(("expert_capacity", "delete_token_id", "split_token_id"), (None,)),
    # LLaDA2.0-Uni: pictures
    "image_token_offset": (None,),
    # the router, as the stock class has it built in
    "norm_topk_prob": (None, True),
    "score_function": ("sigmoid", None),
    "router_dtype": ("fp32", None),
    "moe_router_enable_expert_bias": (None, True),
    # attention and heads that the stock class lacks
    **dict.fromkeys(("use_qkv_bias", "use_bias", "attention_bias", "using_split_qkv_in_self_attention"), OFF),
    **dict.fromkeys(("norm_head", "norm_softmax"), OFF),
    **dict.fromkeys(("use_qk_norm", "use_rmsnorm"), (None, True)),
    **dict.fromkeys(("num_nextn_predict_layers", "num_mtp_layers"), (None, 0)),
}
"""Keys beside those that every family checks, and the values with which the network is the stock class's."""


def as_glm(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The arguments of ``Glm4MoeConfig`` that an LLaDA2 config.json amounts to; keys not known here are left out.

    Raises:
        MdmError: a key is missing, or asks for what the stock class does not do.
    """
    config = _flat(config, source)
    check_network(config, source, ACCEPTED, heeded=(*NEEDED, "moe_shared_expert_intermediate_size", HOW))
    if (lacking := next((key for key in NEEDED if config.get(key) is None), None)) is not None:
        raise MdmError(f"{source}: config.json lacks the key {lacking!r}")
    sizes = network_sizes(config, source)
    head = sizes["head_dim"]
    refuse(config, {"moe_shared_expert_intermediate_size": (None, config["moe_intermediate_size"])}, source)
    if (rotated := config.get("rotary_dim")) is None:
        rotated = 2 * round(head * config["partial_rotary_factor"] / 2)  # sines and cosines come in pairs
    refuse(config, {"partial_rotary_factor": (rotated / head,)}, source)
    _check_sizes(config, source)
    _check_router(config, source)
    rope = sizes["rope_parameters"] | {"partial_rotary_factor": config["partial_rotary_factor"]}
    return sizes | {
        "rope_parameters": rope,
        "n_routed_experts": config["num_experts"],
        "n_shared_experts": config["num_shared_experts"],
        "attention_bias": False,
        "use_qk_norm": True,
        "norm_topk_prob": True,
        "num_mtp_layers": 0,
        "pad_token_id": None,
        **{key: config[key] for key in NEEDED[2:8]},
    }


def _flat(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The config.json with the rotary keys in their published places; transformers 5 nests them."""
    nested = config.get("rope_parameters")
    if not isinstance(nested, Mapping):
        return dict(config)
    moved = {key: nested[key] for key in ("partial_rotary_factor", "rope_theta") if nested.get(key) is not None}
    if (factor := moved.get("partial_rotary_factor")) is not None:
        refuse(config, {"partial_rotary_factor": (None, factor)}, source)
    return {**config, **moved, "rope_parameters": {k: v for k, v in nested.items() if k != "partial_rotary_factor"}}


def _check_router(config: Mapping[str, Any], source: str) -> None:
    """Refuse sizes with which no token can be routed, or is routed in another way than the stock class's."""
    experts, groups, chosen = (config[key] for key in ("num_experts", "n_group", "topk_group"))
    each = experts // groups if groups and not experts % groups else 0
    rules = {
        "num_shared_experts": (config["num_shared_experts"] >= 1, "at least one"),
        "n_group": (each >= 2, "groups of two or more of the num_experts experts, all of one size"),
        "topk_group": (1 <= chosen <= groups, f"1 to n_group, {groups}"),
        "num_experts_per_tok": (2 <= config["num_experts_per_tok"] <= each * chosen, f"2 to {each * chosen}"),
        "first_k_dense_replace": (config["first_k_dense_replace"] <= config["num_hidden_layers"], "up to all layers"),
    }
    for key, (fine, wanted) in rules.items():
        if not fine:
            raise MdmError(f"{source}: config key {key!r} is {config[key]!r}, and this family runs only {wanted}")


def _check_sizes(config: Mapping[str, Any], source: str) -> None:
    """Refuse a checkpoint with other layers or experts than its config.json says.

    The stock class would drop two numbers of layers without a word: a Glm of that many has another head there.
    """
    counted = {"num_hidden_layers": "layers"}
    if config["first_k_dense_replace"] < config["num_hidden_layers"]:
        counted["num_experts"] = "experts"
    check_counts(Path(source), config, counted)


def mask(config: Mapping[str, Any], source: str, tokenizer: Any) -> int:
    """The id of the mask."""
    published = PUBLISHED_MASK if config["vocab_size"] == PUBLISHED_VOCABULARY else None
    return mask_token(config, source, tokenizer, MASK_TOKEN, published=published)


def ends(config: Mapping[str, Any], source: str, tokenizer: Any) -> tuple[int, ...]:
    """The ids that end an answer."""
    found = end_tokens(config, source, config["vocab_size"], tokenizer, [END_OF_TURN])
    return found or ((PUBLISHED_END,) if config["vocab_size"] == PUBLISHED_VOCABULARY else ())
