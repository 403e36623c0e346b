"""Autoregressive baselines (Llama, Mistral, Qwen and whatever else transformers has of a ``ForCausalLM``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mdm.models import BaseFamily, is_stock

if TYPE_CHECKING:
    from mdm.models import Model


TURNS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|eom_id|>")
"""With what published chat models end a turn, where their tokenizer has such a token."""


class Ar(BaseFamily):
    """Any causal language model of transformers, decoded by its own ``generate``."""

    name = "ar"
    autoregressive: ClassVar[bool] = True

    def claims(self, config: Mapping[str, Any]) -> bool:
        # A mask token under the name of a stock class is a diffusion model's, such as ReFusion's.
        return is_stock(config, "ForCausalLM") and config.get("mask_token_id") is None

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        from mdm.models import affixes, end_tokens, load_network, load_tokenizer, stock_config
        from mdm.protocols import ModelSpec
        from transformers import AutoModelForCausalLM

        from mdm_ar.model import ArModel

        stock = stock_config(source)
        tokenizer = load_tokenizer(source, auto=True)
        prefix, _ = affixes(tokenizer)
        spec = ModelSpec(
            family=self.name,
            vocab_size=stock.vocab_size,
            mask_id=-1,
            eos_ids=end_tokens({"eos_token_id": stock.eos_token_id}, source, stock.vocab_size, tokenizer, TURNS),
            pad_id=stock.pad_token_id,
            shift=True,
            attention="causal",
            prefix=prefix,
            prompt_style="chat" if getattr(tokenizer, "chat_template", None) else "compact",
        )
        network = load_network(
            AutoModelForCausalLM, source, stock, device=device, dtype=dtype, bidirectional=False, **options
        )
        return ArModel(spec, network, tokenizer, name=source)


FAMILY = Ar()
