"""Random tiny checkpoints, laid out as each family does; logits are spread so that nothing hangs on rounding."""

from __future__ import annotations

import atexit
import json
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from safetensors.torch import save_file

SCRATCH = Path(mkdtemp(prefix="mdm-families-"))
"""Where parameters of tests, made before any fixture, keep their checkpoints."""
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
VOCABULARY, MASK, EOS, PAD = 256, 250, 251, 252
WIDTH, LAYERS, HEADS, KV_HEADS, MLP = 32, 2, 4, 2, 64

QWEN = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": MLP, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    "hidden_act": "silu", "max_position_embeddings": 512, "tie_word_embeddings": False, "use_sliding_window": False,
    "sliding_window": None, "rope_scaling": None, "eos_token_id": EOS, "pad_token_id": PAD, "mask_token_id": MASK,
}  # fmt: skip
LLADA = {
    "d_model": WIDTH, "n_heads": HEADS, "n_kv_heads": HEADS, "n_layers": LAYERS, "mlp_hidden_size": MLP,
    "embedding_size": VOCABULARY, "vocab_size": VOCABULARY, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
    "weight_tying": False, "mask_token_id": MASK, "eos_token_id": EOS, "pad_token_id": PAD, "block_type": "llama",
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "llada": LLADA | {"model_type": "llada", "architectures": ["LLaDAModelLM"]},
    "dream": QWEN | {"model_type": "Dream", "architectures": ["DreamModel"]},
    "sdar": QWEN | {"model_type": "sdar", "head_dim": 8, "block_size": 4, "attn_implementation": "flex_attention"},
    "mmada": LLADA | {
        "model_type": "mmada", "architectures": ["MMadaModelLM"], "embedding_size": 320, "vocab_size": 320,
        "new_vocab_size": 320, "llm_vocab_size": VOCABULARY, "codebook_size": 64, "num_vq_tokens": 16,
    },
}  # fmt: skip


def save(folder: Path, family: str, seed: int = 0, **changes: Any) -> Path:
    """A checkpoint of ``family`` in ``folder``, its config with ``changes``."""
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIGS[family] | changes
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random) * 0.3

    weights = (_llada if "d_model" in config else _qwen)(normal, config)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _llada(normal: Any, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    d, m, v = WIDTH, MLP, config["embedding_size"]
    weights = {"wte": normal(v, d), "ln_f": 2 * torch.ones(d), "ff_out": normal(v, d)}
    for n in range(LAYERS):
        block = {name: normal(d, d) for name in ("q_proj", "k_proj", "v_proj", "attn_out")}
        block |= {"ff_proj": normal(m, d), "up_proj": normal(m, d), "ff_out": normal(d, m)}
        block |= {"attn_norm": torch.ones(d), "ff_norm": torch.ones(d)}
        weights |= {f"blocks.{n}.{name}": weight for name, weight in block.items()}
    return {f"model.transformer.{name}.weight": weight for name, weight in weights.items()}


def _qwen(normal: Any, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    d, m, v, head = WIDTH, MLP, config["vocab_size"], WIDTH // HEADS
    weights = {
        "model.embed_tokens.weight": normal(v, d), "model.norm.weight": 2 * torch.ones(d),
        "lm_head.weight": normal(v, d),
    }  # fmt: skip
    for n in range(LAYERS):
        block = {"self_attn.o_proj.weight": normal(d, d)}
        for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            block[f"self_attn.{name}_proj.weight"] = normal(heads * head, d)
            if config["model_type"] == "Dream":
                block[f"self_attn.{name}_proj.bias"] = normal(heads * head)
        if config["model_type"] == "sdar":
            block |= {f"self_attn.{name}_norm.weight": torch.ones(head) for name in "qk"}
        block |= {"mlp.gate_proj.weight": normal(m, d), "mlp.up_proj.weight": normal(m, d)}
        block |= {"mlp.down_proj.weight": normal(d, m)}
        block |= {f"{name}_layernorm.weight": torch.ones(d) for name in ("input", "post_attention")}
        weights |= {f"model.layers.{n}.{name}": weight for name, weight in block.items()}
    return weights


def save_bpe(folder: Path, added: list[str], *, whole: bool = False, **config: Any) -> int:
    """A byte-level BPE of a few merges in ``folder``, with ``added`` tokens behind it; returns the id of the first.

    ``whole`` writes tokenizer.json as SDAR and LLaDA ship it, else vocab.json and merges.txt as Dream does. ``config``
    goes into tokenizer_config.json, beside a class of the checkpoint's own that is nowhere to be had.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o")]
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for pair in merges:
        vocabulary["".join(pair)] = len(vocabulary)
    first = len(vocabulary)
    if whole:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in added])
        tokenizer.save(str(folder / "tokenizer.json"))
    else:
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    decoder = {str(first + i): {"content": text, "special": True, **flags} for i, text in enumerate(added)}
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder, **own, **config}))
    return first


def save_characters(folder: Path, characters: str, special: list[str], **config: Any) -> dict[str, int]:
    """A tokenizer of one token a character behind the ``special`` ones, as tokenizer.json; returns its vocabulary."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {text: i for i, text in enumerate([*special, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": special[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind | config))
    return vocabulary


def save_causal(folder: Path, seed: int = 0) -> Path:
    """A random autoregressive Llama of 64 tokens in ``folder``, with a tokenizer of characters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)

    save_characters(folder, "0123456789:,=+-*/ \n", ["<unk>", "</s>", "<pad>"], eos_token="</s>", pad_token="<pad>")
    config = LlamaConfig(
        vocab_size=64, hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, bos_token_id=None, eos_token_id=1, pad_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder
