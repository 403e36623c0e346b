"""Fast-dLLM v2 (arXiv:2509.26328) on transformers' own Qwen2: block diffusion with shifted logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mdm.models import BaseFamily

if TYPE_CHECKING:
    from mdm.models import Model

BLOCK_LENGTH = 32
ARCHITECTURE = "Fast_dLLM_QwenForCausalLM"


class FastDllm2(BaseFamily):
    """Fast-dLLM v2 on transformers' Qwen2: the last position of a block predicts the first one of the next."""

    name = "fastdllm2"

    def claims(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "Fast_dLLM_Qwen" or ARCHITECTURE in (config.get("architectures") or ())

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        from mdm.models import Model, affixes, end_tokens, load_network, load_tokenizer, mask_token
        from mdm.protocols import ModelSpec
        from transformers import Qwen2Config, Qwen2ForCausalLM

        from mdm_fastdllm2.layout import CHAT, END_OF_TURN, MASK_ID, MASK_TOKEN, as_qwen

        qwen = Qwen2Config(**as_qwen(config, source))
        tokenizer = load_tokenizer(source, bpe="Qwen2Tokenizer")
        spec = ModelSpec(
            family=self.name,
            vocab_size=qwen.vocab_size,
            mask_id=mask_token(config, source, tokenizer, MASK_TOKEN, published=MASK_ID if tokenizer is None else None),
            eos_ids=end_tokens(config, source, qwen.vocab_size, tokenizer, [END_OF_TURN]),
            pad_id=config.get("pad_token_id"),
            prefix=affixes(tokenizer)[0],
            shift=True,
            attention="block-causal",
            block_length=config.get("bd_size") or BLOCK_LENGTH,
            default_cache="block",
        )
        network = load_network(Qwen2ForCausalLM, source, qwen, device=device, dtype=dtype, **options)
        return Model(spec, network.model, network.lm_head, tokenizer, name=source, chat_template=CHAT)


FAMILY = FastDllm2()
