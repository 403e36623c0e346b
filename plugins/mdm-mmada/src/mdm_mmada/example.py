"""A tiny random MMaDA with its tokenizer and its image tokenizer: 16 x 16 pixels in 16 codes of 64.

What it draws is noise. It is for tests, and for trying commands before a checkpoint of 16 GB is there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mdm_mmada.canvases import CONFIG_KEY, NAMES
from mdm_mmada.magvit import Magvit
from mdm_mmada.magvit_config import CLASS, magvit_config

SPECIAL = ("<|unk|>", "<|mask|>", *NAMES, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
"""The special tokens, whose ids are their places; printable characters follow, and the codes behind them."""

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
IMAGE_TOKENIZER = "magvit"
"""The folder of the image tokenizer, in that of the model."""

WIDTH, LAYERS, MLP, VOCABULARY, BITS = 32, 2, 64, 192, 6
SIZES = {"ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": [1, 1, 1], "z_channels": BITS}


def write(folder: Path) -> None:
    """Write the checkpoint into ``folder``, and its image tokenizer into a folder in there."""
    random = torch.Generator().manual_seed(0)
    config = {
        "model_type": "mmada", "architectures": ["MMadaModelLM"], "d_model": WIDTH, "n_heads": 4, "n_kv_heads": 4,
        "n_layers": LAYERS, "mlp_hidden_size": MLP, "vocab_size": VOCABULARY, "embedding_size": VOCABULARY,
        "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "weight_tying": False, "block_type": "llama",
        "mask_token_id": SPECIAL.index("<|mask|>"), "eos_token_id": SPECIAL.index("<|endoftext|>"),
        "codebook_size": 2**BITS, "num_vq_tokens": 16, CONFIG_KEY: {name: SPECIAL.index(name) for name in NAMES},
    }  # fmt: skip
    _save(folder, config, _llama(random))
    _save_tokenizer(folder)
    painter = {"_class_name": CLASS, "codebook_dim": BITS, "encoder": SIZES, "decoder": SIZES}
    _save(folder / IMAGE_TOKENIZER, painter, _magvit(painter, random))


def _save(folder: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _llama(random: torch.Generator) -> dict[str, Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random) * 0.3

    weights = {"wte": normal(VOCABULARY, WIDTH), "ln_f": 2 * torch.ones(WIDTH), "ff_out": normal(VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        block = {name: normal(WIDTH, WIDTH) for name in ("q_proj", "k_proj", "v_proj", "attn_out")}
        block |= {"ff_proj": normal(MLP, WIDTH), "up_proj": normal(MLP, WIDTH), "ff_out": normal(WIDTH, MLP)}
        block |= {"attn_norm": torch.ones(WIDTH), "ff_norm": torch.ones(WIDTH)}
        weights |= {f"blocks.{layer}.{name}": weight for name, weight in block.items()}
    return {f"model.transformer.{name}.weight": weight for name, weight in weights.items()}


def _magvit(config: dict[str, Any], random: torch.Generator) -> dict[str, Tensor]:
    def filled(name: str, shape: torch.Size) -> Tensor:
        if len(shape) == 4:
            return torch.randn(shape, generator=random) / (shape.numel() // shape[0]) ** 0.5
        return torch.ones(shape) if "norm" in name and name.endswith("weight") else torch.zeros(shape)

    state = Magvit(magvit_config(config, IMAGE_TOKENIZER)).state_dict()
    weights = {name: filled(name, value.shape) for name, value in state.items() if not name.startswith("quantize")}
    powers = 2 ** torch.arange(BITS - 1, -1, -1)
    signs = (torch.arange(2**BITS)[:, None] & powers > 0) * 2.0 - 1
    return weights | {"quantize.embedding": signs, "quantize.power_vals": powers}


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {text: i for i, text in enumerate([*SPECIAL, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": SPECIAL[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
