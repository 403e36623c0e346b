"""MMaDA (arXiv:2505.15809) on transformers' own Llama: text; its image codes are described, not drawn on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mdm.errors import MdmError

from mdm_mmada.layout import ImageCodes

if TYPE_CHECKING:
    from mdm.model import Model


class Mmada:
    name = "mmada"

    def claims(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "mmada" or "MMadaModelLM" in (config.get("architectures") or ())

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        from mdm.families.llada import CHAT, KEYS, as_llama
        from mdm.loading import load_network, load_tokenizer, token_ids
        from mdm.model import Model
        from mdm.protocols import ModelSpec
        from transformers import LlamaConfig, LlamaForCausalLM

        size = config.get("new_vocab_size") or config.get("embedding_size") or config.get("vocab_size")
        # The published configs keep LLaDA's embedding_size in some versions; the weights have the new size.
        llama = LlamaConfig(**as_llama({**config, "embedding_size": size}, source))
        if "mask_token_id" not in config:
            raise MdmError(f"{source}: config.json lacks the key 'mask_token_id' of an MMaDA checkpoint")
        tokenizer = load_tokenizer(source)
        spec = ModelSpec(
            family=self.name,
            vocab_size=llama.vocab_size,
            mask_id=config["mask_token_id"],
            eos_ids=token_ids(config.get("eos_token_id")),
            pad_id=config.get("pad_token_id"),
            image_codes=image_codes(config, tokenizer, llama.vocab_size, source),
        )
        network = load_network(LlamaForCausalLM, source, llama, device=device, dtype=dtype, key_mapping=KEYS, **options)
        return Model(spec, network.model, network.lm_head, tokenizer, name=source, chat_template=CHAT)


FAMILY = Mmada()
