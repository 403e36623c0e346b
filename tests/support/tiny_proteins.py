"""Random tiny protein models as transformers saves them: ESM-2's kind, and ESMFold's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import EsmConfig, EsmForMaskedLM, EsmForProteinFolding

VOCABULARY = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]
SHAPE = {
    "vocab_size": len(VOCABULARY), "pad_token_id": 1, "mask_token_id": 32, "position_embedding_type": "rotary",
    "token_dropout": True, "emb_layer_norm_before": False, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
STRUCTURE = {
    "sequence_dim": 16, "pairwise_dim": 8, "ipa_dim": 4, "resnet_dim": 8, "num_heads_ipa": 2, "num_qk_points": 2,
    "num_v_points": 2, "num_blocks": 2, "num_transition_layers": 1, "num_resnet_blocks": 1,
}  # fmt: skip
TRUNK = {
    "num_blocks": 1, "sequence_state_dim": 16, "pairwise_state_dim": 8, "sequence_head_width": 8,
    "pairwise_head_width": 4, "position_bins": 4, "max_recycles": 1, "chunk_size": None, "structure_module": STRUCTURE,
}  # fmt: skip


def save_esm(folder: Path, seed: int = 0, **changes: Any) -> EsmForMaskedLM:
    """An ESM-2 with its own vocabulary in ``folder``, its config with ``changes``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "EsmTokenizer"}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = EsmForMaskedLM(EsmConfig(**SHAPE | {"initializer_range": 0.5} | changes)).eval()
    network.save_pretrained(folder)
    return network


def save_fold(folder: Path, seed: int = 0) -> EsmForProteinFolding:
    """An ESMFold in ``folder``, all of its weights random."""
    fold = {"fp16_esm": False, "lddt_head_hid_dim": 8, "trunk": TRUNK}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = EsmConfig(**SHAPE, is_folding_model=True, esmfold_config=fold, vocab_list=VOCABULARY)
        network = EsmForProteinFolding(config).eval()
        for weight in network.parameters():  # many begin as zeros
            torch.nn.init.normal_(weight, std=0.3)
    network.save_pretrained(folder)
    return network
