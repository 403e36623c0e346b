"""LLaDA (arXiv:2502.09992) on transformers' own Llama: LLaDA-8B-Base, LLaDA-8B-Instruct, LLaDA-1.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mdm.errors import MdmError

if TYPE_CHECKING:
    from mdm.model import Model


class Llada:
    name = "llada"

    def claims(self, config: Mapping[str, Any]) -> bool:
        architectures = config.get("architectures") or ()
        if "MMadaModelLM" in architectures:  # its config.json may call itself llada too
            return False
        return config.get("model_type") == "llada" or "LLaDAModelLM" in architectures

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        from mdm.families.llada import CHAT, KEYS, as_llama
        from mdm.loading import load_network, load_tokenizer, token_ids
        from mdm.model import Model
        from mdm.protocols import ModelSpec
        from transformers import LlamaConfig, LlamaForCausalLM

        llama = LlamaConfig(**as_llama(config, source))
        if "mask_token_id" not in config:
            raise MdmError(f"{source}: config.json lacks the key 'mask_token_id' of a LLaDA checkpoint")
        spec = ModelSpec(
            family=self.name,
            vocab_size=llama.vocab_size,
            mask_id=config["mask_token_id"],
            eos_ids=token_ids(config.get("eos_token_id")),
            pad_id=config.get("pad_token_id"),
            prompt_style=config.get("prompt_style", "chat"),
        )
        network = load_network(LlamaForCausalLM, source, llama, device=device, dtype=dtype, key_mapping=KEYS, **options)
        return Model(spec, network.model, network.lm_head, load_tokenizer(source), name=source, chat_template=CHAT)


FAMILY = Llada()
