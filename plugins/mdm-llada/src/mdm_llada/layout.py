"""LLaDA's published layout (also MMaDA's): its config keys and weight names, as transformers' Llama."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from mdm.errors import MdmError
from mdm.models import Model, affixes, check_mask, check_network, end_tokens, load_network, load_tokenizer, rope_theta
from mdm.protocols import ModelSpec

KEYS = {
    r"^model\.transformer\.wte\.": "model.embed_tokens.",
    r"^model\.transformer\.ln_f\.": "model.norm.",
    r"^model\.transformer\.ff_out\.": "lm_head.",
    r"^model\.transformer\.blocks\.(\d+)\.attn_norm\.": r"model.layers.\1.input_layernorm.",
    r"^model\.transformer\.blocks\.(\d+)\.ff_norm\.": r"model.layers.\1.post_attention_layernorm.",
    r"^model\.transformer\.blocks\.(\d+)\.attn_out\.": r"model.layers.\1.self_attn.o_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.(?=[qkv]_proj\.)": r"model.layers.\1.self_attn.",
    r"^model\.transformer\.blocks\.(\d+)\.ff_proj\.": r"model.layers.\1.mlp.gate_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.up_proj\.": r"model.layers.\1.mlp.up_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.ff_out\.": r"model.layers.\1.mlp.down_proj.",
}
"""From LLaDA's weight names to Llama's."""

ACCEPTED: dict[str, tuple[Any, ...]] = {
    "activation_type": ("silu", "swiglu"),
    "attention_bias": (False, None),
    "attention_layer_norm": (False, None),
    "bias_for_layer_norm": (False, None),
    "block_group_size": (1,),
    "block_type": ("llama",),
    "include_bias": (False, None),
    "include_qkv_bias": (False, None),
    "input_emb_norm": (False, None),
    "layer_norm_type": ("rms",),
    "layer_norm_with_affine": (True,),
    "multi_query_attention": (False, None),
    "rope": (True,),
    "use_qk_norm": (False, None),
}
"""Config keys of the published model, beside the common ones, that select code, and the values that are Llama's."""

CHAT = (
    "{% for m in messages %}{% if loop.first %}<|startoftext|>{% endif %}<|start_header_id|>{{ m['role'] }}"
    "<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""The template of LLaDA-8B-Instruct, for a checkpoint that carries none."""
END_OF_TURN = "<|eot_id|>"

M = TypeVar("M", bound=Model)


def as_llama(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The arguments of ``LlamaConfig`` that a LLaDA config.json amounts to; only keys known here are taken.

    Raises:
        MdmError: a key is missing, or asks for what Llama does not do.
    """
    check_network(config, source, ACCEPTED)
    try:
        return {
            "vocab_size": config.get("embedding_size") or config["vocab_size"],
            "hidden_size": config["d_model"],
            "num_hidden_layers": config["n_layers"],
            "num_attention_heads": config["n_heads"],
            "num_key_value_heads": config.get("n_kv_heads") or config["n_heads"],
            "intermediate_size": config["mlp_hidden_size"],
            "max_position_embeddings": config.get("max_sequence_length", 4096),
            "rms_norm_eps": config.get("rms_norm_eps", 1e-5),
            "rope_parameters": {"rope_type": "default", "rope_theta": rope_theta(config, 10000.0)},
            "tie_word_embeddings": config.get("weight_tying", False),
            "attention_bias": False,
        }
    except KeyError as error:
        raise MdmError(f"{source}: config.json lacks the key {error} of a LLaDA checkpoint") from None


def load(
    family: str, source: str, config: Mapping[str, Any], *, device: str, dtype: str,
    model_class: type[M] = Model,  # type: ignore[assignment]
    chat_template: str = CHAT, **options: Any,
) -> M:  # fmt: skip
    """A checkpoint in LLaDA's layout, on Llama. ``options`` go to ``load_network``.

    Args:
        model_class: what the model is to be.
        chat_template: for a checkpoint that carries none.

    Raises:
        MdmError: a config key that is missing or cannot be honoured, a weight that does not fit.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    llama = LlamaConfig(**as_llama(config, source))
    if config.get("mask_token_id") is None:
        raise MdmError(f"{source}: config.json lacks the key 'mask_token_id' of a LLaDA checkpoint")
    tokenizer = load_tokenizer(source)
    spec = ModelSpec(
        family=family,
        vocab_size=llama.vocab_size,
        mask_id=config["mask_token_id"],
        eos_ids=end_tokens(config, source, llama.vocab_size, tokenizer, [END_OF_TURN]),
        pad_id=config.get("pad_token_id"),
        prefix=affixes(tokenizer)[0],
        prompt_style=config.get("prompt_style", "chat"),
    )
    check_mask(spec.mask_id, spec.vocab_size, tokenizer, source)
    network = load_network(LlamaForCausalLM, source, llama, device=device, dtype=dtype, key_mapping=KEYS, **options)
    return model_class(spec, network.model, network.lm_head, tokenizer, name=source, chat_template=chat_template)
