"""Dream (arXiv:2508.15487) on transformers' own Qwen2: Dream-v0 Base and Instruct, DiffuCoder, Dream-Coder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mdm.errors import MdmError
from mdm.models import BaseFamily

if TYPE_CHECKING:
    from mdm.models import Model


class Dream(BaseFamily):
    """Dream on transformers' Qwen2, its logits shifted by one."""

    name = "dream"

    def claims(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "Dream"

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        from mdm.models import Model, affixes, check_mask, end_tokens, load_network, load_tokenizer
        from mdm.protocols import ModelSpec
        from transformers import Qwen2Config, Qwen2ForCausalLM

        from mdm_dream.layout import CHAT, END_OF_TURN, as_qwen

        qwen = Qwen2Config(**as_qwen(config, source))
        if config.get("mask_token_id") is None:
            raise MdmError(f"{source}: config.json lacks the key 'mask_token_id' of a Dream checkpoint")
        # Dream ships vocab.json and merges.txt with a class of its own, which reads them as Qwen2's does.
        tokenizer = load_tokenizer(source, bpe="Qwen2Tokenizer")
        spec = ModelSpec(
            family=self.name,
            vocab_size=qwen.vocab_size,
            mask_id=config["mask_token_id"],
            eos_ids=end_tokens(config, source, qwen.vocab_size, tokenizer, [END_OF_TURN]),
            pad_id=config.get("pad_token_id"),
            prefix=affixes(tokenizer)[0],
            shift=True,
        )
        check_mask(spec.mask_id, spec.vocab_size, tokenizer, source)
        network = load_network(Qwen2ForCausalLM, source, qwen, device=device, dtype=dtype, **options)
        return Model(spec, network.model, network.lm_head, tokenizer, name=source, chat_template=CHAT)


FAMILY = Dream()
