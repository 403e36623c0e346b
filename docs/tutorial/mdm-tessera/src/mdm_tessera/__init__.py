"""Tessera checkpoints, block by block, on transformers' own Llama."""

import json

from mdm.errors import MdmError
from mdm.models import BaseFamily

# torch and transformers take seconds to import, so they are imported where they are used; listing needs neither.

SIZES = {
    "vocab": "vocab_size",
    "dim": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "hidden": "intermediate_size",
    "eps": "rms_norm_eps",
}
"""From the published config.json to LlamaConfig."""

KEYS = {
    r"^embed\.": "model.embed_tokens.",
    r"^norm\.": "model.norm.",
    r"^head\.": "lm_head.",
    r"^blocks\.(\d+)\.norm_a\.": r"model.layers.\1.input_layernorm.",
    r"^blocks\.(\d+)\.norm_m\.": r"model.layers.\1.post_attention_layernorm.",
    **{rf"^blocks\.(\d+)\.w{part}\.": rf"model.layers.\1.self_attn.{part}_proj." for part in "qkvo"},
    **{rf"^blocks\.(\d+)\.{part}\.": rf"model.layers.\1.mlp.{part}_proj." for part in ("gate", "up", "down")},
}
"""From the published weight names to Llama's; transformers takes one group a pattern."""

ACCEPTED = {"activation": ("silu",), "qkv_bias": (False,), "window": (None,)}
"""Keys that select code, and the values for which it is Llama's."""


class Tessera(BaseFamily):
    """Tessera on transformers' Llama."""

    name = "tessera"

    def claims(self, config):
        # By the class, where there is one: many families call themselves "llama".
        return "TesseraLM" in (config.get("architectures") or ())

    def load(self, source, config, *, device, dtype, **options):
        from mdm.models import Model, affixes, check_mask, check_network, end_tokens, load_network, load_tokenizer
        from mdm.protocols import ModelSpec
        from transformers import LlamaConfig, LlamaForCausalLM

        check_network(config, source, ACCEPTED)
        if lacking := next((key for key in (*SIZES, "theta", "block", "mask_id") if key not in config), None):
            raise MdmError(f"{source}: config.json lacks the key {lacking!r} of a Tessera checkpoint")
        llama = LlamaConfig(
            **{ours: config[theirs] for theirs, ours in SIZES.items()},
            rope_parameters={"rope_type": "default", "rope_theta": config["theta"]},
            tie_word_embeddings=False,
        )
        tokenizer = load_tokenizer(source)
        check_mask(config["mask_id"], llama.vocab_size, tokenizer, source)
        spec = ModelSpec(
            family=self.name,
            vocab_size=llama.vocab_size,
            mask_id=config["mask_id"],
            eos_ids=end_tokens(config, source, llama.vocab_size, tokenizer),
            prefix=affixes(tokenizer)[0],
            attention="block-causal",
            block_length=config["block"],
            default_cache="block",
        )
        network = load_network(LlamaForCausalLM, source, llama, device=device, dtype=dtype, key_mapping=KEYS, **options)
        return Model(spec, network.model, network.lm_head, tokenizer, name=source)

    def example(self, folder):
        """Write a tiny random checkpoint in the published layout: what `mdm check` runs on."""
        import torch
        from safetensors.torch import save_file

        config = {
            "architectures": ["TesseraLM"], "vocab": 64, "dim": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48,
            "eps": 1e-5, "theta": 10000.0, "activation": "silu", "qkv_bias": False, "window": None, "block": 4,
            "mask_id": 60, "eos_token_id": 61,
        }  # fmt: skip
        shapes = {"embed": (64, 32), "head": (64, 32), "norm": (32,)}
        for n in range(2):
            block = {"norm_a": (32,), "norm_m": (32,), "wq": (32, 32), "wk": (16, 32), "wv": (16, 32), "wo": (32, 32)}
            block |= {"gate": (48, 32), "up": (48, 32), "down": (32, 48)}
            shapes |= {f"blocks.{n}.{name}": shape for name, shape in block.items()}
        random = torch.Generator().manual_seed(0)
        weights = {
            f"{name}.weight": torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=random) * 0.3
            for name, shape in shapes.items()
        }
        save_file(weights, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))


FAMILY = Tessera()
