"""Keys of a config.json: those that ask for a network which no family here runs are refused by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from mdm.data import documents
from mdm.errors import MdmError

OFF: tuple[Any, ...] = (None, False, 0, {}, [])
PLAIN: dict[str, tuple[Any, ...]] = {
    # another network altogether
    **dict.fromkeys(
        ("num_experts", "num_local_experts", "n_routed_experts", "num_routed_experts", "moe_num_experts"), (*OFF, 1)
    ),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "shared_expert_intermediate_size"), OFF),
    # weights that are not what they look like
    **dict.fromkeys(("quantization_config", "compression_config"), OFF),
    # which positions are seen
    **dict.fromkeys(("use_sliding_window", "alibi", "use_alibi", "attention_chunk_size", "use_mrope"), OFF),
    # how positions are told
    **dict.fromkeys(("partial_rotary_factor", "rotary_pct"), (None, 1.0)),
    **dict.fromkeys(("no_rope_layers", "no_rope_layer_interval", "rope_interleaved"), OFF),
    # what is done to numbers on their way
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping", "logits_soft_cap", "clip_qkv"), OFF),
    **dict.fromkeys(
        ("embedding_multiplier", "residual_multiplier", "logits_scaling", "logit_scale", "scale_emb"), (None, 1.0)
    ),
    **dict.fromkeys(("mlp_bias", "use_parallel_residual", "parallel_attn", "scale_logits"), OFF),
    "hidden_act": ("silu", "swish", None),
}
"""Keys with which a published config.json selects other code than a stock Llama's, Qwen2's or Qwen3's, and the values
that leave it as it is."""

ROUTES = re.compile("router|routed|expert|moe|topk")
OF_TRAINING = ("output_router_logits", "router_aux_loss_coef")


def refuse(config: Mapping[str, Any], accepted: Mapping[str, tuple[Any, ...]], where: str) -> None:
    """Refuse a config key whose value is not among those ``accepted`` for it. A missing key is fine.

    Raises:
        MdmError: it names the key.
    """
    for key, values in accepted.items():
        if key in config and config[key] not in values:
            wanted = " or ".join(repr(value) for value in values if value or value is None or value is False)
            raise MdmError(f"{where}: config key {key!r} is {config[key]!r}, and this family runs only {wanted}")


def check_network(
    config: Mapping[str, Any],
    where: str,
    accepted: Mapping[str, tuple[Any, ...]] | None = None,
    heeded: Collection[str] = (),
) -> None:
    """Refuse what ``PLAIN`` or the family's own ``accepted`` does not allow, scaled rotary positions and windows.

    Args:
        heeded: keys that a mixture of experts reads, whatever their values. Other keys that ``ROUTES`` suspects are
            refused: a router's option that nobody knows.

    Raises:
        MdmError: it names the key.
    """
    known = {key: values for key, values in PLAIN.items() if key not in heeded} | dict(accepted or {})
    if heeded:
        suspects = [key for key in config if ROUTES.search(key) and key not in (*known, *heeded, *OF_TRAINING)]
        known |= dict.fromkeys(suspects, (None, False, 0))
    refuse(config, known, where)
    if config.get("sliding_window") and config.get("use_sliding_window") is None:
        refuse(config, {"sliding_window": (None,)}, where)
    if layers := config.get("layer_types"):
        count = config.get("num_hidden_layers") or len(layers)
        refuse(config, {"layer_types": (["full_attention"] * count,)}, where)
    for key in ("rope_scaling", "rope_parameters"):
        if not _is_plain_rope(config.get(key)):
            refuse(config, {key: (None, {"rope_type": "default"})}, where)


def network_sizes(config: Mapping[str, Any], where: str, *, rope: float = 1000000.0) -> dict[str, Any]:
    """The arguments of a transformers configuration that Llama, Qwen2, Qwen3 and what is made after them share.

    Of a published config.json in transformers' own keys; keys not named here are left out, as they may select code of
    the checkpoint's own.

    Args:
        rope: the base of the rotary positions where config.json names none.

    Raises:
        MdmError: a key is missing.
    """
    needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    if (lacking := next((key for key in needed if config.get(key) is None), None)) is not None:
        raise MdmError(f"{where}: config.json lacks the key {lacking!r}")
    return {key: config[key] for key in needed} | {
        "num_key_value_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
        "head_dim": config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
        "max_position_embeddings": config.get("max_position_embeddings") or 32768,
        "rms_norm_eps": config.get("rms_norm_eps") or 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": rope_theta(config, rope)},
        "tie_word_embeddings": config.get("tie_word_embeddings") or False,
    }


def _is_plain_rope(rope: Any) -> bool:
    if not rope:
        return True
    if not isinstance(rope, Mapping):
        return False
    other = {key: value for key, value in rope.items() if key not in ("rope_theta", "rope_type", "type")}
    kinds = {rope.get("rope_type") or "default", rope.get("type") or "default"}
    return kinds == {"default"} and all(value in (None, 1.0) for value in other.values())


def rope_theta(config: Mapping[str, Any], default: float) -> float:
    """The base of the rotary positions: transformers 5 keeps it in rope_parameters."""
    ropes = [rope for key in ("rope_parameters", "rope_scaling") if (rope := config.get(key))]
    return next((rope["rope_theta"] for rope in ropes if rope.get("rope_theta")), config.get("rope_theta") or default)


def token_ids(value: Any) -> tuple[int, ...]:
    """What a config says of an id: one, several or none."""
    return () if value is None else tuple(value) if isinstance(value, list) else (value,)


def end_tokens(
    config: Mapping[str, Any], source: str, vocabulary: int, tokenizer: Any, turns: Iterable[str] = ()
) -> tuple[int, ...]:
    """Every token that ends an answer: config.json's (the first is filled in behind an end), those of
    generation_config.json, the tokenizer's eos_token, and the family's own end of a turn.

    Ids that the network cannot write are left out.

    Args:
        vocabulary: the network's number of tokens.
        turns: names of the tokens with which the family ends a turn, where the tokenizer has them.

    Raises:
        MdmError: generation_config.json cannot be read, or an id is none.
    """
    ids: list[Any] = [
        *token_ids(config.get("eos_token_id")),
        *_generation_ends(Path(source) / "generation_config.json"),
    ]
    if tokenizer is not None:
        known = {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}
        ids += [tokenizer.eos_token_id, *(known.get(turn) for turn in turns)]
    named = [i for i in ids if i is not None]
    if wrong := [i for i in named if not isinstance(i, int) or isinstance(i, bool)]:
        raise MdmError(f"{source}: the end token {wrong[0]!r} is no token id")
    return tuple(i for i in dict.fromkeys(named) if 0 <= i < vocabulary)


def _generation_ends(path: Path) -> tuple[int, ...]:
    try:
        found = documents.read_json(path, finite=False)
    except FileNotFoundError:
        return ()
    if not isinstance(found, dict):
        raise MdmError(f"{path} is not a JSON object")
    return token_ids(found.get("eos_token_id"))
